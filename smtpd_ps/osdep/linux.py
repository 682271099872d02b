"""Linux: confining a process (uid, chroot, capabilities, Landlock, seccomp) and peer credentials.

`confine` runs in every child, first as root and at its end confined. Whatever it needs is
loaded and opened before the first step, and every step is read back at the end.
"""

import contextlib
import ctypes
import os
import socket
import struct

from smtpd_ps.contract.messages import Common
from smtpd_ps.contract.policy import Policy, policy_of
from smtpd_ps.contract.values import Process
from smtpd_ps.osdep import linux_kernel as k
from smtpd_ps.osdep.errors import ConfineError
from smtpd_ps.osdep.identity import become_user, check_target, enter_root, load_time_zone, make_directories
from smtpd_ps.osdep.limits import set_limits
from smtpd_ps.osdep.linux_kernel import Kernel
from smtpd_ps.osdep.linux_landlock import Landlock
from smtpd_ps.osdep.linux_seccomp import Filter
from smtpd_ps.osdep.linux_status import parse_status
from smtpd_ps.pure.audit import Expected, Observation, status_findings

_SECCOMP_FILTERED = 2
_CREDENTIALS = struct.Struct("=iii")


def confine(process: Process, common: Common) -> tuple[str, ...]:
    """Put this process under its policy, for good. Returns warnings to log.

    Call it once, with a single thread, when everything is imported and opened. Raises
    ConfineError when anything could not be done or did not take; the process must then end.
    """
    policy = policy_of(process, common.commands, common.submits)
    if not policy.confined:
        raise ConfineError(f"{process.title} has no sandbox")
    try:
        return _Confinement(policy, common).run()
    except OSError as error:
        raise ConfineError(str(error)) from error


class _Confinement:
    def __init__(self, policy: Policy, common: Common) -> None:
        self._policy = policy
        self._common = common
        self._kernel = Kernel()
        self._uid = common.uid if common.privileged else os.getuid()
        self._gid = common.gid if common.privileged else os.getgid()

    def run(self) -> tuple[str, ...]:
        policy, common, kernel = self._policy, self._common, self._kernel
        check_target(common)
        _preload(policy)
        status = os.open("/proc/self/status", os.O_RDONLY | os.O_CLOEXEC)
        try:
            if parse_status(_read_again(status)).threads != 1:
                raise ConfineError("threads are running already")
            landlock = Landlock(kernel, policy)
            filter_ = Filter(kernel, policy.calls().values(), others=policy.by_user)
            if policy.root != "any":
                landlock.open_paths(common.root, ())
            warnings = set_limits(policy) + (() if policy.by_user else landlock.warnings())
            bounding_empty = kernel.drop_bounding_set()
            if common.privileged:
                if not bounding_empty:
                    raise ConfineError("the capability bounding set cannot be emptied")
                enter_root(policy, common)
                kernel.prctl(k.PR_SET_KEEPCAPS, 0)
                become_user(common)
            if policy.process is Process.AGENT:
                make_directories(common.writable)
                landlock.open_paths("", common.writable)
            kernel.clear_capabilities()
            kernel.prctl(k.PR_SET_NO_NEW_PRIVS, 1)
            kernel.prctl(k.PR_SET_DUMPABLE, 0)
            if not policy.by_user:
                landlock.restrict()
            if kernel.prctl(k.PR_GET_DUMPABLE) != 0:  # the last chance to ask
                raise ConfineError("dumpable: it could be traced")
            filter_.load()
            self._check(status)
        finally:
            os.close(status)
        return warnings

    def _check(self, status_fd: int) -> None:
        """Read back what was asked for, from the kernel's own words."""
        if self._kernel.prctl(k.PR_GET_SECCOMP) != _SECCOMP_FILTERED:
            raise ConfineError("seccomp did not take")
        status = parse_status(_read_again(status_fd))
        seen = Observation(
            pid=os.getpid(),
            uids=status.uids,
            gids=status.gids,
            groups=status.groups,
            root=None,
            capabilities=status.capabilities,
            seccomp=status.seccomp,
            no_new_privs=status.no_new_privs,
        )
        common = self._common
        expected = Expected(self._policy, self._uid, self._gid, common.groups, privileged=common.privileged)
        for finding in status_findings(expected, seen):
            raise ConfineError(f"{finding.line}: {finding.text}")


def _preload(policy: Policy) -> None:
    """Load what the C library would otherwise load from files when it is needed."""
    load_time_zone()
    if policy.threads:
        with contextlib.suppress(OSError):  # only pthread_exit and cancellation want it
            ctypes.CDLL("libgcc_s.so.1")


def _read_again(fd: int) -> str:
    os.lseek(fd, 0, os.SEEK_SET)
    return os.read(fd, 65536).decode("ascii", "replace")


def peer_credentials(sock: socket.socket) -> tuple[int, int, int]:
    """(uid, gid, pid) of the process that connected a Unix socket. Raises OSError."""
    pid, uid, gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return uid, gid, pid


def interface_group(name: str) -> tuple[str, ...]:
    """Interfaces of a group; Linux has no such groups (`name` is not one)."""
    del name
    return ()
