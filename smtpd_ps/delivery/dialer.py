"""Connected sockets: TCP made here without blocking, LMTP's Unix sockets asked of the parent.

Runs in delivery, which is chrooted and so reaches no Unix socket by itself.
"""

import os
import socket
import sys
from collections.abc import Callable
from errno import EINPROGRESS, EINVAL

from smtpd_ps.contract.messages import AgentRefused, LmtpConnect, LmtpConnected, Message
from smtpd_ps.pure.relay_network import Target
from smtpd_ps.runtime.loop import Loop, Timer

OnConnected = Callable[[socket.socket], None]
OnFailed = Callable[[str], None]
_BIND_WITHOUT_PORT = 24 if sys.platform.startswith("linux") else None  # IP_BIND_ADDRESS_NO_PORT


class TcpDial:
    """One connection being made, from `source` unless that is "". One of the callbacks is called, unless cancelled."""

    __slots__ = ("_loop", "_on_connected", "_on_failed", "_sock", "_timer")

    def __init__(
        self,
        loop: Loop,
        target: Target,
        source: str,
        timeout_secs: float,
        on_connected: OnConnected,
        on_failed: OnFailed,
    ) -> None:
        self._loop = loop
        self._on_connected = on_connected
        self._on_failed = on_failed
        self._timer: Timer | None = None
        self._sock: socket.socket | None = None
        family = socket.AF_INET6 if ":" in target.address else socket.AF_INET
        try:
            self._sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if source:
                if _BIND_WITHOUT_PORT is not None:  # connect picks the port: far more connections fit
                    self._sock.setsockopt(socket.IPPROTO_IP, _BIND_WITHOUT_PORT, 1)
                self._sock.bind((source, 0))
            error = self._sock.connect_ex((target.address, target.port))
        except OSError as refused:  # no descriptor left, or not an address
            error = refused.errno or EINVAL
        if self._sock is not None and error in (0, EINPROGRESS):
            loop.write_on(self._sock.fileno(), self._decided)
            self._timer = loop.call_later(timeout_secs, lambda: self._fail("Connection timeout"))
        else:
            self._timer = loop.call_later(0, lambda: self._fail(os.strerror(error)))

    def _decided(self) -> None:
        sock = self._sock
        assert sock is not None
        error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._fail(os.strerror(error))
            return
        self._sock = None
        self._loop.forget(sock.fileno())
        self.cancel()
        self._on_connected(sock)

    def _fail(self, text: str) -> None:
        self.cancel()
        self._on_failed(text)

    def cancel(self) -> None:
        """Give up; nobody is called. Harmless when decided."""
        if self._timer is not None:
            self._timer.cancel()
        if self._sock is not None:
            self._loop.forget(self._sock.fileno())
            self._sock.close()
            self._sock = None


class UnixDials:
    """Connections asked of the parent, by request number."""

    def __init__(self) -> None:
        self._asked: dict[int, tuple[OnConnected, OnFailed]] = {}
        self.ask: Callable[[Message], None] | None = None  # the channel to the parent; set before the loop runs

    def dial(self, request: int, action: str, on_connected: OnConnected, on_failed: OnFailed) -> None:
        """Ask for a connection to the socket that `action` names."""
        assert self.ask is not None
        self._asked[request] = (on_connected, on_failed)
        self.ask(LmtpConnect(request, action))

    def connected(self, message: LmtpConnected, fd: int) -> None:
        """The parent's answer."""
        on_connected, _ = self._asked.pop(message.request, (None, None))
        sock = socket.socket(fileno=fd)
        if on_connected is None:
            sock.close()
        else:
            on_connected(sock)

    def refused(self, message: AgentRefused) -> bool:
        """The parent's other answer; False when the request was not ours."""
        _, on_failed = self._asked.pop(message.request, (None, None))
        if on_failed is None:
            return False
        on_failed(message.text)
        return True

    def cancel(self, request: int) -> None:
        """Forget a request: what comes is closed."""
        self._asked.pop(request, None)
