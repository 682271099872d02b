"""Connections that begin with a PROXY header: the header is read here, and then they are clients like others.

Runs in smtp, on a listener with `proxy-v2`; pure/proxy_header parses. Not a byte behind the header is
taken from the socket. A proxy that is not listed, garbage and slowness all end the connection in
silence, and one line in the log.
"""

import socket
from collections.abc import Callable

from smtpd_ps.contract.settings import ListenerSettings
from smtpd_ps.pure.match_tables import match_netaddrs
from smtpd_ps.pure.proxy_header import FIXED_BYTES, ProxyError, rest_bytes, source_address
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop, Timer
from smtpd_ps.smtp.sources import Sources

HEADER_SECS = 30.0

OnClient = Callable[[socket.socket, str], None]


class ProxyDoor:
    """Takes the connections of one listener.

    `on_client` gets each with the address its header gives; `on_gone` hears of one that ends without.
    `sources` bounds how many of one address or network may wait for their headers to be complete.
    """

    def __init__(
        self,
        loop: Loop,
        log: Log,
        listener: ListenerSettings,
        sources: Sources,
        on_client: OnClient,
        on_gone: Callable[[], None],
    ) -> None:
        self.loop, self.log, self._sources = loop, log, sources
        self._trusts = match_netaddrs(listener.proxies) if listener.proxy == "listed" else None
        self._on_client = on_client
        self._on_gone = on_gone
        self._waiting: set[_Header] = set()

    @property
    def waiting(self) -> int:
        """How many connections have not said yet for whom they come."""
        return len(self._waiting)

    def arrived(self, sock: socket.socket, address: str) -> None:
        """Somebody connected from `address`."""
        if self._trusts is not None and not self._trusts(address):
            self.log.info(f"smtp proxy address={address} refused: it may not send PROXY headers")
            sock.close()
            return
        if not self._sources.open(address):
            self.log.info(f"smtp proxy address={address} refused: too many that have sent no header")
            sock.close()
            return
        self._waiting.add(_Header(self, sock, address))

    def read(self, header: "_Header", sock: socket.socket, source: str) -> None:
        """A header is complete."""
        self._forget(header)
        self.log.debug(f"smtp proxy address={header.address} source={source}")
        self._on_client(sock, source)

    def failed(self, header: "_Header", why: str) -> None:
        """A connection ended without a header."""
        self._forget(header)
        self.log.info(f'smtp proxy address={header.address} closed reason="{why}"')
        self._on_gone()

    def _forget(self, header: "_Header") -> None:
        self._waiting.discard(header)
        self._sources.close(header.address)

    def close(self) -> None:
        """End those that have not said for whom they come."""
        for header in tuple(self._waiting):
            header.end("shutdown")


class _Header:
    """One connection whose header is on its way."""

    __slots__ = ("_bytes", "_door", "_fixed", "_sock", "_timer", "_wanted", "address")

    def __init__(self, door: ProxyDoor, sock: socket.socket, address: str) -> None:
        self._door, self._sock, self.address = door, sock, address
        self._bytes = bytearray()
        self._fixed = b""  # the first part, once it is complete
        self._wanted = FIXED_BYTES
        sock.setblocking(False)
        self._timer: Timer = door.loop.call_later(HEADER_SECS, lambda: self.end("timeout"))
        door.loop.read_on(sock.fileno(), self._on_bytes)

    def _on_bytes(self) -> None:
        try:
            data = self._sock.recv(self._wanted - len(self._bytes))
            if not data:
                self.end("disconnected")
                return
            self._bytes += data
            while len(self._bytes) == self._wanted:
                if self._fixed:
                    self._complete()
                    return
                self._fixed, self._wanted = bytes(self._bytes), rest_bytes(bytes(self._bytes))
                self._bytes.clear()
        except BlockingIOError:
            return
        except ProxyError as error:
            self.end(str(error))
        except OSError as error:
            self.end(error.strerror or "broken")

    def _complete(self) -> None:
        source = source_address(self._fixed, bytes(self._bytes)) or self.address
        self._stop()
        self._door.read(self, self._sock, source)

    def end(self, why: str) -> None:
        """Close, and say nothing."""
        self._stop()
        self._sock.close()
        self._door.failed(self, why)

    def _stop(self) -> None:
        self._timer.cancel()
        self._door.loop.forget(self._sock.fileno())
