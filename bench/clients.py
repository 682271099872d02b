"""Clients that measure each session: one by one, under TLS with a password, and idle ones."""

import base64
import contextlib
import re
import select
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from bench.peer import HOSTNAME, PORT
from bench.sinks import Sink
from bench.smtp_source import RECIPIENT, SENDER


class Session:
    """The client's side of a blocking SMTP session. Raises RuntimeError on an unwanted reply."""

    def __init__(self, patience_secs: float = 60.0) -> None:
        self._sock = socket.create_connection(("127.0.0.1", PORT), patience_secs)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._sock.makefile("rb")

    def reply(self, wanted: bytes) -> None:
        """Read one reply, whatever its number of lines."""
        while (line := self._file.readline())[3:4] == b"-":
            pass
        if not line.startswith(wanted):
            raise RuntimeError(f"wanted {wanted!r}, got {line!r}")

    def say(self, line: bytes, wanted: bytes) -> None:
        """A command and its reply."""
        self._sock.sendall(line + b"\r\n")
        self.reply(wanted)

    def secure(self, context: ssl.SSLContext) -> None:
        """After the reply to STARTTLS."""
        self._file.close()
        self._sock = context.wrap_socket(self._sock, server_hostname=HOSTNAME)
        self._file = self._sock.makefile("rb")

    def message(self, body: bytes) -> None:
        """One transaction."""
        self.say(b"MAIL FROM:<%s>" % SENDER.encode(), b"250")
        self.say(b"RCPT TO:<%s>" % RECIPIENT.encode(), b"250")
        self.say(b"DATA", b"354")
        self.say(body + b"\r\n.", b"250")

    def close(self) -> None:
        """Without QUIT."""
        self._file.close()
        self._sock.close()


@contextlib.contextmanager
def session() -> Iterator[Session]:
    """A greeted session, closed after the body of a with statement."""
    client = Session()
    try:
        client.reply(b"220")
        yield client
    finally:
        client.close()


def body(size_bytes: int) -> bytes:
    """A message of about that size, without the final dot."""
    head = b"From: <%s>\r\nTo: <%s>\r\nSubject: bench\r\n\r\n" % (SENDER.encode(), RECIPIENT.encode())
    line = b"x" * 76 + b"\r\n"
    return head + line * (size_bytes // len(line))


def one_by_one(sink: Sink, count: int, size_bytes: int) -> tuple[list[float], list[float]]:
    """Each message on a connection of its own, each waited for: seconds to the 250, and to the sink."""
    accepted, arrived, text = [], [], body(size_bytes)
    for _ in range(count):
        seen = sink.count
        begin = time.perf_counter()
        with session() as client:
            client.say(b"EHLO client.test", b"250")
            client.message(text)
            accepted.append(time.perf_counter() - begin)
            client.say(b"QUIT", b"221")
        if not sink.wait(seen + 1, 60.0):
            raise RuntimeError("a message did not arrive within 60 s")
        arrived.append(sink.last - begin)
    return accepted, arrived


def submissions(
    count: int, size_bytes: int, clients: int, user: str, password: str
) -> tuple[float, float, list[float]]:
    """Sessions of STARTTLS, AUTH PLAIN and one message: begin, end, and the seconds of each."""
    context = client_context()
    secret = base64.b64encode(f"\0{user}\0{password}".encode())
    text = body(size_bytes)

    def one(_number: int) -> float:
        begin = time.perf_counter()
        with session() as client:
            client.say(b"EHLO client.test", b"250")
            client.say(b"STARTTLS", b"220")
            client.secure(context)
            client.say(b"EHLO client.test", b"250")
            client.say(b"AUTH PLAIN " + secret, b"235")
            client.message(text)
            client.say(b"QUIT", b"221")
        return time.perf_counter() - begin

    begin = time.perf_counter()
    pool = ThreadPoolExecutor(clients)
    try:
        times = list(pool.map(one, range(count)))
        return begin, time.perf_counter(), times
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class IdleSecure:
    """Connections that say EHLO under STARTTLS and then are silent; opened by `at_once` threads."""

    def __init__(self, count: int, at_once: int) -> None:
        self.greeted = 0
        self.refused = 0
        self._kept = contextlib.ExitStack()
        context = client_context()
        begin = time.perf_counter()

        def open_one(_number: int) -> contextlib.ExitStack | None:
            kept = contextlib.ExitStack()
            try:
                client = kept.enter_context(session())
                client.say(b"EHLO client.test", b"250")
                client.say(b"STARTTLS", b"220")
                client.secure(context)
                client.say(b"EHLO client.test", b"250")
            except (OSError, RuntimeError):
                kept.close()
                return None
            return kept

        with ThreadPoolExecutor(at_once) as pool:
            for kept in pool.map(open_one, range(count)):
                if kept is None:
                    self.refused += 1
                else:
                    self._kept.push(kept)
                    self.greeted += 1
        self.greeting_secs = time.perf_counter() - begin

    def close(self) -> None:
        """All of them."""
        self._kept.close()


def client_context() -> ssl.SSLContext:
    """Takes any certificate: the benchmark's is its own."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Idle:
    """Connections that say EHLO and then are silent; at most `at_once` wait for their greeting at any time."""

    def __init__(self, count: int, at_once: int, patience_secs: float = 30.0) -> None:
        self.greeted = 0
        self.refused = 0
        self.greeting_secs = 0.0
        self._poll = select.poll()
        self._socks: dict[int, socket.socket] = {}
        heard: dict[int, bytes] = {}
        said: set[int] = set()
        begin = time.perf_counter()
        try:
            while self.greeted + self.refused < count and time.perf_counter() - begin < patience_secs:
                while len(self._socks) < min(count, self.greeted + self.refused + at_once):
                    self._open()
                for fd, _event in self._poll.poll(1000):
                    data = self._receive(fd)
                    if not data or data[:1] in b"45":
                        self.refused += 1
                        self._poll.unregister(fd)
                        continue
                    heard[fd] = heard.get(fd, b"") + data
                    if fd not in said and heard[fd].startswith(b"220") and heard[fd].endswith(b"\n"):
                        said.add(fd)
                        heard[fd] = b""
                        self._socks[fd].send(b"EHLO client.test\r\n")
                    elif fd in said and re.search(rb"^250 .*\n\Z", heard[fd], re.M):
                        self.greeted += 1
                        self.greeting_secs = time.perf_counter() - begin
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.connect_ex(("127.0.0.1", PORT))
        self._socks[sock.fileno()] = sock
        self._poll.register(sock, select.POLLIN)

    def _receive(self, fd: int) -> bytes:
        try:
            return self._socks[fd].recv(4096)
        except OSError:
            return b""

    def close(self) -> None:
        """All of them, without a word."""
        for sock in self._socks.values():
            sock.close()
