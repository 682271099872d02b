"""The sockets that only the parent may open: listeners, the local and the control socket.

Runs in the parent; accepts nothing on them.
"""

import errno
import os
import socket
import stat
import time
from collections.abc import Sequence

from smtpd_ps.contract.settings import ListenerSettings

BACKLOG = 1024  # OpenSMTPD's is 5, which stops a burst of connections
LOOK_AGAIN_SECS = 0.02


class ListenError(Exception):
    """An address cannot be listened on; the text says which and why."""


class Listeners:
    """The listening sockets, kept over reloads: one whose address stays is never closed."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], socket.socket] = {}
        self._next: dict[tuple[str, int], socket.socket] = {}

    def prepare(self, wanted: Sequence[ListenerSettings], patience_secs: float = 0.0) -> tuple[socket.socket, ...]:
        """A socket for each, those of new addresses bound. Raises ListenError, having bound none.

        What is prepared takes the place of what is there with `adopt`, or is undone with `abandon`.
        """
        self._next = {}
        try:
            for one in wanted:
                key = (one.address, one.port)
                if key in self._next:
                    raise ListenError(f"{one.address} port {one.port}: listened on twice")
                self._next[key] = self._kept.get(key) or bind_listener(one, patience_secs)
        except ListenError:
            self.abandon()
            raise
        return tuple(self._next.values())

    def adopt(self) -> None:
        """Close the sockets that are wanted no more."""
        for key, sock in self._kept.items():
            if key not in self._next:
                sock.close()
        self._kept, self._next = self._next, {}

    def abandon(self) -> None:
        """Close the sockets that were bound for nothing."""
        for key, sock in self._next.items():
            if key not in self._kept:
                sock.close()
        self._next = {}


def bind_listener(listener: ListenerSettings, patience_secs: float = 0.0) -> socket.socket:
    """A bound and listening socket. Raises ListenError.

    `patience_secs` is how long another socket at the address may still be there: after a kill, the
    old smtp process takes a moment to follow its parent.
    """
    if listener.local:
        return bind_unix(listener.address, 0o666)
    deadline = time.monotonic() + patience_secs
    while True:
        try:
            return _bind_tcp(listener)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() >= deadline:
                text = os.strerror(error.errno or 0)
                raise ListenError(f"{listener.address} port {listener.port}: {text}") from None
        time.sleep(LOOK_AGAIN_SECS)


def _bind_tcp(listener: ListenerSettings) -> socket.socket:
    family = socket.AF_INET6 if ":" in listener.address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((listener.address, listener.port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def bind_unix(path: str, mode: int) -> socket.socket:
    """A listening Unix socket with that mode; a socket left over at `path` is replaced."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if stat.S_ISSOCK(os.lstat(path).st_mode):
            os.unlink(path)
    except FileNotFoundError:
        pass  # the usual case
    before = os.umask(0o777 & ~mode)
    try:
        sock.bind(path)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise ListenError(f"{path}: {os.strerror(error.errno or 0)}") from None
    finally:
        os.umask(before)
    return sock
