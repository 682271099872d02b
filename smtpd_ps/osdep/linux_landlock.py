"""Landlock: which files, TCP ports and outside sockets a process can reach, whoever it is.

Runs in every child as it is confined, after its uid changed. Numbers and structures are those
of linux/landlock.h (ABI 1 in Linux 5.13, 2 in 5.19, 3 in 6.2, 4 in 6.7, 5 in 6.10, 6 in 6.12).
"""

import os
import struct
from dataclasses import dataclass

from smtpd_ps.contract.policy import Policy
from smtpd_ps.osdep.errors import ConfineError
from smtpd_ps.osdep.linux_kernel import Kernel

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_QUERY_VERSION = 1
_RULE_PATH, _RULE_PORT = 1, 2

WRITE_FILE, READ_FILE, READ_DIR, REMOVE_DIR, REMOVE_FILE = 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 5
MAKE_DIR, MAKE_REG = 1 << 7, 1 << 8
REFER, TRUNCATE, IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
BIND_TCP, CONNECT_TCP = 1 << 0, 1 << 1
SCOPE_ABSTRACT_UNIX, SCOPE_SIGNAL = 1 << 0, 1 << 1

_ACCESS = {
    "read": READ_FILE | READ_DIR,
    "write": WRITE_FILE | READ_FILE | READ_DIR | REMOVE_DIR | REMOVE_FILE | MAKE_DIR | MAKE_REG | REFER | TRUNCATE,
}
WANTED_ABI = 6  # from here on everything the policy declares is enforced


@dataclass(frozen=True, slots=True)
class Rights:
    """What an ABI version can restrict, as bit masks."""

    files: int
    tcp: int
    scopes: int


def rights_of(abi: int) -> Rights:
    """Every right that ABI version `abi` knows."""
    files = (1 << 13) - 1
    files |= REFER if abi >= 2 else 0
    files |= TRUNCATE if abi >= 3 else 0
    files |= IOCTL_DEV if abi >= 5 else 0
    return Rights(
        files,
        BIND_TCP | CONNECT_TCP if abi >= 4 else 0,
        SCOPE_ABSTRACT_UNIX | SCOPE_SIGNAL if abi >= 6 else 0,
    )


class Landlock:
    """A ruleset for one process. Made before chroot, while the paths still have their names."""

    def __init__(self, kernel: Kernel, policy: Policy) -> None:
        self._kernel = kernel
        self._policy = policy
        self._opened: list[tuple[int, int]] = []  # O_PATH descriptor, access rights
        try:
            self.abi = kernel.syscall(_CREATE_RULESET, None, 0, _QUERY_VERSION)
        except OSError:
            self.abi = 0

    def warnings(self) -> tuple[str, ...]:
        """What this kernel cannot enforce; empty on a current one."""
        if self.abi == 0:
            return ("Landlock is not available in this kernel: files and sockets are not restricted by path",)
        if self.abi < WANTED_ABI:
            return (f"Landlock ABI {self.abi} of this kernel lacks restrictions that version {WANTED_ABI} has",)
        return ()

    def open_paths(self, root: str, writable: tuple[str, ...]) -> None:
        """Hold the directories that the policy names. Raises ConfineError when one is missing."""
        if not self.abi:
            return
        for grant in self._policy.paths:
            if grant.path == "{writable}":
                paths: tuple[str, ...] = writable
            else:
                paths = (grant.path.format(root=root),)
            for path in paths:
                try:
                    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                except OSError as error:
                    raise ConfineError(f"{path}: {error.strerror}") from error
                self._opened.append((fd, _ACCESS[grant.access]))

    def restrict(self) -> None:
        """Enforce, for good. Needs no_new_privs. Raises OSError."""
        if not self.abi:
            return
        rights = rights_of(self.abi)
        tcp = rights.tcp
        may = {grant.name for grant in self._policy.tcp}
        if "connect" in may:
            tcp &= ~CONNECT_TCP
        attributes = struct.pack("=QQQ", rights.files, tcp, rights.scopes)
        size = 8 if self.abi < 4 else 16 if self.abi < 6 else 24
        ruleset = self._kernel.syscall(_CREATE_RULESET, attributes[:size], size, 0)
        try:
            for fd, access in self._opened:
                rule = struct.pack("=Qi", access & rights.files, fd)
                self._kernel.syscall(_ADD_RULE, ruleset, _RULE_PATH, rule, 0)
            if tcp & BIND_TCP and "connect" in may:  # a source address with a port that the kernel picks
                self._kernel.syscall(_ADD_RULE, ruleset, _RULE_PORT, struct.pack("=QQ", BIND_TCP, 0), 0)
            self._kernel.syscall(_RESTRICT_SELF, ruleset, 0)
        finally:
            os.close(ruleset)
            self.close()

    def close(self) -> None:
        """Let go of the directories."""
        for fd, _access in self._opened:
            os.close(fd)
        self._opened.clear()
