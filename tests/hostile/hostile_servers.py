"""Servers that misbehave, each on port 25 of a loopback address of its own, found by the test's DNS."""

import contextlib
import email
import email.message
import itertools
import socket
import threading
from collections.abc import Callable, Iterator

from support.daemon import PATIENCE_SECS, Daemon, wait_until
from support.dns_server import DnsServer
from support.hostile import Watch, Wire
from support.sink import Sink

from smtpd_ps.cli.ask import parts
from smtpd_ps.contract import messages as m
from smtpd_ps.runtime.loop import Loop

Script = Callable[["Line"], None]
_NUMBERS = itertools.count(1)
STAGES = ("banner", "hello", "mail", "rcpt", "data", "end")
_GOOD = {
    "banner": b"220 evil.test ready\r\n",
    "hello": b"250-evil.test\r\n250 8BITMIME\r\n",
    "mail": b"250 2.0.0 ok\r\n",
    "rcpt": b"250 2.1.5 ok\r\n",
    "data": b"354 go\r\n",
    "end": b"250 2.0.0 taken\r\n",
}
_VERBS = {b"EHLO": "hello", b"HELO": "hello", b"LHLO": "hello", b"MAIL": "mail", b"RCPT": "rcpt", b"DATA": "data"}


class Line:
    """One connection, of the side that serves."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.file = sock.makefile("rb")

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.sock.sendall(data)

    def command(self) -> bytes:
        """The next line; ConnectionError at the end."""
        line = self.file.readline()
        if not line:
            raise ConnectionError
        return line

    def message(self) -> bytes:
        """What comes up to the lone dot."""
        lines = []
        while (line := self.command()) != b".\r\n":
            lines.append(line)
        return b"".join(lines)

    def reset(self) -> None:
        """Close with an RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


class Server:
    """Runs `script` on every connection; what it received whole is in `messages`."""

    def __init__(self, address: tuple[str, int] | str, script: Script) -> None:
        self.script = script
        self.connections = 0
        self.messages: list[bytes] = []
        family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
        self._sock = socket.socket(family, socket.SOCK_STREAM)
        if family == socket.AF_INET:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._sock.bind(address)
        self._sock.listen(50)
        self._open: list[socket.socket] = []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                sock, _address = self._sock.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(sock)
            threading.Thread(target=self._one, args=(sock,), daemon=True).start()

    def _one(self, sock: socket.socket) -> None:
        sock.settimeout(30)
        with contextlib.suppress(OSError, ValueError), sock:
            self.script(Line(sock))

    def close(self) -> None:
        """Stop, and drop who is connected."""
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def misbehaving(at: str, payload: bytes, then: str = "close", extensions: bytes = b"") -> Script:
    """A server that is good up to the stage `at`, and there says `payload`.

    `then`: "close" or "reset" the connection, "go on" as if it had been a good reply, or say it
    "for ever".
    """

    def script(line: Line) -> None:
        stage = "banner"
        while True:
            if stage == at:
                line.send(payload)
                while then == "for ever":
                    line.send(payload)
                if then == "reset":
                    line.reset()
                if then in ("close", "reset"):
                    return
            elif stage == "hello" and extensions:
                line.send(b"250-evil.test\r\n" + extensions)
            else:
                line.send(_GOOD[stage])
            if stage == "data" and at != "data":
                line.message()
                stage = "end"
                continue
            verb = line.command()[:4].upper()
            while verb not in _VERBS:
                line.send(b"221 bye\r\n" if verb == b"QUIT" else b"250 ok\r\n")
                if verb == b"QUIT":
                    return
                verb = line.command()[:4].upper()
            stage = _VERBS[verb]

    return script


class World:
    """Name service and servers of a test: a domain and an address for each."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.dns = DnsServer(self.loop)
        self._thread = threading.Thread(target=self.loop.run, daemon=True)
        self._thread.start()

    def address(self) -> str:
        """A loopback address that no test has used."""
        high, low = divmod(next(_NUMBERS), 250)
        return f"127.66.{high}.{low + 1}"

    def domain(self, address: str) -> str:
        """A domain whose only MX has that address."""
        number = next(_NUMBERS)
        name = f"d{number}.evil.test"
        self.dns.zone[name, "MX"] = [f"10 mx{number}.evil.test."]
        self.dns.zone[f"mx{number}.evil.test", "A"] = [address]
        return name

    @contextlib.contextmanager
    def server(self, script: Script) -> Iterator[tuple[str, Server]]:
        """A domain, and the server that is its MX."""
        address = self.address()
        server = Server((address, 25), script)
        try:
            yield self.domain(address), server
        finally:
            server.close()

    def close(self) -> None:
        """Stop the name service."""
        self.loop.call_soon(self.loop.stop)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:  # wakes the loop
            query = bytes.fromhex("000101000001000000000000076e6f7468696e670474657374 0000010001".replace(" ", ""))
            sock.sendto(query, ("127.0.0.1", self.dns.port))
        self._thread.join(5)
        self.dns.close()


DEAD_SENDER = "a@client.test"


class Outgoing:
    """The daemon, the sink that gets bounces, the name service and the evil servers."""

    def __init__(self, daemon: Daemon, sink: Sink, watch: Watch, world: World, lmtp: str) -> None:
        self.daemon, self.sink, self.watch, self.world, self.lmtp = daemon, sink, watch, world, lmtp

    def submit(self, *recipients: str, sender: str = DEAD_SENDER, body: bytes = b"Subject: x\r\n\r\nx\r\n") -> None:
        """Put a message into the queue."""
        with Wire(("127.0.0.1", self.daemon.port)) as wire:
            wire.hello()
            assert wire.say(f"MAIL FROM:<{sender}>").startswith(b"250 ")
            for recipient in recipients:
                assert wire.say(f"RCPT TO:<{recipient}>").startswith(b"250 "), recipient
            assert wire.say("DATA").startswith(b"354 ")
            assert wire.say(body + b".").startswith(b"250 ")
            wire.say("QUIT")

    def rows(self) -> list[m.QueueRow]:
        """`show queue`."""
        return list(parts(str(self.daemon.state), m.ShowQueue(0), m.QueueRow))

    def kept(self, patience_secs: float = PATIENCE_SECS) -> list[m.QueueRow]:
        """Wait until each envelope was tried and is waiting again; then empty the queue."""
        try:
            wait_until(
                "it was tried", lambda: all(row.tries and row.state == "pending" for row in self.rows()), patience_secs
            )
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.rows()}\n{self.daemon.log[-3000:]}") from None
        rows = self.rows()
        assert rows, f"it is not in the queue any more\n{self.daemon.log[-3000:]}"
        self.watch.remove_all()
        return rows

    def bounce(self) -> email.message.Message:
        """Wait for the one bounce; the queue is empty then."""
        wait_until("the bounce arrives", lambda: bool(self.sink.mails))
        wait_until("the queue is empty", lambda: self.watch.queued() == 0)
        assert len(self.sink.mails) == 1
        (mail,) = self.sink.mails
        assert (mail.sender, mail.recipients) == ("", [DEAD_SENDER])
        assert mail.data.isascii()
        assert all(b >= 32 or b in b"\r\n\t" for b in mail.data), "control characters of the server"
        assert mail.data.count(b"\n") == mail.data.count(b"\r\n") == mail.data.count(b"\r")
        assert max(map(len, mail.data.split(b"\r\n"))) <= 998
        return email.message_from_bytes(mail.data)
