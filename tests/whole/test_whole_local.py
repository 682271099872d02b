"""Local ways in and out: mbox, aliases, the submission socket, passwords of system users, rules."""

import mailbox
import os
import pwd
import smtplib
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certs import make_key, write_acme
from support.daemon import Daemon, cli, running, wait_until
from support.sink import sinking
from support.users import ensure_mail_user

MESSAGE = "From: a@client.test\r\nTo: b@example.com\r\nSubject: {0}\r\n\r\nFrom here on {0}\r\n.dot\r\n"
NEED_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="needs root: other users' mailboxes and passwords")


@pytest.fixture
def mbox_user() -> Iterator[str]:
    """A mail user whose system mailbox is empty before and gone after."""
    user = ensure_mail_user()
    path = Path("/var/mail") / user
    path.unlink(missing_ok=True)
    yield user
    path.unlink(missing_ok=True)


@NEED_ROOT
def test_mbox(mbox_user: str) -> None:
    """Mail by alias to the system mailbox: owned by the user, each message whole, From_ lines quoted."""
    config = f"""
table aliases {{ "postmaster" = "{mbox_user}", "staff" = "postmaster, {mbox_user}" }}
listen on 127.0.0.1 port {{port}}
action box mbox alias <aliases>
match from any for domain "example.com" action box
"""
    with running(config) as daemon:
        with daemon.smtp() as client:
            for number in range(5):
                client.sendmail("a@client.test", ["postmaster@example.com"], MESSAGE.format(number))
            client.sendmail("a@client.test", ["POSTMASTER+tag@example.com"], MESSAGE.format("tagged"))
            assert client.docmd("RSET")[0] == 250
            with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
                client.sendmail("a@client.test", ["no-such-user@example.com"], MESSAGE.format("x"))
            assert refused.value.recipients["no-such-user@example.com"][0] == 550
        daemon.wait_empty()
        path = Path("/var/mail") / mbox_user
        assert path.owner() == mbox_user
        assert path.stat().st_mode & 0o007 == 0
        box = mailbox.mbox(path, create=False)
        stored = list(box)
        box.close()
        assert [message["Subject"] for message in stored] == ["0", "1", "2", "3", "4", "tagged"]
        assert all(b"\n>From here on" in message.as_bytes() for message in stored)


RULES = """
table banned { 127.0.0.3, 192.0.2.0/24 }
table people { "good@example.com", "@open.test" }
listen on socket
listen on 127.0.0.1 port {port} tag PUBLIC
action out relay host "smtp://127.0.0.1:SINK"
match from src <banned> for any reject
match tag PUBLIC from any for rcpt-to <people> action out
match from local for domain "local.test" action out
match ! from local for domain "never.test" action out
match from socket for domain "socket.test" action out
"""


def rcpt(daemon: Daemon, recipient: str, source: str = "127.0.0.1") -> int:
    """The reply code of a RCPT from this address."""
    with smtplib.SMTP("127.0.0.1", daemon.port, source_address=(source, 0), timeout=30) as client:
        client.ehlo()
        client.mail("a@client.test")
        return client.rcpt(recipient)[0]


def test_rules_and_the_submission_socket() -> None:
    """src, tag, rcpt-to, local, socket, negation and reject decide as the first matching line says."""
    with sinking() as sink, running(RULES.replace("SINK", str(sink.port))) as daemon:
        assert rcpt(daemon, "good@example.com") == 250
        assert rcpt(daemon, "GOOD@Example.com") == 250
        assert rcpt(daemon, "bad@example.com") == 550
        assert rcpt(daemon, "any@open.test") == 250
        assert rcpt(daemon, "any@local.test") == 250
        assert rcpt(daemon, "any@never.test") == 550
        assert rcpt(daemon, "any@socket.test") == 550
        assert rcpt(daemon, "good@example.com", "127.0.0.3") == 550
        path = next((daemon.state / "run").glob("smtpd_ps*.sock"))
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            stream = sock.makefile("rwb")
            assert stream.readline().startswith(b"220 ")
            script = (b"HELO me", b"MAIL FROM:<me@local.test>", b"RCPT TO:<b@socket.test>", b"DATA")
            for line, code in zip(script, (b"250", b"250", b"250", b"354"), strict=True):
                stream.write(line + b"\r\n")
                stream.flush()
                assert stream.readline().startswith(code)
            stream.write(b"Subject: socket\r\n\r\nhi\r\n.\r\nQUIT\r\n")
            stream.flush()
            assert stream.readline().startswith(b"250")
        wait_until("it arrives", lambda: bool(sink.mails))
        assert sink.mails[0].recipients == ["b@socket.test"]
        headers = sink.mails[0].data.partition(b"\r\n\r\n")[0]
        assert b"Date: " in headers and b"Message-ID: " in headers, "local submissions are completed"


@NEED_ROOT
def test_passwords_of_system_users() -> None:
    """`auth` without a table asks the system; a locked account and a wrong password are 535."""
    name = "spsauth"
    try:
        pwd.getpwnam(name)
    except KeyError:
        subprocess.run(["useradd", "-r", "-M", "-s", "/usr/sbin/nologin", name], check=True)
    hashed = cli("smtpctl_ps", "encrypt", "system secret").stdout.strip()
    subprocess.run(["usermod", "-p", hashed, name], check=True)
    config = """
pki mxkey cert "{dir}/acme/live/fullchain.pem"
pki mxkey key "{dir}/acme/live/privkey.pem"
listen on 127.0.0.1 port {port} tls pki mxkey auth-optional
action out relay host "smtp://127.0.0.1:9"
match auth from any for any action out
"""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    daemon = Daemon(config)
    write_acme(daemon.dir / "acme", make_key("ecdsa"))
    try:
        daemon.start()
        for user, password, right in (
            (name, "system secret", True),
            (name, "wrong", False),
            ("daemon", "*", False),
            ("no-such-user", "x", False),
        ):
            with daemon.smtp() as client:
                client.starttls(context=context)
                client.ehlo()
                if right:
                    assert client.login(user, password)[0] == 235
                else:
                    with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
                        client.login(user, password)
                    assert refused.value.smtp_code == 535
        assert "system secret" not in daemon.log
        assert daemon.stop() == 0
    finally:
        subprocess.run(["usermod", "-p", "!", name], check=True)
        if daemon.process and daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()
        daemon.remove()


def test_a_daemon_that_goes_to_the_background() -> None:
    """Without -d the command ends 0 once the daemon serves; the pid file names it, and stop ends it."""
    daemon = Daemon("listen on 127.0.0.1 port {port}\naction out relay\nmatch from any for any action out\n")
    daemon.write_config()
    options = () if os.getuid() == 0 else ("--unprivileged",)
    try:
        done = cli("smtpd_ps", "-f", str(daemon.config_path), "--state-dir", str(daemon.state), *options)
        assert done.returncode == 0, done.stderr
        pid = int(next((daemon.state / "run").glob("*.pid")).read_text())
        with daemon.smtp() as client:
            assert client.noop()[0] == 250
        assert Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"smtpd_ps: parent")
        daemon.ctl("stop")
        wait_until("it is gone", lambda: not Path(f"/proc/{pid}").exists())
    finally:
        daemon.remove()


def test_a_start_that_fails_says_why() -> None:
    """An address that is taken: exit status 1 and one line, also for a daemon that would go to the background."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen(1)
        daemon = Daemon("listen on 127.0.0.1 port {port}\naction out relay\nmatch from any for any action out\n")
        daemon.port = taken.getsockname()[1]
        daemon.write_config()
        options = () if os.getuid() == 0 else ("--unprivileged",)
        done = cli("smtpd_ps", "-f", str(daemon.config_path), "--state-dir", str(daemon.state), *options)
        assert done.returncode == 1
        assert done.stderr == f"smtpd_ps: 127.0.0.1 port {daemon.port}: Address already in use\n"
        daemon.remove()
