"""Faults of the host, for whole-daemon tests: small file systems, mail in bulk, a server that stops reading."""

import contextlib
import os
import shutil
import smtplib
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon

NEED_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="needs root: mounts, limits, users")

RELAY = """
smtp limit max-mails 100000
listen on 127.0.0.1 port {port} hostname mx.test
action out relay host "smtp://127.0.0.1:SINK"
match from any for any action out
"""

# To go before a configuration: what is stored is compressed and encrypted, or encrypted alone.
ENCRYPTED = 'queue encryption "0123456789abcdef0123456789abcdef"\n'
CODED = "queue compression\n" + ENCRYPTED


def need(command: str) -> str:
    """The path of a command; the test is skipped with a reason where it is missing."""
    path = shutil.which(command)
    if path is None:
        pytest.skip(f"{command} is not installed")
    return path


def mount(*words: str) -> None:
    """mount(8); skips where this machine may not mount."""
    done = subprocess.run(["mount", *words], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        pytest.skip(f"mount {' '.join(words)}: {done.stderr.strip()}")


def unmount(path: Path) -> None:
    """Take the uppermost mount of `path` away, also while it is used."""
    subprocess.run(["umount", "-l", str(path)], capture_output=True, timeout=30, check=True)


@contextlib.contextmanager
def cared_for(daemon: Daemon) -> Iterator[Daemon]:
    """Whatever happens to it, nothing of the daemon is left, and it never wrote a traceback."""
    try:
        yield daemon
        assert "Traceback" not in daemon.log, daemon.log[-8000:]
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait(10)
        daemon.remove()


@contextlib.contextmanager
def on_small_disk(config: str, size_bytes: int) -> Iterator[Daemon]:
    """A daemon, not yet started, whose state directory is a tmpfs of that size."""
    with cared_for(Daemon(config)) as daemon:
        daemon.state.mkdir()
        mount("-t", "tmpfs", "-o", f"size={size_bytes},mode=0711", "smtpd_ps-test", str(daemon.state))
        try:
            yield daemon
        finally:
            unmount(daemon.state)


def text_of(number: int, size_bytes: int = 0) -> str:
    """A numbered message, with the fields that a submission would get."""
    top = f"Subject: {number}\r\nDate: Thu, 1 Jan 1970 00:00:00 +0000\r\nMessage-ID: <{number}@test>\r\n"
    lines = f"padding of message {number}\r\n" * (size_bytes // 24)
    return f"{top}X-Number: {number}\r\n\r\nbody {number}\r\n{lines}"


def number_of(data: bytes) -> int:
    """The number of such a message."""
    return int(data.split(b"X-Number: ", 1)[1].split(b"\n", 1)[0])


def offer(daemon: Daemon, number: int, size_bytes: int = 0, rcpt: str = "b@example.com",
          sender: str = "a@client.test") -> int:  # fmt: skip
    """Send one message on a connection of its own: the last reply's code, 0 where the connection broke."""
    try:
        with smtplib.SMTP("127.0.0.1", daemon.port, local_hostname="client.test", timeout=30) as client:
            client.sendmail(sender, [rcpt], text_of(number, size_bytes))
    except smtplib.SMTPRecipientsRefused as error:
        return next(iter(error.recipients.values()))[0]
    except smtplib.SMTPResponseException as error:
        return error.smtp_code
    except (OSError, smtplib.SMTPException):
        return 0
    return 250


class Stalled:
    """A server that accepts connections, greets where told to, and reads nothing."""

    def __init__(self, greeting: bytes = b"") -> None:
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.socket.getsockname()[1]
        self.taken: list[socket.socket] = []
        self._greeting = greeting
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _address = self.socket.accept()
                self.taken.append(sock)
                sock.sendall(self._greeting)

    def close(self) -> None:
        """Stop listening and hang up."""
        self.socket.close()
        for sock in self.taken:
            sock.close()
