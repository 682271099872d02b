"""Accepts connections on one listening socket.

Runs in smtp. At most MAX_ACCEPTS a loop turn, so that a burst of new clients does not starve the
sessions; and pauses where the system has no descriptors left.
"""

import errno
import os
import socket
from collections.abc import Callable

from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop

MAX_ACCEPTS = 64
PAUSE_SECS = 1.0

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Acceptor:
    """`on_client` gets each connected socket and its address (text; "local" for a Unix socket)."""

    def __init__(
        self, loop: Loop, log: Log, sock: socket.socket, on_client: Callable[[socket.socket, str], None]
    ) -> None:
        self._loop = loop
        self._log = log
        self._sock = sock
        self._on_client = on_client
        self._local = sock.family == socket.AF_UNIX
        self._open = False
        sock.setblocking(False)

    def open(self) -> None:
        """Accept from now on; who has connected before is served as well."""
        self._open = True
        self._loop.accept_on(self._sock.fileno(), self._accept)

    def pause(self) -> None:
        """Accept no more until `open`; clients wait in the backlog."""
        self._open = False
        self._loop.read_off(self._sock.fileno())

    def finish(self) -> None:
        """Take whoever has connected already, and stop listening."""
        if self._open:
            self._accept()
        self.close()

    def close(self) -> None:
        """Stop listening."""
        self.pause()
        self._loop.forget(self._sock.fileno())
        self._sock.close()

    def _accept(self) -> None:
        for _ in range(MAX_ACCEPTS):
            try:
                client, address = self._sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in _EXHAUSTED:
                    self._log.warning(f"cannot accept: {os.strerror(error.errno)}; waiting")
                    self._loop.read_off(self._sock.fileno())
                    self._loop.call_later(PAUSE_SECS, self._retry)
                    return
                continue  # the client has gone already
            if self._local:
                self._on_client(client, "local")
                continue
            try:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            except OSError:
                client.close()  # gone already
                continue
            self._on_client(client, address[0].partition("%")[0])

    def _retry(self) -> None:
        if self._open:
            self._loop.accept_on(self._sock.fileno(), self._accept)
