"""What the hostile suite shares: a client that sends any bytes, and a watch over a daemon's health.

The watch sees that after every attack the same processes run, none holds a descriptor or memory
more than before, the queue is empty, a normal client is served, and no log line was forged.
"""

import contextlib
import os
import re
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

from support.daemon import Daemon, wait_until
from support.sink import Sink

from smtpd_ps.cli.ask import parts
from smtpd_ps.contract import messages as m

CORE = ("keys", "control", "smtp", "lookup", "queue", "delivery")
END = b"\r\n.\r\n"
GROWTH_BYTES = 30 << 20  # that an attack may cost a process for good
PEAK_BYTES = 64 << 20  # and while it goes on
_LOG_LINE = re.compile(r"(?:parent|keys|control|smtp|lookup|queue|delivery|agent(?: \S+)?): .*")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def insecure_context(**options: object) -> ssl.SSLContext:
    """A client's context that takes any certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    for name, value in options.items():
        setattr(context, name, value)
    return context


_ANY_CERTIFICATE = insecure_context()


class Wire:
    """A client of SMTP that sends exactly the bytes it is told to."""

    def __init__(self, address: tuple[str, int] | str, timeout_secs: float = 20.0, receive_bytes: int = 0) -> None:
        family = (
            socket.AF_UNIX if isinstance(address, str) else socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        )
        self.sock: socket.socket = socket.socket(family, socket.SOCK_STREAM)
        self.sock.settimeout(timeout_secs)
        if receive_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.sock.connect(address)
        if family != socket.AF_UNIX:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._got = b""

    def __enter__(self) -> "Wire":
        return self

    def __exit__(self, *_error: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send; a server that has had enough may have closed already."""
        with contextlib.suppress(ConnectionError):
            self.sock.sendall(data)

    def line(self) -> bytes:
        """One line without its CRLF; b"" at the end."""
        while b"\n" not in self._got:
            try:
                data = self.sock.recv(65536)
            except ConnectionError:
                data = b""
            if not data:
                rest, self._got = self._got, b""
                return rest
            self._got += data
        line, _, self._got = self._got.partition(b"\n")
        assert line.endswith(b"\r"), f"a line without CRLF: {line!r}"
        return line[:-1]

    def reply(self) -> bytes:
        """The last line of the next reply; b"" at the end. Every line is checked to be clean."""
        while True:
            line = self.line()
            assert all(32 <= byte < 127 for byte in line), f"a reply that is not printable: {line!r}"
            assert len(line) <= 510, f"a reply of {len(line)} bytes"
            if not line or line[3:4] != b"-":
                return line

    def say(self, text: bytes | str) -> bytes:
        """Send a command line; its reply."""
        self.send((text.encode() if isinstance(text, str) else text) + b"\r\n")
        return self.reply()

    def hello(self) -> None:
        """Banner and EHLO."""
        assert self.reply().startswith(b"220 ")
        assert self.say("EHLO client.test").startswith(b"250 ")

    def to_data(self, recipient: str = "b@example.com", sender: str = "a@client.test") -> None:
        """Up to the 354."""
        assert self.say(f"MAIL FROM:<{sender}>").startswith(b"250 ")
        assert self.say(f"RCPT TO:<{recipient}>").startswith(b"250 ")
        assert self.say("DATA").startswith(b"354 ")

    def tls(self, context: ssl.SSLContext | None = None) -> None:
        """STARTTLS and the handshake."""
        assert self.say("STARTTLS").startswith(b"220 ")
        assert not self._got
        self.sock = (context or _ANY_CERTIFICATE).wrap_socket(self.sock, server_hostname="mx.test")

    def rest(self) -> list[bytes]:
        """All that still comes, as lines."""
        lines = []
        while line := self.line():
            lines.append(line)
        return lines

    def closed(self) -> bool:
        """Whether the server closes and says nothing more."""
        return self.line() == b""


class Watch:
    """The health of one daemon, from the moment it is made."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        with Wire(("127.0.0.1", daemon.port)) as wire:  # whatever is loaded or opened once
            wire.hello()
            wire.say("QUIT")
        self.pids = {name: pid for name, pid in daemon.pids().items() if name in (*CORE, "parent")}
        self.memory = {name: self.rss_bytes(name) for name in CORE}
        self.steady = ("smtp", "queue", "control", "keys", "parent")  # delivery keeps connections, lookup asks
        self.settled()
        self.descriptors = {name: self.fd_count(name) for name in self.pids}
        self._log_at = daemon.log_path.stat().st_size

    def fd_count(self, name: str) -> int:
        """Open descriptors of a process."""
        return len(os.listdir(f"/proc/{self.pids[name]}/fd"))

    def rss_bytes(self, name: str) -> int:
        """Resident memory of a process."""
        return int(Path(f"/proc/{self.pids[name]}/statm").read_text().split()[1]) * _PAGE

    def stats(self) -> dict[str, int]:
        """`show stats`, asked from here."""
        counters: dict[str, int] = {}
        for part in parts(str(self.daemon.state), m.ShowStats(0), m.Counters):
            counters |= dict(part.values)
        return counters

    def sessions(self) -> int:
        """SMTP sessions now."""
        return self.stats()["smtp.session"]

    def settled(self) -> None:
        """No session is left, and smtp, queue and delivery have written what they had to say of the last ones."""
        wait_until("no session is left", lambda: self.sessions() == 0)
        self.stats()  # a process has written the lines of one turn before it answers in the next

    def queued(self) -> int:
        """Envelopes in the queue."""
        return self.stats()["scheduler.envelope"]

    def bodies(self) -> list[Path]:
        """The files of messages in the spool."""
        return [path for path in (self.daemon.state / "spool/queue/bodies").glob("**/*") if path.is_file()]

    def remove_all(self) -> None:
        """Empty the queue."""
        for _part in parts(str(self.daemon.state), m.Remove(0, everything=True), m.Done):
            pass

    def schedule_all(self) -> None:
        """Try everything now."""
        for _part in parts(str(self.daemon.state), m.Schedule(0), m.Done):
            pass

    def new_log(self) -> list[str]:
        """Log lines since the last check."""
        with self.daemon.log_path.open("rb") as file:
            file.seek(self._log_at)
            return file.read().decode("utf-8", "backslashreplace").split("\n")[:-1]

    def serves(self) -> None:
        """A normal client is served, while whoever attacks is still there."""
        with Wire(("127.0.0.1", self.daemon.port)) as wire:
            wire.hello()
            assert wire.say("MAIL FROM:<a@client.test>").startswith(b"250 ")
            assert wire.say("QUIT").startswith(b"221 ")

    def check(self, queue_empty: bool = True) -> None:
        """All is as it was; fails the test with what is not."""
        daemon = self.daemon
        assert daemon.process is not None and daemon.process.poll() is None, f"it ended:\n{daemon.log[-4000:]}"
        self.serves()
        now = daemon.pids()
        assert {name: now.get(name) for name in self.pids} == self.pids, "a process was replaced"
        if queue_empty:
            wait_until("the queue is empty", lambda: self.queued() == 0)
        self.settled()
        wanted = {name: self.descriptors[name] for name in self.steady}
        wait_until(
            f"no descriptor is left over: {wanted}, {[self.fd_count(name) for name in self.steady]}",
            lambda: all(self.fd_count(name) <= wanted[name] for name in self.steady),
        )
        for name, before in self.memory.items():
            grown = self.rss_bytes(name) - before
            assert grown < GROWTH_BYTES, f"{name} has grown by {grown >> 20} MiB"
        if queue_empty:  # a body goes right after its last envelope
            wait_until("nothing is left in the spool", lambda: not self.bodies())
        self.check_log()

    def check_log(self) -> None:
        """Each line is one of ours: no traceback, no line of an attacker, nothing that is not printable."""
        lines = self.new_log()
        self._log_at = self.daemon.log_path.stat().st_size
        for line in lines:
            assert _LOG_LINE.fullmatch(line) and line.isprintable(), f"a forged or foreign log line: {line!r}"
            assert "late import" not in line and "Traceback" not in line, line


@contextlib.contextmanager
def watched(watch: Watch, queue_empty: bool = True) -> Iterator[Watch]:
    """Check the daemon's health after the body."""
    yield watch
    watch.check(queue_empty)


@contextlib.contextmanager
def peak_memory(watch: Watch, name: str = "smtp") -> Iterator[None]:
    """The process's memory stays bounded while the body runs, as looked at when it ends."""
    before = watch.rss_bytes(name)
    yield
    grown = watch.rss_bytes(name) - before
    assert grown < PEAK_BYTES, f"{name} holds {grown >> 20} MiB more than before the attack"


class Target:
    """The daemon, its sink and its health."""

    def __init__(self, daemon: Daemon, sink: Sink, watch: Watch) -> None:
        self.daemon, self.sink, self.watch = daemon, sink, watch

    def wire(self, **options: float) -> Wire:
        """A client, greeted."""
        wire = Wire(("127.0.0.1", self.daemon.port), **options)  # type: ignore[arg-type]
        wire.hello()
        return wire

    def submission(self) -> Wire:
        """A client of the submission port, under TLS."""
        wire = Wire(("127.0.0.1", self.daemon.port2))
        wire.hello()
        wire.tls()
        assert wire.say("EHLO client.test").startswith(b"250 ")
        return wire

    def taken(self, number: int) -> list[bytes]:
        """The messages that have arrived, when there are `number` and the queue is empty."""
        wait_until(f"{number} messages arrive", lambda: len(self.sink.mails) >= number)
        wait_until("the queue is empty", lambda: self.watch.queued() == 0)
        assert len(self.sink.mails) == number
        return [mail.data for mail in self.sink.mails]
