"""FreeBSD: confining a process by uid, chroot, procctl(2) and Capsicum, and peer credentials.

Runs in every child, first as root and at its end confined. Written from capsicum(4), cap_enter(2),
procctl(2) and unix(4); tested against a stand-in for the C library. Which processes enter
capability mode, and why the others cannot, stands in contract/policy.
"""

import ctypes
import os
import socket
import struct
from typing import Any, Protocol

from smtpd_ps.contract.messages import Common
from smtpd_ps.contract.policy import policy_of
from smtpd_ps.contract.values import Process
from smtpd_ps.osdep.bsd_interfaces import interface_group as interface_group
from smtpd_ps.osdep.errors import ConfineError
from smtpd_ps.osdep.identity import become_user, check_target, enter_root, load_time_zone, make_directories
from smtpd_ps.osdep.limits import set_limits

P_PID = 0
PROC_TRACE_CTL, PROC_TRACE_STATUS = 7, 8
PROC_TRACE_CTL_DISABLE = 2
PROC_NO_NEW_PRIVS_CTL, PROC_NO_NEW_PRIVS_STATUS = 19, 20
PROC_NO_NEW_PRIVS_ENABLE = 1
_TRACE_DISABLED = -1

_SOL_LOCAL, _LOCAL_PEERCRED = 0, 1
_XUCRED = struct.Struct("@IIh16I0P")  # version, uid, number of groups, groups; then a pointer's room with the pid


class Libc(Protocol):
    """What is used of the C library; all return -1 and set errno where they fail."""

    def procctl(self, idtype: int, identity: Any, command: int, data: Any) -> int:
        """procctl(2)."""

    def cap_enter(self) -> int:
        """cap_enter(2)."""

    def cap_getmode(self, mode: Any) -> int:
        """cap_getmode(2)."""


def confine(process: Process, common: Common, libc: Libc | None = None) -> tuple[str, ...]:
    """Put this process under its policy, for good. Returns warnings to log.

    Raises ConfineError when anything could not be done or did not take; the process must then end.
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
        _restrict(libc)
        if policy.capsicum.enter:
            _enter_capability_mode(libc)
    except OSError as error:
        raise ConfineError(str(error)) from error
    return warnings


def _restrict(libc: Libc) -> None:
    """No tracing, no core, no set-user-id program; each asked for and read back."""
    for set_command, value, get_command, wanted, name in (
        (PROC_TRACE_CTL, PROC_TRACE_CTL_DISABLE, PROC_TRACE_STATUS, _TRACE_DISABLED, "tracing"),
        (PROC_NO_NEW_PRIVS_CTL, PROC_NO_NEW_PRIVS_ENABLE, PROC_NO_NEW_PRIVS_STATUS, PROC_NO_NEW_PRIVS_ENABLE,
         "no_new_privs"),
    ):  # fmt: skip
        data = ctypes.c_int(value)
        _check(libc.procctl(P_PID, ctypes.c_int64(0), set_command, ctypes.byref(data)), f"procctl {name}")
        data.value = 0
        _check(libc.procctl(P_PID, ctypes.c_int64(0), get_command, ctypes.byref(data)), f"procctl {name}")
        if data.value != wanted:
            raise ConfineError(f"{name} did not take")


def _enter_capability_mode(libc: Libc) -> None:
    _check(libc.cap_enter(), "cap_enter")
    mode = ctypes.c_uint(0)
    _check(libc.cap_getmode(ctypes.byref(mode)), "cap_getmode")
    if mode.value != 1:
        raise ConfineError("capability mode did not take")


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def peer_credentials(sock: socket.socket) -> tuple[int, int, int]:
    """(uid, gid, pid) of the process that connected a Unix socket; pid 0 before FreeBSD 13. Raises OSError."""
    size = _XUCRED.size + struct.calcsize("P")
    return parse_xucred(sock.getsockopt(_SOL_LOCAL, _LOCAL_PEERCRED, size))


def parse_xucred(data: bytes) -> tuple[int, int, int]:
    """uid, first group and pid of a struct xucred."""
    _version, uid, _ngroups, gid, *_groups = _XUCRED.unpack_from(data)
    pid = struct.unpack_from("@i", data, _XUCRED.size)[0] if len(data) >= _XUCRED.size + 4 else 0
    return uid, gid, pid
