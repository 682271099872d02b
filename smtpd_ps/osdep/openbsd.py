"""OpenBSD: confining a process by uid, chroot, unveil(2) and pledge(2), and peer credentials.

Runs in every child, first as root and at its end confined. Written from pledge(2), unveil(2) and
unix(4); tested against a stand-in for the C library.
"""

import ctypes
import os
import socket
import struct
from typing import Protocol

from smtpd_ps.contract.messages import Common
from smtpd_ps.contract.policy import Policy, policy_of
from smtpd_ps.contract.values import Process
from smtpd_ps.osdep.bsd_interfaces import interface_group as interface_group
from smtpd_ps.osdep.errors import ConfineError
from smtpd_ps.osdep.identity import become_user, check_target, enter_root, load_time_zone, make_directories
from smtpd_ps.osdep.limits import set_limits

_SO_PEERCRED = 0x1022
_SOCKPEERCRED = struct.Struct("=IIi")  # uid, gid, pid
_ACCESS = {"read": b"r", "write": b"rwc"}


class Libc(Protocol):
    """What is used of the C library; both return -1 and set errno where they fail."""

    def pledge(self, promises: bytes, execpromises: bytes | None) -> int:
        """pledge(2)."""

    def unveil(self, path: bytes | None, permissions: bytes | None) -> int:
        """unveil(2)."""


def confine(process: Process, common: Common, libc: Libc | None = None) -> tuple[str, ...]:
    """Put this process under its policy, for good. Returns warnings to log.

    Raises ConfineError when anything could not be done; the process must then end.
    """
    policy = policy_of(process, common.commands, common.submits)
    if not policy.confined:
        raise ConfineError(f"{process.title} has no sandbox")
    libc = libc or ctypes.CDLL(None, use_errno=True)
    assert libc is not None
    check_target(common)
    try:
        load_time_zone()
        warnings = set_limits(policy)
        if common.privileged:
            enter_root(policy, common)
            become_user(common)
        if process is Process.AGENT:
            make_directories(common.writable)
        if not policy.by_user:
            for path, permissions in unveiled(policy, common):
                _check(libc.unveil(path.encode(), permissions), f"unveil {path}")
            _check(libc.unveil(None, None), "unveil")
        promises = " ".join(grant.name for grant in policy.promises)
        _check(libc.pledge(promises.encode(), None), "pledge")
    except OSError as error:
        raise ConfineError(str(error)) from error
    return warnings


def unveiled(policy: Policy, common: Common) -> list[tuple[str, bytes]]:
    """Paths as they are called below the new root, with unveil's permissions.

    A process without any gets its root directory with no permission: then nothing can be opened.
    """
    root = "" if common.privileged else common.root
    out: list[tuple[str, bytes]] = []
    for grant in policy.paths:
        paths = common.writable if grant.path == "{writable}" else (grant.path.format(root=root),)
        out += [(path, _ACCESS[grant.access]) for path in paths]
    return out or [("/", b"")]


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def peer_credentials(sock: socket.socket) -> tuple[int, int, int]:
    """(uid, gid, pid) of the process that connected a Unix socket. Raises OSError."""
    uid, gid, pid = _SOCKPEERCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, _SO_PEERCRED, _SOCKPEERCRED.size))
    return uid, gid, pid
