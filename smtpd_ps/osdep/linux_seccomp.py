"""The system-call filter: a policy's calls compiled to the kernel's classic BPF, and loaded.

Runs in every child as the last step of being confined. The numbers of the calls come from
libseccomp (2.3 or later), which knows them for every architecture; the program is our own so
that a call whose arguments do not fit can fail with an errno instead of killing.
Calls without conditions come last: the kernel answers those from a bitmap without running the
program (Linux 5.11 and later).
"""

import ctypes
import os
import struct
import sys
from collections.abc import Callable, Iterable

from smtpd_ps.contract.syscalls import Arg, Call
from smtpd_ps.osdep.errors import ConfineError
from smtpd_ps.osdep.linux_kernel import Kernel

ALLOW, KILL_PROCESS, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_LD_ABS, _JEQ, _JGE, _AND, _RET = 0x20, 0x15, 0x35, 0x54, 0x06
_OFFSET_NUMBER, _OFFSET_ARCH, _OFFSET_ARGS = 0, 4, 16  # of struct seccomp_data
_ENOSYS = 38
# Numbers from here on are newer than this policy; the C library falls back when told ENOSYS.
FIRST_UNKNOWN = 451
_X32_BIT = 0x40000000
_SET_MODE_FILTER, _FLAG_TSYNC = 1, 1
MAX_INSTRUCTIONS = 4096

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, operand


class Names:
    """System-call numbers by name, from libseccomp. Raises ConfineError where that is missing."""

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        except OSError as error:
            raise ConfineError("libseccomp.so.2 is missing: install libseccomp2 (or libseccomp)") from error
        self._resolve = library.seccomp_syscall_resolve_name
        self._resolve.argtypes = (ctypes.c_char_p,)
        self._resolve.restype = ctypes.c_int
        native = library.seccomp_arch_native
        native.argtypes = ()
        native.restype = ctypes.c_uint32
        self.arch: int = native()

    def number(self, name: str) -> int | None:
        """None where this architecture (or this libseccomp) has no such call."""
        number: int = self._resolve(name.encode())
        return number if number >= 0 else None


def assemble(
    calls: Iterable[Call], arch: int, number: Callable[[str], int | None], pid: int, others: bool = False
) -> list[Instruction]:
    """The filter program. Pure: same calls, same program. Raises ValueError when it grows too large.

    With `others`, what is not among `calls` is allowed.
    """
    program: list[Instruction] = [
        (_LD_ABS, 0, 0, _OFFSET_ARCH),
        (_JEQ, 1, 0, arch),
        (_RET, 0, 0, KILL_PROCESS),
        (_LD_ABS, 0, 0, _OFFSET_NUMBER),
    ]
    plain: list[Instruction] = []
    for call in calls:
        found = number(call.name)
        if found is None:
            continue
        block = _block(call, pid)
        if len(block) > 255:
            raise ValueError(f"too many conditions for {call.name}")
        where = program if call.alternatives else plain
        where.append((_JEQ, 0, len(block), found))
        where.extend(block)
    program += plain
    program += (
        [(_JGE, 0, 1, _X32_BIT), (_RET, 0, 0, KILL_PROCESS), (_RET, 0, 0, ALLOW)]
        if others
        else [
            (_JGE, 2, 0, _X32_BIT),
            (_JGE, 0, 1, FIRST_UNKNOWN),
            (_RET, 0, 0, ERRNO | _ENOSYS),
            (_RET, 0, 0, KILL_PROCESS),
        ]
    )
    if len(program) > MAX_INSTRUCTIONS:
        raise ValueError("the filter is too long")
    return program


def _block(call: Call, pid: int) -> list[Instruction]:
    refusal = (_RET, 0, 0, ERRNO | call.otherwise if call.otherwise else KILL_PROCESS)
    if call.never:
        return [refusal]
    if not call.alternatives:
        return [(_RET, 0, 0, ALLOW)]
    out: list[Instruction] = []
    for alternative in call.alternatives:
        tests = [test for arg in alternative for test in _tests(arg, pid)]
        # Each test is its loads and one JEQ; a failed one jumps past this alternative's RET.
        left = sum(len(test) for test in tests) + 1
        for loads in tests:
            left -= len(loads)
            code, true, _false, operand = loads[-1]
            out += [*loads[:-1], (code, true, left, operand)]
        out.append((_RET, 0, 0, ALLOW))
    return [*out, refusal]


def _tests(arg: Arg, pid: int) -> list[list[Instruction]]:
    value = pid if arg.own_pid else arg.value
    low = _OFFSET_ARGS + 8 * arg.index
    high = low + 4
    if sys.byteorder == "big":
        low, high = high, low
    mask = arg.mask & 0xFFFFFFFFFFFFFFFF
    halves = [(low, value & 0xFFFFFFFF, mask & 0xFFFFFFFF)]
    if arg.bits == 64 and mask >> 32:
        halves.append((high, value >> 32, mask >> 32))
    tests: list[list[Instruction]] = []
    for offset, wanted, bits in halves:
        test: list[Instruction] = [(_LD_ABS, 0, 0, offset)]
        if bits != 0xFFFFFFFF:
            test.append((_AND, 0, 0, bits))
        tests.append([*test, (_JEQ, 0, 0, wanted)])
    return tests


class Filter:
    """A compiled filter, ready to be loaded."""

    def __init__(self, kernel: Kernel, calls: Iterable[Call], names: Names | None = None, others: bool = False) -> None:
        names = names or Names()
        self._kernel = kernel
        load = names.number("seccomp")
        if load is None:
            raise ConfineError("this system has no seccomp(2)")
        self._load_number = load
        program = assemble(calls, names.arch, names.number, os.getpid(), others)
        packed = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
        self._code = ctypes.create_string_buffer(packed, len(packed))
        self._header = struct.pack("@HP", len(program), ctypes.addressof(self._code))

    def load(self) -> None:
        """Enforce, for good, on every thread. Needs no_new_privs. Raises OSError, ConfineError."""
        thread = self._kernel.syscall(self._load_number, _SET_MODE_FILTER, _FLAG_TSYNC, self._header)
        if thread:
            raise ConfineError(f"thread {thread} could not take the filter")
