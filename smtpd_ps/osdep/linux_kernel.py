"""The Linux calls that Python does not offer: prctl, capset, syscall by number.

Runs in every child as it is confined. All by ctypes on the C library, which is resolved
beforehand, since nothing can be loaded afterwards.
"""

import ctypes
import os

PR_GET_DUMPABLE, PR_SET_DUMPABLE = 3, 4
PR_SET_KEEPCAPS = 8
PR_GET_SECCOMP = 21
PR_CAPBSET_READ, PR_CAPBSET_DROP = 23, 24
PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS = 38, 39
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4

_CAPABILITY_VERSION_3 = 0x20080522
_LAST_CAPABILITY = 63


class Kernel:
    """System calls that raise OSError. Tests put a fake in its place."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._prctl = self._libc.prctl
        self._prctl.argtypes = (ctypes.c_int, *(ctypes.c_ulong,) * 4)
        self._prctl.restype = ctypes.c_int
        self._syscall = self._libc.syscall
        self._syscall.restype = ctypes.c_long
        self._capset = self._libc.capset

    def prctl(self, option: int, arg2: int = 0, arg3: int = 0) -> int:
        """prctl(2)."""
        result: int = self._prctl(option, arg2, arg3, 0, 0)
        if result < 0:
            raise _last_error("prctl")
        return result

    def syscall(self, number: int, *args: "int | bytes | None") -> int:
        """syscall(2); bytes are passed by address and must outlive the call only."""
        passed = [ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_void_p(a) for a in args]
        result: int = self._syscall(ctypes.c_long(number), *passed)
        if result < 0:
            raise _last_error(f"system call {number}")
        return result

    def drop_bounding_set(self) -> bool:
        """Empty the capability bounding set. False where this process may not (unprivileged mode)."""
        for capability in range(_LAST_CAPABILITY + 1):
            try:
                held = self.prctl(PR_CAPBSET_READ, capability)
            except OSError:
                break  # past the last capability of this kernel
            if held:
                try:
                    self.prctl(PR_CAPBSET_DROP, capability)
                except PermissionError:
                    return False
        return True

    def clear_capabilities(self) -> None:
        """Empty the effective, permitted, inheritable and ambient sets."""
        self.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
        header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
        if self._capset(header, (ctypes.c_uint32 * 6)()) < 0:
            raise _last_error("capset")


def _last_error(what: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"{what}: {os.strerror(code)}")
