"""The SMTP server's glue in a loop of its own, on loopback sockets, with a fake lookup, queue and control."""

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ListenerSettings, SmtpSettings
from smtpd_ps.contract.values import Process
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop
from smtpd_ps.runtime.stream import Pump
from smtpd_ps.smtp.server import SmtpServer

ENVELOPE = b"EHLO client.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"


class FakePeer:
    """Takes messages and answers them in the next turn."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.sent: list[m.Message] = []
        self.pending_bytes = 0

    def send(self, message: m.Message, *fds: int) -> None:
        self.sent.append(message)
        if type(message) not in self.world.hold:
            self.world.loop.call_soon(lambda: self.world.answer(message))


class World:
    """One smtp server with one listener on 127.0.0.1 (or a Unix socket)."""

    def __init__(self, pumps: dict[int, Callable[[], Pump]] | None = None, unix_path: str = "", **changes: Any) -> None:
        listener = ListenerSettings(index=0, address="192.0.2.9", port=25, local=bool(unix_path))
        settings = SmtpSettings(hostname="mx.example.com", listeners=(), pki=())
        for key, value in changes.items():
            if hasattr(listener, key):
                listener = msgspec.structs.replace(listener, **{key: value})
            else:
                settings = msgspec.structs.replace(settings, **{key: value})
        settings = msgspec.structs.replace(settings, listeners=(listener,))
        self.hostnames = listener.hostnames
        self.loop = Loop()
        self.failures: list[str] = []
        self.hold: set[type[m.Message]] = set()
        self.bodies: dict[int, bytes] = {}
        self.files: dict[tuple[int, int], str] = {}
        self.directory = tempfile.mkdtemp()
        self.body_fd: Callable[[], int] | None = None  # instead of a fresh file
        self.log = Log(Process.SMTP, foreground=True)
        self.server = SmtpServer(self.loop, self.log, settings, 3, pumps or {}, self.failures.append)
        self.lookup, self.queue, self.control = FakePeer(self), FakePeer(self), FakePeer(self)
        self.server.lookup, self.server.queue, self.server.control = self.lookup, self.queue, self.control
        self._lookup = self.server.lookup_handlers()
        self._queue = self.server.queue_handlers()
        self._queue[m.IdLease](m.IdLease(tuple(range(1, 500))))
        if unix_path:
            sock = socket.socket(socket.AF_UNIX)
            sock.bind(unix_path)
        else:
            sock = socket.socket()
            sock.bind(("127.0.0.1", 0))
        sock.listen(512)
        self.address = sock.getsockname()
        self.listener = sock
        self.clients: list[Client] = []
        self.server.listen(0, sock)
        self.server.start()

    def answer(self, message: m.Message) -> None:
        """What lookup and queue say to `message`."""
        match message:
            case m.SenderQuery():
                verdict: Literal["ok", "no"] = "ok" if message.sender.startswith("own") else "no"
                self._lookup[m.SenderReply](m.SenderReply(message.session, message.transaction, verdict))
            case m.PeerQuery():
                if self.hostnames:
                    self._lookup[m.Greet](m.Greet(message.session, "named.example"))
                self._lookup[m.PeerInfo](m.PeerInfo(message.session, "client.example", True))
            case m.RcptRequest() if message.recipient.startswith("bad"):
                self._lookup[m.RcptRefuse](
                    m.RcptRefuse(message.session, message.transaction, message.number, 550, "Invalid recipient")
                )
            case m.RcptRequest():
                self._queue[m.RcptReply](m.RcptReply(message.session, message.transaction, message.number, 250, ""))
            case m.AuthRequest():
                self._lookup[m.AuthReply](m.AuthReply(message.session, "ok" if message.password == "secret" else "no"))
            case m.BodyOpen():
                path = f"{self.directory}/{message.msgid}"
                self.files[message.session, message.transaction] = path
                fd = self.body_fd() if self.body_fd else os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
                self._queue[m.BodyFile](m.BodyFile(message.session, message.transaction), fd)
            case m.Commit():
                self.bodies[message.msgid] = message.body
                self._queue[m.Committed](m.Committed(message.session, message.transaction, 250, ""))
            case m.CommitFile():
                with open(self.files[message.session, message.transaction], "rb") as file:
                    self.bodies[message.msgid] = file.read()
                assert len(self.bodies[message.msgid]) == message.size_bytes
                self._queue[m.Committed](m.Committed(message.session, message.transaction, 250, ""))

    def queue_says(self, message: m.Message, *fds: int) -> None:
        self._queue[type(message)](message, *fds)

    def lookup_says(self, message: m.Message) -> None:
        self._lookup[type(message)](message)

    def connect(self) -> "Client":
        family = socket.AF_UNIX if isinstance(self.address, str) else socket.AF_INET
        sock = socket.socket(family)
        try:
            sock.connect(self.address)
        except OSError:
            sock.close()
            raise
        sock.setblocking(False)
        client = Client(self, sock)
        self.clients.append(client)
        return client

    def close(self) -> None:
        """Close every socket of both sides."""
        for door in self.server._doors.values():
            door.close()
        for connection in list(self.server._open):
            if connection.stream is not None:
                connection.stream.abort()
        for client in self.clients:
            client.sock.close()
        self.listener.close()
        self.loop.close()
        shutil.rmtree(self.directory)

    def spin(self, until: Callable[[], bool], limit_secs: float = 30.0) -> None:
        """Run turns until `until()`."""
        end = time.monotonic() + limit_secs
        while not until():
            assert time.monotonic() < end, "nothing more happens"
            self.loop.turn(0.01)

    def settle(self, turns: int = 5) -> None:
        for _ in range(turns):
            self.loop.turn(0.0)


class Client:
    """A client in the same thread: it turns the loop while it waits."""

    def __init__(self, world: World, sock: socket.socket) -> None:
        self.world = world
        self.sock = sock
        self.buffer = b""
        self.eof = False

    def read(self) -> bool:
        """Read what is there; whether there was something."""
        try:
            data = self.sock.recv(65536)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            data = b""
        self.eof = not data
        self.buffer += data
        return bool(data)

    def line(self) -> str:
        """The next line of the server."""

        def there() -> bool:
            self.read()
            return b"\r\n" in self.buffer or self.eof

        self.world.spin(there)
        assert b"\r\n" in self.buffer, "the server closed"
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line.decode()

    def reply(self) -> str:
        """The last line of the next reply."""
        line = self.line()
        while line[3:4] == "-":
            line = self.line()
        return line

    def send(self, data: bytes) -> None:
        """Send all of `data`, turning the loop while the server does not take it."""

        def gone() -> bool:
            nonlocal data
            try:
                data = data[self.sock.send(data) :]
            except BlockingIOError:
                return False
            except (BrokenPipeError, ConnectionResetError):
                return True
            return not data

        self.world.spin(gone)

    def command(self, line: str) -> str:
        self.send(line.encode() + b"\r\n")
        return self.reply()

    def closed(self) -> bool:
        """Wait for the server to close."""

        def there() -> bool:
            self.read()
            return self.eof

        self.world.spin(there)
        return True
