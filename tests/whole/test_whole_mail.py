"""Mail through the real daemon, all processes confined: in by SMTP, on disk, out."""

import email
import os
import shutil
import smtplib
import ssl
from pathlib import Path

import pytest
from support.certs import make_key, write_acme
from support.daemon import Daemon, cli, running, wait_until
from support.sink import Behaviour, sinking
from support.users import ensure_mail_user

IDENTIFIED = (
    "Date: Thu, 1 Jan 1970 00:00:00 +0000\r\nMessage-ID: <1@client.test>\r\n"  # or a listener on loopback would
)
MESSAGE = IDENTIFIED + "From: a@client.test\r\nTo: b@example.com\r\nSubject: {0}\r\n\r\nbody {0}\r\n..dots\r\n"

RELAY = """
listen on 127.0.0.1 port {port} hostname mx.test
action out relay host "smtp://127.0.0.1:SINK"
match from any for any action out
"""


def send(daemon: Daemon, rcpt: list[str], text: str, sender: str = "a@client.test") -> None:
    with daemon.smtp() as client:
        client.sendmail(sender, rcpt, text)


def test_relay_to_a_smarthost() -> None:
    """A message goes through whole: dots kept, Received added, the queue empty afterwards."""
    with sinking() as sink, running(RELAY.replace("SINK", str(sink.port))) as daemon:
        send(daemon, ["b@example.com", "c@example.com"], MESSAGE.format("one"))
        wait_until("both recipients arrive", lambda: sum(len(mail.recipients) for mail in sink.mails) == 2)
        daemon.wait_empty()
        data = sink.mails[0].data
        assert data.endswith(MESSAGE.format("one").encode())
        received = email.message_from_bytes(data)["Received"]
        assert "client.test" in received and "mx.test" in received
        assert sink.mails[0].sender == "a@client.test"


@pytest.mark.parametrize("size_bytes", [0, 65_000, 66_000, 3_000_000])
def test_bodies_of_every_size_arrive_unchanged(size_bytes: int) -> None:
    """Inline bodies and spool files alike: what was sent is what arrives."""
    line = b"0123456789" * 7 + b"\r\n"
    body = IDENTIFIED.encode() + b"Subject: size\r\n\r\n" + line * (size_bytes // len(line))
    with sinking() as sink, running(RELAY.replace("SINK", str(sink.port))) as daemon:
        with daemon.smtp() as client:
            client.sendmail("a@client.test", ["b@example.com"], body)
        wait_until("it arrives", lambda: bool(sink.mails))
        assert sink.mails[0].data.endswith(body)
        daemon.wait_empty()
        leftovers = [p for p in daemon.state.rglob("*") if p.is_file() and p.parent.name == "bodies"]
        assert leftovers == []


def test_lmtp_unix_socket_with_virtual_table(tmp_path: Path) -> None:
    """The issue's `receive` action: virtual table, rcpt-to, LMTP over a Unix socket, per-recipient replies."""
    user = ensure_mail_user()
    socket_dir = Path("/var/tmp") / f"sps-lmtp-{os.getpid()}"
    socket_dir.mkdir(exist_ok=True)
    socket_path = str(socket_dir / "lmtp")
    behaviour = Behaviour(rcpt={"no@example.com": "550 5.1.1 unknown"})
    config = f"""
table virtuals "{{dir}}/virtuals"
listen on 127.0.0.1 port {{port}}
action receive lmtp "{socket_path}" rcpt-to virtual <virtuals>
match from any for domain example.com action receive
"""
    try:
        with sinking(socket_path, lmtp=True, behaviour=behaviour) as sink:
            Path(socket_path).chmod(0o666)
            daemon = Daemon(config)
            (daemon.dir / "virtuals").write_text(f"john.doe@example.com {user}\nno@example.com {user}\n")
            try:
                daemon.start()
                with daemon.smtp() as client:
                    client.sendmail("a@client.test", ["john.doe@example.com", "no@example.com"], MESSAGE.format("x"))
                    with pytest.raises(smtplib.SMTPRecipientsRefused):
                        client.sendmail("a@client.test", ["nobody@example.com"], MESSAGE.format("y"))
                    with pytest.raises(smtplib.SMTPRecipientsRefused) as refused:
                        client.sendmail("a@client.test", ["b@elsewhere.test"], MESSAGE.format("z"))
                    assert refused.value.recipients["b@elsewhere.test"][0] == 550
                wait_until("it arrives", lambda: bool(sink.mails))
                assert sink.mails[0].recipients == ["john.doe@example.com"]
                assert b"\r\nsubject: x" in sink.mails[0].data.lower()
                assert sink.mails[0].data.startswith(b"Return-Path: <a@client.test>")
                assert daemon.stop() == 0
            finally:
                if daemon.process and daemon.process.poll() is None:
                    daemon.process.kill()
                    daemon.process.wait()
                daemon.remove()
    finally:
        shutil.rmtree(socket_dir)


@pytest.fixture
def mail_home() -> object:
    """A folder that the mail user owns."""
    user = ensure_mail_user()
    home = Path("/var/tmp") / f"sps-home-{os.getpid()}"
    home.mkdir(exist_ok=True)
    if os.getuid() == 0:
        shutil.chown(home, user, user)
    yield home
    shutil.rmtree(home)


def test_maildir_by_an_agent(mail_home: Path) -> None:
    """Local mail is written by a process of the user, complete, with Delivered-To, mode 0600, that user's own."""
    user = ensure_mail_user()
    config = f"""
table users {{ "@" = "{user}" }}
listen on 127.0.0.1 port {{port}}
action box maildir "{mail_home}/box" virtual <users>
match from any for domain "example.com" action box
"""
    with running(config) as daemon:
        with daemon.smtp() as client:
            for number in range(30):
                client.sendmail("a@client.test", ["b@example.com"], MESSAGE.format(number))
        new = mail_home / "box" / "new"
        wait_until("30 messages in new", lambda: new.is_dir() and len(list(new.iterdir())) == 30)
        daemon.wait_empty()
        assert not list((mail_home / "box" / "tmp").iterdir())
        one = next(new.iterdir())
        message = email.message_from_bytes(one.read_bytes())
        assert message["Return-Path"] == "<a@client.test>"
        assert message["Delivered-To"] == "b@example.com"
        assert one.stat().st_mode & 0o777 == 0o600
        assert one.owner() == user


CREDENTIALS = """
pki mxkey cert "{dir}/acme/live/fullchain.pem"
pki mxkey key "{dir}/acme/live/privkey.pem"
table submitters "{dir}/submitters"
listen on 127.0.0.1 port {port} tls pki mxkey
listen on 127.0.0.1 port {port2} tls-require pki mxkey auth <submitters>
action send relay host "smtp://127.0.0.1:SINK"
match auth from any for any action send
"""


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_submission(kind: str) -> None:
    """Only who authenticated on the submission port may relay; AUTH is offered under TLS alone."""
    with sinking() as sink:
        daemon = Daemon(CREDENTIALS.replace("SINK", str(sink.port)))
        try:
            write_acme(daemon.dir / "acme", make_key(kind))
            hashed = cli("smtpctl_ps", "encrypt", "correct horse").stdout.strip()
            assert hashed.startswith("$6$")
            (daemon.dir / "submitters").write_text(f"alice {hashed}\n")
            daemon.start()
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            with daemon.smtp(daemon.port2) as client:
                client.ehlo()
                assert not client.has_extn("auth")
                code, _text = client.mail("a@client.test")
                assert code == 530
            with daemon.smtp(daemon.port2) as client:
                client.starttls(context=context)
                client.ehlo()
                assert client.mail("a@client.test")[0] == 530
                with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
                    client.login("alice", "wrong")
                assert refused.value.smtp_code == 535
                client.login("alice", "correct horse")
                client.sendmail("a@client.test", ["b@elsewhere.test"], MESSAGE.format("sent"))
            wait_until("it arrives", lambda: bool(sink.mails))
            with daemon.smtp() as client:
                client.starttls(context=context)
                with pytest.raises(smtplib.SMTPRecipientsRefused):
                    client.sendmail("a@client.test", ["b@elsewhere.test"], MESSAGE.format("refused"))
            assert len(sink.mails) == 1
            assert daemon.stop() == 0
        finally:
            if daemon.process and daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait()
            daemon.remove()


def test_a_permanent_failure_comes_back_as_a_bounce() -> None:
    """The sender of refused mail gets a multipart/report from the null sender; the queue is empty afterwards."""
    behaviour = Behaviour(rcpt={"bad@example.com": "550 5.1.1 no such user here"})
    with sinking(behaviour=behaviour) as sink, running(RELAY.replace("SINK", str(sink.port))) as daemon:
        send(daemon, ["bad@example.com"], MESSAGE.format("lost"))
        wait_until("the bounce arrives", lambda: bool(sink.mails))
        bounce = sink.mails[0]
        assert bounce.sender == ""
        assert bounce.recipients == ["a@client.test"]
        report = email.message_from_bytes(bounce.data)
        assert report.get_content_type() == "multipart/report"
        assert b"no such user here" in bounce.data
        daemon.wait_empty()


def test_temporary_failures_stay_queued_and_can_be_scheduled() -> None:
    """A 4xx keeps the mail; `show queue` shows why; `schedule` tries again; then it is delivered."""
    behaviour = Behaviour(data="451 4.3.0 later")
    with sinking(behaviour=behaviour) as sink, running(RELAY.replace("SINK", str(sink.port))) as daemon:
        send(daemon, ["b@example.com"], MESSAGE.format("later"))
        wait_until("it was tried", lambda: "later" in daemon.ctl("show", "queue"))
        line = daemon.ctl("show", "queue").strip().split("|")
        assert len(line) == 14
        assert line[4:7] == ["a@client.test", "b@example.com", "b@example.com"]
        assert "sender" in daemon.ctl("show", "envelope", line[0])
        assert "body later" in daemon.ctl("show", "message", line[0])
        behaviour.data = "250 2.0.0 now"
        daemon.ctl("schedule", line[0])
        wait_until("it arrives", lambda: bool(sink.mails))
        daemon.wait_empty()


def test_a_restart_keeps_the_queue() -> None:
    """What was queued before a stop is delivered after the next start; `remove` removes."""
    behaviour = Behaviour(data="451 4.3.0 later")
    with sinking(behaviour=behaviour) as sink:
        daemon = Daemon(RELAY.replace("SINK", str(sink.port)))
        try:
            daemon.start()
            for number in range(5):
                send(daemon, ["b@example.com"], MESSAGE.format(number))
            assert daemon.stop() == 0
            daemon.start()
            assert daemon.queued() == 5
            first = daemon.ctl("show", "queue").split("|", 1)[0]
            assert "1 envelope removed" in daemon.ctl("remove", first)
            behaviour.data = "250 ok"
            daemon.schedule_until("four arrive", lambda: len(sink.mails) == 4)
            daemon.wait_empty()
            assert daemon.stop() == 0
        finally:
            if daemon.process and daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait()
            daemon.remove()
