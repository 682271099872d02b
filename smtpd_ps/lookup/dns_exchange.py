"""One question to the name servers: UDP, the next server, another round, TCP when told.

Runs in lookup. Each attempt has a socket of its own, connected, with a port that the kernel
chooses and a random id; what does not fit is dropped and the right answer waited for (QUIRKS
38). Nothing blocks: the loop calls back.
"""

import errno
import os
import socket
from collections import deque
from collections.abc import Callable

from smtpd_ps.lookup.dns_wire import Question, Rcode, Reply, parse_reply, query
from smtpd_ps.pure.hosts_file import ResolverSettings
from smtpd_ps.runtime.loop import Loop, Timer

DEADLINE_SECS = 20.0
MAX_UNDER_WAY = 1024  # questions with a socket; others wait for their turn
MAX_WAITING = 16_384
_UDP_BYTES = 4096
_MAX_STRAY = 64  # datagrams that are no answer, before the attempt is given up

Done = Callable[[Reply | None], None]  # None: no server answered usefully
_Sockaddr = tuple[str, int] | tuple[str, int, int, int]


def _sockaddr(host: str, port: int) -> _Sockaddr:
    """The address as connect takes it without asking anybody; a zone becomes its number."""
    if ":" not in host:
        return host, port
    host, _, zone = host.partition("%")
    if not zone:
        return host, port, 0, 0
    try:
        return host, port, 0, int(zone) if zone.isdigit() else socket.if_nametoindex(zone)
    except OSError:
        return host, port, 0, 0  # no such interface: it will not answer


class Servers:
    """The name servers, and the questions under way to them."""

    def __init__(self, loop: Loop, settings: ResolverSettings) -> None:
        """Before confinement: interface names of link-local servers are looked up here."""
        self.loop = loop
        self.settings = settings
        self.addresses = tuple(_sockaddr(*server) for server in settings.servers)
        self._under_way: set[_Exchange] = set()
        self._waiting: deque[_Exchange] = deque()

    def ask(self, asked: Question, done: Done) -> None:
        """Ask; `done` is called once, later, at most DEADLINE_SECS after."""
        exchange = _Exchange(self, asked, done)
        if len(self._under_way) < MAX_UNDER_WAY:
            self._start(exchange)
        elif len(self._waiting) < MAX_WAITING:
            self._waiting.append(exchange)
        else:
            self.loop.call_soon(exchange.expire)

    def close(self) -> None:
        """Give all questions up."""
        self._waiting.clear()
        for exchange in tuple(self._under_way):
            exchange.expire()

    def _start(self, exchange: "_Exchange") -> None:
        self._under_way.add(exchange)
        self.loop.call_soon(exchange.start)

    def ended(self, exchange: "_Exchange") -> None:
        """Called by an exchange that is over."""
        self._under_way.discard(exchange)
        while self._waiting and len(self._under_way) < MAX_UNDER_WAY:
            waiting = self._waiting.popleft()
            if waiting.live:
                self._start(waiting)


class _Exchange:
    """One question, until it is answered or given up."""

    def __init__(self, servers: Servers, asked: Question, done: Done) -> None:
        self._servers, self._loop = servers, servers.loop
        self._asked = asked
        self._done: Done | None = done
        settings = servers.settings
        self._tries = servers.addresses * settings.attempts
        self._at = -1
        self._ident = 0
        self._stray = 0
        self._socket: socket.socket | None = None
        self._patience: Timer | None = None
        self._out = b""
        self._in = b""
        self._deadline = self._loop.call_later(DEADLINE_SECS, self.expire)

    @property
    def live(self) -> bool:
        return self._done is not None

    def start(self) -> None:
        if self.live:
            self._next()

    def expire(self) -> None:
        self._finish(None)

    def _finish(self, reply: Reply | None) -> None:
        self._close()
        self._deadline.cancel()
        done, self._done = self._done, None
        self._servers.ended(self)
        if done is not None:
            done(reply)

    def _close(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
        if self._socket is not None:
            self._loop.forget(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _next(self) -> None:
        """Ask the next server over UDP; after the last one of the last round, give up."""
        self._close()
        self._at += 1
        if self._at >= len(self._tries):
            self._finish(None)
            return
        try:
            sock = self._open(socket.SOCK_DGRAM)
            sock.send(query(self._ident, self._asked))
        except OSError:  # unreachable, or refused by an earlier ICMP: as good as no answer
            self._loop.call_soon(self._next)
            return
        self._stray = 0
        self._loop.read_on(sock.fileno(), self._on_datagram)

    def _open(self, kind: socket.SocketKind) -> socket.socket:
        """A connected socket to the server whose turn it is. Raises OSError."""
        address = self._tries[self._at]
        sock = socket.socket(socket.AF_INET if len(address) == 2 else socket.AF_INET6, kind)
        self._socket = sock
        sock.setblocking(False)
        self._ident = int.from_bytes(os.urandom(2), "big")
        self._patience = self._loop.call_later(self._servers.settings.timeout_secs, self._next)
        error = sock.connect_ex(address)
        if error not in (0, errno.EINPROGRESS):
            raise OSError(error, os.strerror(error))
        return sock

    def _on_datagram(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(_UDP_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._next()
            return
        reply = parse_reply(data, self._ident, self._asked)
        if reply is None:
            self._stray += 1
            if self._stray > _MAX_STRAY:
                self._next()  # somebody guesses; take another port and another id
        elif reply.truncated:
            self._ask_by_tcp()
        else:
            self._take(reply)

    def _take(self, reply: Reply) -> None:
        if reply.rcode in (Rcode.NOERROR, Rcode.NXDOMAIN):
            self._finish(reply)
        else:
            self._next()  # SERVFAIL, REFUSED and the like: perhaps another server knows

    def _ask_by_tcp(self) -> None:
        """RFC 1035 4.2.2: the same question with its length before it."""
        self._close()
        try:
            sock = self._open(socket.SOCK_STREAM)
        except OSError:
            self._loop.call_soon(self._next)
            return
        message = query(self._ident, self._asked)
        self._out = len(message).to_bytes(2, "big") + message
        self._in = b""
        self._loop.write_on(sock.fileno(), self._on_writable)

    def _on_writable(self) -> None:
        assert self._socket is not None
        try:
            self._out = self._out[self._socket.send(self._out) :]
        except BlockingIOError:
            return
        except OSError:
            self._next()
            return
        if not self._out:
            self._loop.write_off(self._socket.fileno())
            self._loop.read_on(self._socket.fileno(), self._on_stream)

    def _on_stream(self) -> None:
        assert self._socket is not None
        try:
            data = self._socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._next()
            return
        self._in += data  # at most 64 KiB and one read
        if len(self._in) < 2:
            return
        end = 2 + int.from_bytes(self._in[:2], "big")
        if len(self._in) < end:
            return
        reply = parse_reply(self._in[2:end], self._ident, self._asked)
        if reply is None or reply.truncated:
            self._next()
        else:
            self._take(reply)
