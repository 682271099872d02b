"""A small SMTP or LMTP server that keeps what it receives; a thread of the test."""

import contextlib
import socket
import socketserver
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Mail:
    """One transaction as the sink saw it."""

    sender: str
    recipients: list[str]
    data: bytes


@dataclass
class Behaviour:
    """What the sink answers; a callable may change it between mails."""

    rcpt: dict[str, str] = field(default_factory=dict)  # recipient -> reply
    data: str = "250 2.0.0 taken"
    extensions: tuple[str, ...] = ("PIPELINING", "8BITMIME", "SIZE 36700160")
    slow_secs: float = 0.0  # before the reply to a message


class Sink:
    """Listens on 127.0.0.1 or a Unix path; `mails` grows."""

    def __init__(
        self,
        path: str | None = None,
        lmtp: bool = False,
        behaviour: Behaviour | None = None,
        address: tuple[str, int] = ("127.0.0.1", 0),
    ) -> None:
        self.mails: list[Mail] = []
        self.connections = 0
        self.clients: list[str] = []  # where connections came from
        self.greetings: list[str] = []  # names given to EHLO
        self.commands: list[str] = []  # MAIL and RCPT, whole
        self.lmtp = lmtp
        self.behaviour = behaviour or Behaviour()
        self._lock = threading.Lock()
        sink = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(ConnectionError):
                    sink.serve(self)

        if path:
            self.server: socketserver.BaseServer = socketserver.ThreadingUnixStreamServer(path, Handler)
            self.port = 0
        else:

            class Tcp(socketserver.ThreadingTCPServer):
                allow_reuse_address = True
                request_queue_size = 128

            tcp = Tcp(address, Handler)
            self.server, self.port = tcp, tcp.server_address[1]
        self.server.daemon_threads = True  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def serve(self, handler: socketserver.StreamRequestHandler) -> None:
        """One connection's dialogue."""
        with self._lock:
            self.connections += 1
            self.clients.append(handler.client_address[0] if handler.client_address else "")
        handler.request.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
        write = handler.wfile.write
        write(b"220 sink.test ready\r\n")
        sender, recipients = "", []
        while line := handler.rfile.readline(70_000):
            words = line.decode("utf-8", "replace").rstrip("\r\n")
            verb = words[:4].upper()
            if verb in ("MAIL", "RCPT"):
                self.commands.append(words)
            if verb in ("EHLO", "LHLO"):
                self.greetings.append(words[5:])
                lines = ["sink.test", *self.behaviour.extensions]
                last = len(lines) - 1
                write("".join(f"250{' ' if at == last else '-'}{text}\r\n" for at, text in enumerate(lines)).encode())
            elif verb == "MAIL":
                sender, recipients = words.split("<", 1)[1].split(">", 1)[0], []
                write(b"250 2.0.0 ok\r\n")
            elif verb == "RCPT":
                address = words.split("<", 1)[1].split(">", 1)[0]
                reply = self.behaviour.rcpt.get(address, "250 2.1.5 ok")
                if reply.startswith("2"):
                    recipients.append(address)
                write(reply.encode() + b"\r\n")
            elif verb == "DATA":
                if not recipients:
                    write(b"503 5.5.1 no recipients\r\n")
                    continue
                write(b"354 go\r\n")
                data = self._data(handler)
                time.sleep(self.behaviour.slow_secs)
                taken = self.behaviour.data.startswith("2")
                if taken:
                    with self._lock:
                        self.mails.append(Mail(sender, recipients, data))
                for _ in recipients if self.lmtp else [""]:
                    write(self.behaviour.data.encode() + b"\r\n")
            elif verb == "QUIT":
                write(b"221 bye\r\n")
                return
            else:
                write(b"250 2.0.0 ok\r\n")

    @staticmethod
    def _data(handler: socketserver.StreamRequestHandler) -> bytes:
        lines = []
        while (line := handler.rfile.readline()) != b".\r\n":
            if not line:
                raise ConnectionError("closed inside DATA")
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines)

    def close(self) -> None:
        """Stop listening."""
        self.server.shutdown()
        self.server.server_close()


@contextlib.contextmanager
def sinking(
    path: str | None = None,
    lmtp: bool = False,
    behaviour: Behaviour | None = None,
    address: tuple[str, int] = ("127.0.0.1", 0),
) -> Iterator[Sink]:
    """A sink for the body of a with statement."""
    sink = Sink(path, lmtp, behaviour, address)
    try:
        yield sink
    finally:
        sink.close()
