"""The filter compiler, run against a small interpreter of the kernel's classic BPF."""

import errno
import os
import platform
import struct
import sys

import pytest

from smtpd_ps.contract.policy import POLICIES
from smtpd_ps.contract.syscalls import GROUPS, Arg, Call
from smtpd_ps.contract.values import Process
from smtpd_ps.osdep.linux_seccomp import ALLOW, ERRNO, FIRST_UNKNOWN, KILL_PROCESS, Instruction, Names, assemble

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")

ARCH, PID = 0xC000003E, 4242
NUMBERS = {"read": 0, "socket": 41, "clone": 56, "clone3": 435, "openat": 257, "fcntl": 72, "tgkill": 234}


def run(program: list[Instruction], number: int, *args: int, arch: int = ARCH) -> int:
    """What the kernel would answer."""
    padded = [*args, 0, 0, 0, 0, 0, 0][:6]
    data = struct.pack("=iIQ6Q", number, arch, 0, *(arg & 0xFFFFFFFFFFFFFFFF for arg in padded))
    at = accumulator = 0
    while True:
        code, true, false, operand = program[at]
        at += 1
        match code:
            case 0x20:
                accumulator = struct.unpack_from("=I", data, operand)[0]
            case 0x54:
                accumulator &= operand
            case 0x15:
                at += true if accumulator == operand else false
            case 0x35:
                at += true if accumulator >= operand else false
            case 0x06:
                return operand
            case _:
                raise AssertionError(f"code {code:#x}")


def compiled(*calls: Call) -> list[Instruction]:
    return assemble(calls, ARCH, NUMBERS.get, PID)


def test_default_is_death() -> None:
    """A call that is not listed, another architecture and the x32 calls end the process."""
    program = compiled(Call("read"))
    assert run(program, 0) == ALLOW
    assert run(program, 1) == KILL_PROCESS
    assert run(program, 0, arch=0x40000003) == KILL_PROCESS
    assert run(program, 0x40000000) == KILL_PROCESS
    assert run(program, -1) == KILL_PROCESS


def test_unknown_calls_fall_back() -> None:
    """Calls newer than the policy get ENOSYS, so that a newer C library falls back."""
    program = compiled(Call("read"))
    assert run(program, FIRST_UNKNOWN) == run(program, 9999) == ERRNO | errno.ENOSYS
    assert run(program, FIRST_UNKNOWN - 1) == KILL_PROCESS


def test_conditions() -> None:
    """Each alternative's conditions must all hold; otherwise the errno, or death where there is none."""
    program = compiled(
        Call("fcntl", ((Arg(1, 1), Arg(2, 7)), (Arg(1, 3),)), errno.EPERM),
        Call("socket", ((Arg(0, 2),),)),
        Call("openat", otherwise=errno.EACCES, never=True),
    )
    assert run(program, 72, 5, 1, 7) == ALLOW
    assert run(program, 72, 5, 3, 9) == ALLOW
    assert run(program, 72, 5, 1, 8) == ERRNO | errno.EPERM
    assert run(program, 72, 5, 4, 7) == ERRNO | errno.EPERM
    assert run(program, 41, 2, 0, 0) == ALLOW
    assert run(program, 41, 2 | 1 << 40) == ALLOW  # an int: the kernel looks at the low half only
    assert run(program, 41, 1) == KILL_PROCESS
    assert run(program, 257) == ERRNO | errno.EACCES


def test_masks_and_wide_arguments() -> None:
    """Masks apply to both halves of 64-bit arguments; the process's own id is filled in."""
    program = compiled(
        Call("clone", ((Arg(0, 0x10000, 0x10000 | 0x7E020000, bits=64),),)),
        Call("fcntl", ((Arg(2, 0, bits=64),),), errno.EPERM),
        Call("tgkill", ((Arg(0, 0, own_pid=True),),)),
    )
    assert run(program, 56, 0x3D0F00) == ALLOW
    assert run(program, 56, 0x01200011) == KILL_PROCESS
    assert run(program, 56, 0x3D0F00 | 0x10000000) == KILL_PROCESS
    assert run(program, 72, 0, 0, 0) == ALLOW
    assert run(program, 72, 0, 0, 1 << 32) == ERRNO | errno.EPERM
    assert run(program, 72, 0, 0, 1) == ERRNO | errno.EPERM
    assert run(program, 234, PID) == ALLOW
    assert run(program, 234, PID + 1) == KILL_PROCESS


def test_calls_that_do_not_exist_here() -> None:
    """A name this architecture does not have is left out."""
    assert compiled(Call("open"), Call("read")) == compiled(Call("read"))


def test_too_many_conditions() -> None:
    """A block that a jump could not pass is an error, not a wrong program."""
    with pytest.raises(ValueError, match="too many conditions"):
        compiled(Call("fcntl", tuple((Arg(1, value),) for value in range(100))))


@pytest.mark.parametrize("process", [p for p, policy in POLICIES.items() if policy.confined], ids=lambda p: p.title)
def test_every_policy(process: Process) -> None:
    """Every policy compiles, every name in it is known, and never-granted calls end in death."""
    names = Names()
    program = assemble(POLICIES[process].calls().values(), names.arch, names.number, os.getpid())
    assert len(program) < 600
    never = (
        "execve execveat fork vfork ptrace process_vm_readv process_vm_writev kill tkill mount umount2 chroot "
        "pivot_root bpf io_uring_setup io_uring_enter setuid setresuid setgid setgroups capset unshare setns keyctl "
        "add_key init_module finit_module kexec_load reboot perf_event_open userfaultfd seccomp personality mknod "
        "mknodat symlink symlinkat lchown fchownat listen rt_sigqueueinfo pidfd_open pidfd_send_signal memfd_create"
    )
    for name in never.split():
        number = names.number(name)
        if number is not None:
            assert run(program, number, arch=names.arch) == KILL_PROCESS, name


def test_socket_is_for_who_connects() -> None:
    """Only lookup and delivery can make a socket, and only of the Internet families."""
    names = Names()
    number = names.number("socket")
    assert number is not None
    for process, policy in POLICIES.items():
        if not policy.confined:
            continue
        program = assemble(policy.calls().values(), names.arch, names.number, 1)
        inside = process in (Process.LOOKUP, Process.DELIVERY)
        assert run(program, number, 2, 1, arch=names.arch) == (ALLOW if inside else KILL_PROCESS)
        refused = ERRNO | errno.EAFNOSUPPORT if inside else KILL_PROCESS
        for family in (1, 16, 17, 38, 40):  # UNIX, NETLINK, PACKET, ALG, VSOCK
            assert run(program, number, family, 1, arch=names.arch) == refused


def test_names_are_spelled_right() -> None:
    """Every call in the groups is known to libseccomp on some architecture (a typo is known on none)."""
    names = Names()
    if platform.machine() != "x86_64":
        pytest.skip("x86_64 has all the old calls; this machine lacks some by design")
    unknown = {call.name for group in GROUPS.values() for call in group.all_calls() if names.number(call.name) is None}
    assert unknown == set()
