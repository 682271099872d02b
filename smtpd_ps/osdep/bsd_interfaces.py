"""Members of an interface group (ifconfig's `group`), by ioctl(2), on OpenBSD and FreeBSD.

Runs in the parent (`listen on egress`) and in smtpd_ps -n. Written from netintro(4) and ifgroup.
"""

import ctypes
import errno
import os
import socket
from typing import Any, Protocol

_NAME_BYTES = 16  # IFNAMSIZ
_MAX_MEMBERS = 4096


class _Member(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char * _NAME_BYTES)]


class _GroupUnion(ctypes.Union):
    _fields_ = [("group", ctypes.c_char * _NAME_BYTES), ("members", ctypes.POINTER(_Member))]


class Request(ctypes.Structure):
    """struct ifgroupreq."""

    _fields_ = [("name", ctypes.c_char * _NAME_BYTES), ("length", ctypes.c_uint), ("value", _GroupUnion)]


# _IOWR('i', 138, struct ifgroupreq)
SIOCGIFGMEMB = 0xC0000000 | ctypes.sizeof(Request) << 16 | ord("i") << 8 | 138


class Libc(Protocol):
    """What is used of the C library."""

    def ioctl(self, fd: int, request: Any, argument: Any) -> int:
        """ioctl(2)."""


def interface_group(name: str, libc: Libc | None = None) -> tuple[str, ...]:
    """Names of the interfaces in group `name`; empty where there is no such group. Raises OSError."""
    raw = name.encode()
    if not 0 < len(raw) < _NAME_BYTES:
        return ()
    libc = libc or ctypes.CDLL(None, use_errno=True)
    assert libc is not None
    request = Request(name=raw)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        if not _ask(libc, sock.fileno(), request):
            return ()
        count = min(request.length // ctypes.sizeof(_Member), _MAX_MEMBERS)
        members = (_Member * count)()
        request.value.members = ctypes.cast(members, ctypes.POINTER(_Member))
        request.length = ctypes.sizeof(members)
        if not _ask(libc, sock.fileno(), request):
            return ()
    return tuple(member.name.decode() for member in members if member.name)


def _ask(libc: Libc, fd: int, request: Request) -> bool:
    if libc.ioctl(fd, ctypes.c_ulong(SIOCGIFGMEMB), ctypes.byref(request)) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOENT, errno.EINVAL):
        return False
    raise OSError(code, os.strerror(code))
