"""The control socket: who comes in, and one channel for each.

Runs in control; parses frames of local clients, who must be root (or, unprivileged, the user who
started the daemon). A client that breaks the contract is disconnected, nothing more.
"""

import os
import socket
from collections.abc import Callable

from smtpd_ps import osdep
from smtpd_ps.contract import messages as m
from smtpd_ps.contract.routes import ROUTES
from smtpd_ps.contract.values import Process
from smtpd_ps.control.desk import Desk
from smtpd_ps.runtime.channel import Channel
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop

MAX_CLIENTS = 32
PAUSE_SECS = 0.5
MAX_PENDING_BYTES = 64 * 1024 * 1024
_REQUESTS = tuple(route.message for route in ROUTES if (Process.CLIENT, Process.CONTROL) in route.hops)


class Door:
    """Accepts operators."""

    def __init__(self, loop: Loop, log: Log, desk: Desk, allowed_uid: int) -> None:
        self._loop, self._log, self._desk = loop, log, desk
        self._allowed_uid = allowed_uid
        self._clients: set[Visitor] = set()

    def open(self, sock: socket.socket) -> None:
        """Accept on a listening socket."""
        sock.setblocking(False)
        self._loop.read_on(sock.fileno(), lambda: self._accept(sock))

    def _accept(self, listener: socket.socket) -> None:
        try:
            sock, _address = listener.accept()
        except OSError as error:
            self._log.warning(f"control socket: {os.strerror(error.errno or 0)}")
            self._loop.read_off(listener.fileno())  # no descriptor left: asking again at once would not help
            self._loop.call_later(PAUSE_SECS, lambda: self.open(listener))
            return
        uid, _gid, pid = osdep.peer_credentials(sock)
        if uid not in (0, self._allowed_uid) or len(self._clients) >= MAX_CLIENTS:
            self._log.warning(f"control socket: refused uid {uid} (pid {pid}), {len(self._clients)} clients")
            sock.close()
            return
        self._desk.sessions += 1
        self._clients.add(Visitor(self._loop, self._log, self._desk, sock, self._clients.discard))


class Visitor:
    """One operator's connection; one request at a time."""

    def __init__(
        self, loop: Loop, log: Log, desk: Desk, sock: socket.socket, on_gone: Callable[["Visitor"], None]
    ) -> None:
        self._log, self._desk, self._on_gone = log, desk, on_gone
        self._case = 0
        handlers = {kind: self._on_request for kind in _REQUESTS}
        self._channel = Channel(loop, sock, Process.CONTROL, Process.CLIENT, handlers, self._closed)

    def _on_request(self, request: m.Message) -> None:
        if self._case:
            self._channel.close("a second request before the answer to the first")
            return
        self._case = self._desk.ask(self, request)

    def send(self, message: m.Message, *fds: int) -> None:
        """An answer for this operator; one who does not read is disconnected."""
        self._channel.send(message, *fds)
        if isinstance(message, m.Done):
            self._case = 0
        if self._channel.pending_bytes > MAX_PENDING_BYTES:
            self._channel.close("does not read its answer")

    def _closed(self, reason: str) -> None:
        if reason:
            self._log.warning(f"control client disconnected: {reason}")
        if self._case:
            self._desk.forget(self._case)
        self._on_gone(self)
