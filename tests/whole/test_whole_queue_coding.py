"""The daemon with a compressed and encrypted queue: the key, a restart, turning it on and off."""

import os
import signal
from pathlib import Path

import pytest
from support.daemon import Daemon, running, wait_until
from support.sink import sinking

KEY, OTHER = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
PLAIN = """\
listen on 127.0.0.1 port {port}
action "in" maildir
action "away" relay host "smtp://127.0.0.1:9"
match from any for domain "away.example" action "away"
match from any for local action "in"
"""
DATED = "Date: Mon, 2 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@client.test>\r\n\r\n"
SMALL = "Subject: small\r\n" + DATED + "a secret of the board\r\n" * 20
LARGE = "Subject: large\r\n" + DATED + "all work and no play\r\n" * 20_000


def queue_lines(*lines: str) -> str:
    return "".join(f"queue {line}\n" for line in lines) + PLAIN


def send(daemon: Daemon, *bodies: str) -> None:
    with daemon.smtp() as client:
        for body in bodies:
            client.sendmail("ann@example.com", ["hidden@away.example"], body)


def spool_bytes(daemon: Daemon) -> bytes:
    return b"".join(path.read_bytes() for path in (daemon.state / "spool" / "queue").rglob("*") if path.is_file())


def shown(daemon: Daemon) -> list[str]:
    """The messages, as the operator sees them, without what was put before them."""
    rows = daemon.ctl("show", "queue").splitlines()
    return [daemon.ctl("show", "message", row.split("|")[0]).partition("Subject: ")[2] for row in rows]


def refuses(daemon: Daemon, text: str) -> None:
    """It does not start, and says why."""
    daemon.start(wait=False)
    assert daemon.process is not None
    wait_until("its end", lambda: daemon.process.poll() is not None)
    assert daemon.process.returncode == 1
    daemon.wait_logged(text)


def test_encrypted_from_end_to_end() -> None:
    """On the disk nothing can be read; the operator sees all; a wrong key or none does not start the
    daemon and spoils nothing; turned off by a reload, new mail lies in the clear and old mail is still read.
    """
    bodies = sorted(body.partition("Subject: ")[2].replace("\r\n", "\n") for body in (SMALL, LARGE))
    with running(queue_lines("compression", f"encryption {KEY}")) as daemon:
        send(daemon, SMALL, LARGE)
        wait_until("both were tried", lambda: daemon.stats()["scheduler.delivery.tempfail"] == "2")
        assert sorted(shown(daemon)) == bodies
        stored = spool_bytes(daemon)
        assert len(stored) > 8192
        assert not any(word in stored for word in (b"hidden@", b"secret of", b"all work", b"Received"))
        daemon.stop()

        daemon.config = queue_lines(f"encryption {OTHER}")
        refuses(daemon, "the queue holds 2 messages encrypted with another key")
        daemon.config = PLAIN
        refuses(daemon, "give it with queue encryption")

        daemon.config, daemon.stdin = queue_lines("encryption stdin"), KEY
        daemon.start()
        assert sorted(shown(daemon)) == bodies
        daemon.config = queue_lines(f"encryption {OTHER}")
        daemon.write_config()
        with pytest.raises(AssertionError, match="does not change while smtpd_ps runs"):
            daemon.ctl("reload")
        daemon.config = PLAIN
        daemon.write_config()
        daemon.ctl("reload")
        send(daemon, SMALL)
        wait_until("it was tried", lambda: int(daemon.stats()["scheduler.delivery.tempfail"]) >= 1)
        assert b"secret of" in spool_bytes(daemon)
        assert len(shown(daemon)) == 3
        assert KEY not in daemon.log and OTHER not in daemon.log
        daemon.ctl("remove", "all")


def test_a_crash_leaves_nothing_in_the_clear() -> None:
    """A large message on its way in when queue is killed, and one that waits: the spool has neither's text."""
    daemon = Daemon(queue_lines(f"encryption {KEY}"))
    try:
        daemon.start()
        send(daemon, LARGE)
        client = daemon.smtp()
        client.ehlo()
        client.mail("ann@example.com")
        client.rcpt("hidden@away.example")
        assert client.docmd("DATA")[0] == 354
        client.send(b"Subject: half\r\n\r\n" + b"only half of it\r\n" * 20_000)
        queue = daemon.pids()["queue"]
        wait_until("it is being written", lambda: deleted_bytes(queue) > 100_000)
        assert_coded(daemon)
        os.kill(queue, signal.SIGKILL)
        assert daemon.process is not None
        assert daemon.process.wait(30) == 1
        client.close()
        assert_coded(daemon)
        assert daemon.start().queued() == 1
        assert daemon.stop() == 0
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait(10)
        daemon.remove()


def deleted_bytes(pid: int) -> int:
    """In body files without a name that a process has open."""
    size_bytes = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            if "/bodies/" in str(entry.readlink()) and str(entry.readlink()).endswith("(deleted)"):
                size_bytes += entry.stat().st_size
        except OSError:
            continue
    return size_bytes


def assert_coded(daemon: Daemon) -> None:
    stored = spool_bytes(daemon)
    assert not any(word in stored for word in (b"hidden@", b"all work", b"only half", b"Received"))


def test_turned_on_with_mail_in_the_queue() -> None:
    """Mail stored before is delivered beside new mail; encryption is turned on by a restart alone."""
    with running(PLAIN) as daemon:
        send(daemon, SMALL)
        daemon.config = queue_lines(f"encryption {KEY}")
        daemon.write_config()
        with pytest.raises(AssertionError, match="turned on by a restart"):
            daemon.ctl("reload")
        daemon.stop()
        daemon.start()
        send(daemon, SMALL)
        assert len(shown(daemon)) == 2
        assert daemon.ctl("audit")
        daemon.ctl("remove", "all")


def test_a_bad_key_is_said_before_anything_starts() -> None:
    """Of standard input; the key is not in the message."""
    daemon = Daemon(queue_lines("encryption stdin"), stdin="too short")
    try:
        refuses(daemon, "the key has 32 characters, from standard input came 9")
        assert "too short" not in daemon.log
    finally:
        daemon.remove()


@pytest.mark.parametrize("lines", [("compression",), (f"encryption {KEY}",), ("compression", f"encryption {KEY}")])
def test_delivered_as_it_was_sent(lines: tuple[str, ...]) -> None:
    """A small and a large message, after a restart that made the queue read them from the disk."""
    with sinking() as sink, running(queue_lines(*lines)) as daemon:
        send(daemon, SMALL, LARGE)
        wait_until("both were tried", lambda: daemon.stats()["scheduler.delivery.tempfail"] == "2")
        daemon.stop()
        daemon.config = daemon.config.replace(":9", f":{sink.port}")
        daemon.start()
        daemon.schedule_until("the queue is empty", lambda: daemon.queued() == 0)
        arrived = sorted(mail.data.partition(b"Subject: ")[2] for mail in sink.mails)
        assert arrived == sorted(body.partition("Subject: ")[2].encode() for body in (SMALL, LARGE))
