"""sendmail: handed over, or kept while the daemon is down and submitted as its owner's when it runs."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.callers import is_root, sendmail
from support.daemon import Daemon, cli, running, wait_until
from support.sink import Behaviour, Sink, sinking

from smtpd_ps.pure.offline_mail import Envelope, format_head

CONFIG = """
listen on 127.0.0.1 port {port}
action out relay host "smtp://127.0.0.1:SINK"
match from socket for domain { "x.test" "y.test" } action out
match from socket for local action out
"""
NEED_ROOT = pytest.mark.skipif(not is_root(), reason="needs root: files of other users")


@contextmanager
def served(behaviour: Behaviour | None = None) -> Iterator[tuple[Daemon, Sink]]:
    """A daemon that relays to a sink."""
    with sinking(behaviour=behaviour) as sink, running(CONFIG.replace("SINK", str(sink.port))) as daemon:
        yield daemon, sink


@contextmanager
def down() -> Iterator[tuple[Daemon, Sink]]:
    """A daemon that has run once and does not now."""
    with sinking() as sink:
        daemon = Daemon(CONFIG.replace("SINK", str(sink.port)))
        try:
            daemon.start()
            assert daemon.stop() == 0
            yield daemon, sink
            if daemon.process and daemon.process.poll() is None:
                assert daemon.stop() == 0
            assert "Traceback" not in daemon.log, daemon.log[-8000:]
        finally:
            if daemon.process and daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait(10)
            daemon.remove()


def offline(daemon: Daemon) -> Path:
    return daemon.state / "spool" / "offline"


def kept(daemon: Daemon) -> list[str]:
    return sorted(os.listdir(offline(daemon)))


def test_handed_over() -> None:
    """Dots, 8-bit and long lines arrive; what is missing in the header is added; exit status 0, nothing said."""
    message = b"Subject: dots\n\none\n.\n..\n.x\n\xff\xc3\xbc\nend"
    with served() as (daemon, sink):
        done = sendmail(daemon, "-F", "Bob B.", "-oi", "ann@x.test", message=message)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        done = sendmail(daemon, "ann@y.test", message=b"Subject: long\n\n" + b"x" * 70_000 + b"\n")
        assert done.returncode == 0, done.stderr
        daemon.wait_empty()
        mails = {mail.data.partition(b"Subject: ")[2][:4]: mail for mail in sink.mails}
        head, _, body = mails[b"dots"].data.partition(b"\r\n\r\n")
        assert body == b"one\r\n.\r\n..\r\n.x\r\n\xff\xc3\xbc\r\nend\r\n"
        me = pwd.getpwuid(os.getuid()).pw_name.encode()
        assert b'\r\nFrom: "Bob B." <' + me + b"@" in head
        assert head.count(b"\r\nDate: ") == head.count(b"\r\nMessage-ID: ") == 1
        assert mails[b"dots"].sender.startswith(me.decode() + "@") and mails[b"dots"].recipients == ["ann@x.test"]
        assert b"quoted-printable" in mails[b"long"].data and mails[b"long"].data.count(b"x" * 60) > 900


def test_recipients_of_the_header() -> None:
    """-t: To, Cc and Bcc and the command line; the Bcc is delivered to and not sent; From is the sender."""
    message = b"To: Ann <ann@x.test>, bob@x.test\nBcc: secret@y.test,\n other@y.test\nFrom: eve@x.test\n\nhi\n"
    with served() as (daemon, sink):
        assert sendmail(daemon, "-t", "more@x.test", message=message).returncode == 0
        assert sendmail(daemon, "-f", "<>", "-i", "null@x.test").returncode == 0
        daemon.wait_empty()
        by_sender = {mail.sender: mail for mail in sink.mails}
        assert sorted(by_sender) == ["", "eve@x.test"]
        taken = {recipient for mail in sink.mails if mail.sender for recipient in mail.recipients}
        assert taken == {"ann@x.test", "bob@x.test", "secret@y.test", "other@y.test", "more@x.test"}
        assert b"cc:" not in by_sender["eve@x.test"].data.lower() and b"secret" not in by_sender["eve@x.test"].data


def test_refused_by_the_daemon() -> None:
    """One recipient who is refused: nobody gets the message, the reason is told, nothing is kept."""
    with served() as (daemon, sink):
        done = sendmail(daemon, "ann@x.test", "else@where.test")
        assert done.returncode == 67
        assert done.stderr.startswith(b"sendmail: else@where.test: 550 ") and b"ann@" not in done.stderr
        assert sendmail(daemon, "else@where.test").returncode == 69
        assert (daemon.queued(), kept(daemon), sink.mails) == (0, [], [])


def test_dsn_and_verbose() -> None:
    """-N, -R and -V reach the daemon; -v shows the session."""
    with served() as (daemon, _sink):
        daemon.ctl("pause", "mta")
        done = sendmail(daemon, "-v", "-N", "success,delay", "-R", "hdrs", "-V", "Q+2B1", "ann@x.test")
        assert done.returncode == 0
        said = done.stdout.decode().splitlines()
        assert "<<< 354" in done.stdout.decode() and ">>> RCPT TO:<ann@x.test> NOTIFY=SUCCESS,DELAY" in said
        assert any(line.startswith(">>> MAIL FROM:<") and "RET=HDRS ENVID=Q+2B1" in line for line in said)
        daemon.ctl("remove", "all")
        reader, writer = os.pipe()
        os.close(reader)
        argv = [sys.executable, "-I", "-m", "smtpd_ps.cli.sendmail", "--state-dir", str(daemon.state), "-v", "b@x.test"]
        done = subprocess.run(argv, input=b"hi\n", stdout=writer, stderr=subprocess.PIPE, timeout=60, check=False)
        os.close(writer)
        assert (done.returncode, done.stderr, daemon.queued()) == (0, b"", 1), "nobody reads what it shows"
        daemon.ctl("remove", "all")


def test_smtp_on_standard_input() -> None:
    """-bs: a whole session at once, and one that ends without QUIT."""
    with served() as (daemon, sink):
        session = b"EHLO me\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<bs@x.test>\r\nDATA\r\nSubject: bs\r\n\r\nhi\r\n.\r\n"
        done = sendmail(daemon, "-bs", message=session + b"QUIT\r\n")
        assert done.returncode == 0
        codes = [line[:3] for line in done.stdout.splitlines() if line[3:4] == b" "]
        assert codes == [b"220", b"250", b"250", b"250", b"354", b"250", b"221"]
        daemon.wait_empty()
        assert [mail.recipients for mail in sink.mails] == [["bs@x.test"]]
        assert cli("mailq", "--state-dir", str(daemon.state)).returncode == 0
    done = sendmail(daemon, "-bs", message=session)
    assert done.returncode == 75 and b"is smtpd_ps running?" in done.stderr


def test_kept_while_the_daemon_is_down() -> None:
    """Exit status 0 once it is kept; submitted at the start, Bcc and DSN parameters too, and removed."""
    with down() as (daemon, sink):
        message = b"To: ann@x.test\nBcc: secret@y.test\nSubject: kept\n\n.\nhi\n"
        done = sendmail(daemon, "-t", "-N", "never", message=message)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        (name,) = kept(daemon)
        assert (offline(daemon) / name).stat().st_mode & 0o7777 == 0o600
        daemon.start()
        wait_until("it is submitted", lambda: kept(daemon) == [])
        wait_until("it is delivered", lambda: sum(len(mail.recipients) for mail in sink.mails) == 2)
        assert {recipient for mail in sink.mails for recipient in mail.recipients} == {"ann@x.test", "secret@y.test"}
        assert all(
            mail.data.endswith(b"\r\n\r\n.\r\nhi\r\n") and b"cc:" not in mail.data.lower() for mail in sink.mails
        )


@NEED_ROOT
def test_of_several_users() -> None:
    """More than run at once, of users and of root: each comes from its owner, each once."""
    with down() as (daemon, sink):
        for number in range(7):
            for user in ("nobody", "daemon", "root"):
                done = sendmail(daemon, f"{user}{number}@x.test", user=user)
                assert done.returncode == 0, done.stderr
        assert len(kept(daemon)) == 21
        daemon.start()
        wait_until("all are submitted", lambda: kept(daemon) == [])
        daemon.wait_empty()
        pairs = sorted(
            (mail.recipients[0].partition("@")[0][:-1], mail.sender.partition("@")[0]) for mail in sink.mails
        )
        assert pairs == sorted([("nobody", "nobody"), ("daemon", "daemon"), ("root", "root")] * 7)


@NEED_ROOT
def test_hostile_files() -> None:
    """Links, other kinds of files, others' modes and wrong content are left, logged once, and stop no mail."""
    with down() as (daemon, sink):
        folder = offline(daemon)
        names = iter([f"{number:032x}" for number in range(100)])
        secret = daemon.dir / "secret"
        victim = next(names)
        secret.write_bytes(format_head(victim, Envelope("root", ("thief@x.test",))) + b"Subject: secret\r\n\r\ntop\r\n")
        secret.chmod(0o600)
        shutil.copy(secret, daemon.state / "spool" / "original")
        (daemon.state / "spool" / "original").chmod(0o600)
        (folder / next(names)).symlink_to(secret)
        os.link(daemon.state / "spool" / "original", folder / victim)  # one of two names
        lone = next(names)
        os.link(secret, folder / lone)
        secret.unlink()  # the only name now, and not the one it says
        os.mkfifo(folder / next(names), 0o600)
        (folder / next(names)).mkdir()
        for text, mode, owner in (
            (b"", 0o600, "nobody"),
            (b"no head at all", 0o600, "nobody"),
            (b"x" * 3_000_000, 0o600, "root"),
            (None, 0o644, "nobody"),
            (None, 0o600, "_sps_smtp"),
            (None, 0o4600, "nobody"),
        ):
            name = next(names)
            head = format_head(name, Envelope("a", ("thief@x.test",))) + b"Subject: x\r\n\r\n"
            (folder / name).write_bytes(head if text is None else text)
            shutil.chown(folder / name, owner)
            (folder / name).chmod(mode)
        (folder / "no name of ours").write_bytes(b"")
        bare = next(names)
        (folder / bare).write_bytes(
            format_head(bare, Envelope("a", ("x@x.test",))) + b"Subject: x\r\n\r\nbare\nline\r\n"
        )
        (folder / bare).chmod(0o600)
        left = kept(daemon)
        assert sendmail(daemon, "good@x.test", user="nobody").returncode == 0
        daemon.start()
        wait_until("the mail is submitted", lambda: len(kept(daemon)) == len(left))
        assert kept(daemon) == left
        wait_until("it is delivered", lambda: bool(sink.mails))
        wait_until("all were looked at", lambda: daemon.log.count(" is left there: ") == len(left))
        assert [mail.recipients for mail in sink.mails] == [["good@x.test"]]
        audit = json.loads(daemon.ctl("--json", "audit", check=False))
        assert audit["ok"], [report["findings"] for report in audit["processes"]] + audit["findings"]


@NEED_ROOT
def test_who_submits_is_confined() -> None:
    """The agent is its message's owner (root's: nobody who owns anything), and as policy.SUBMITTER says."""
    with down() as (daemon, _sink):
        for user in ("nobody", "root"):
            assert sendmail(daemon, "ann@x.test", user=user).returncode == 0
        daemon.start(wait=False)
        smtp = []

        def stopped() -> bool:
            for title, pid in daemon.pids().items():
                if title == "smtp" and not smtp:
                    smtp.append(pid)
            return bool(smtp)

        wait_until("smtp is there", stopped)
        wait_until("it greets", daemon.greets)
        os.kill(smtp[0], signal.SIGSTOP)  # nobody answers the agents now
        try:
            wait_until("both agents wait", lambda: {"agent nobody", "agent _sps_alias"} <= set(daemon.pids()))
            wait_until("they are confined", lambda: _all_as_declared(daemon))
        finally:
            os.kill(smtp[0], signal.SIGCONT)
        wait_until("both are submitted", lambda: kept(daemon) == [])


def _all_as_declared(daemon: Daemon) -> bool:
    audit = json.loads(daemon.ctl("--json", "audit", check=False))
    agents = [report for report in audit["processes"] if report["process"] == "agent"]
    return bool(audit["ok"]) and len(agents) == 2


@NEED_ROOT
def test_refused_mail_returns_to_its_sender() -> None:
    """Kept mail for a recipient whom the daemon refuses: its sender gets a notice, the others the mail."""
    with down() as (daemon, sink):
        assert sendmail(daemon, "-f", "me@x.test", "else@where.test", "ann@y.test", user="nobody").returncode == 0
        assert sendmail(daemon, "-f", "", "else@where.test", user="nobody").returncode == 0
        daemon.start()
        wait_until("the notice arrives", lambda: len(sink.mails) == 2)
        assert {mail.sender: mail.recipients for mail in sink.mails} == {"me@x.test": ["ann@y.test"], "": ["me@x.test"]}
        notice = next(mail.data for mail in sink.mails if not mail.sender)
        assert b"Final-Recipient: rfc822;else@where.test" in notice.replace(b"; ", b";")
        wait_until("only what has no sender is left", lambda: len(kept(daemon)) == 1)
        wait_until("that is logged", lambda: " is left there: " in daemon.log)
