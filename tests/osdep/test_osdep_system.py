"""The functions that are the same everywhere, on this system: interfaces, peers, limits, closing."""

import os
import resource
import socket
import subprocess
import sys

import pytest
from confined_processes import python_path

from smtpd_ps import osdep
from smtpd_ps.contract.policy import POLICIES
from smtpd_ps.contract.values import Process
from smtpd_ps.osdep import limits
from smtpd_ps.osdep.linux_inspect import classify, parse_limits
from smtpd_ps.osdep.linux_sockets import Socket, inet_sockets, parse_unix_answers, unix_sockets
from smtpd_ps.osdep.linux_status import parse_status


def test_loopback_is_there() -> None:
    """The loopback interface has 127.0.0.1; every address is text that inet_pton takes; no link-local one."""
    found = osdep.interface_addresses()
    assert any("127.0.0.1" in addresses for addresses in found.values())
    for addresses in found.values():
        for text in addresses:
            socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)
            assert not text.startswith("fe80")


def test_peer_credentials() -> None:
    """The kernel says who is at the other end of a Unix socket."""
    left, right = socket.socketpair()
    with left, right:
        assert osdep.peer_credentials(left) == (os.getuid(), os.getgid(), os.getpid())


def test_what_the_allocator_keeps_is_given_back() -> None:
    """Memory that is free between blocks in use goes back to the system; a C library without the call is no fault."""
    script = """
import ctypes
from smtpd_ps import osdep

def resident_kib():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4

blocks = [bytes(3000) for _ in range(20_000)]
kept = blocks[::100]
blocks.clear()
before = resident_kib()
osdep.give_back()
assert not hasattr(ctypes.CDLL(None), "malloc_trim") or resident_kib() < before - 20_000, (before, resident_kib())
"""
    subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": python_path()}, check=True)


def test_close_from() -> None:
    """Everything from a number up is closed but what is kept, far-away numbers included."""
    script = """
import os
from smtpd_ps.osdep import close_from
fds = [os.open("/dev/null", os.O_RDONLY) for _ in range(6)]
far = os.dup2(fds[0], 900)
close_from(fds[1], keep=(fds[3], 2, 5000))
def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True
print([is_open(fd) for fd in (*fds, far, 1)])
"""
    environment = {"PYTHONPATH": python_path()}
    shown = subprocess.check_output([sys.executable, "-c", script], env=environment, text=True)
    assert shown.strip() == str([True, False, False, True, False, False, False, True])


def test_limits_never_exceed_what_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hard limit below the policy's is kept, with a warning; a limit that does not take is an error."""
    held = {resource.RLIMIT_CORE: (0, resource.RLIM_INFINITY), resource.RLIMIT_NOFILE: (256, 512)}
    monkeypatch.setattr(limits.resource, "getrlimit", lambda number: held[number])
    monkeypatch.setattr(limits.resource, "setrlimit", held.__setitem__)
    assert limits.set_limits(POLICIES[Process.SMTP]) == ("limit nofile is 512, 16640 wanted",)
    assert held == {resource.RLIMIT_CORE: (0, 0), resource.RLIMIT_NOFILE: (512, 512)}
    monkeypatch.setattr(limits.resource, "setrlimit", lambda number, value: None)
    held[resource.RLIMIT_CORE] = (1, 1)
    with pytest.raises(osdep.ConfineError, match="core did not take"):
        limits.set_limits(POLICIES[Process.SMTP])


STATUS = """\
Name:\tpython
State:\tS (sleeping)
PPid:\t41
Uid:\t1\t2\t3\t4
Gid:\t5\t6\t7\t8
Groups:\t9 10 
Threads:\t3
CapInh:\t0000000000000001
CapPrm:\t0000000000000002
CapEff:\t0000000000000004
CapBnd:\t000001ffffffffff
CapAmb:\t0000000000000000
NoNewPrivs:\t1
Seccomp:\t2
"""  # noqa: W291


def test_status() -> None:
    """Every line of /proc/PID/status that is compared is read."""
    seen = parse_status(STATUS)
    assert (seen.uids, seen.gids, seen.groups) == ((1, 2, 3, 4), (5, 6, 7, 8), (9, 10))
    assert seen.capabilities == {"inheritable": 1, "permitted": 2, "effective": 4, "bounding": 2**41 - 1, "ambient": 0}
    assert (seen.seccomp, seen.no_new_privs, seen.threads, seen.parent, seen.state) == (2, True, 3, 41, "S")
    without = parse_status(
        "\n".join(line for line in STATUS.splitlines() if "Seccomp" not in line and "NoNew" not in line)
    )
    assert without.seccomp is None and without.no_new_privs is None
    with pytest.raises(KeyError):
        parse_status("Name:\tx\n")


def test_limits_of_another_process() -> None:
    """/proc/PID/limits, with "unlimited" as -1."""
    text = "Limit  Soft Limit  Hard Limit  Units\nMax core file size        0    unlimited   bytes\n"
    text += "Max open files            1024                 524288               files     \n"
    assert parse_limits(text) == {"core": (0, -1), "nofile": (1024, 524288)}


def test_inet_tables() -> None:
    """/proc/net/tcp and tcp6: listening and connected sockets with their addresses."""
    text = (
        "  sl  local_address rem_address   st\n"
        "   0: 0100007F:0019 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1\n"
        "   1: 0100007F:0019 0200007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 112 1\n"
        "   2: 00000000000000000000000001000000:0035 00000000000000000000000000000000:0000 07 "
        "00000000:00000000 00:00000000 00000000     0        0 113 1\n"
        "short line\n"
    )
    if sys.byteorder == "little":
        assert inet_sockets(text, "tcp", True) == {
            111: Socket("tcp-listener", "127.0.0.1:25"),
            112: Socket("tcp", "127.0.0.1:25 to 127.0.0.2:8080"),
            113: Socket("tcp", "[::1]:53 to [::]:0"),
        }


def test_unix_table() -> None:
    """/proc/net/unix with what sock_diag adds: listener, accepted, connected to a name, pair, syslog."""
    text = (
        "Num RefCount Protocol Flags Type St Inode Path\n"
        "0: 00000002 00000000 00010000 0001 01 10 /run/control.sock\n"
        "0: 00000003 00000000 00000000 0001 03 11 /run/control.sock\n"
        "0: 00000003 00000000 00000000 0001 03 12\n"
        "0: 00000003 00000000 00000000 0001 03 13\n"
        "0: 00000003 00000000 00000000 0001 03 14\n"
        "0: 00000003 00000000 00000000 0002 01 15\n"
        "0: 00000003 00000000 00000000 0005 03 16\n"
    )
    peers, names = {12: 11, 13: 14, 14: 13}, {11: "/run/control.sock"}
    kinds = {inode: seen.kind for inode, seen in unix_sockets(text, peers, names).items()}
    assert kinds == {
        10: "unix-listener", 11: "unix-client", 12: "unix-peer", 13: "channel", 14: "channel", 15: "log",
        16: "unix-other",
    }  # fmt: skip


@pytest.mark.parametrize("data", [b"", b"\x00" * 40, b"\x10\x00\x00\x00\x14\x00" + b"\xff" * 60, os.urandom(500)])
def test_unix_answers_of_any_shape(data: bytes) -> None:
    """Whatever netlink said, the parser ends and gives two mappings."""
    peers, names = parse_unix_answers(data)
    assert isinstance(peers, dict) and isinstance(names, dict)


@pytest.mark.parametrize(
    ("number", "target", "flags", "mode", "kind"),
    [
        (0, "/dev/null", 2, 0o020666, "stdio"),
        (2, "pipe:[5]", 1, 0o010600, "stdio"),
        (2, "socket:[1]", 2, 0o140777, "stdio"),  # a supervisor's log socket
        (2, "socket:[2]", 2, 0o140777, "tcp"),  # a network connection is never harmless
        (7, "socket:[1]", 2, 0o140777, "channel"),
        (7, "socket:[9]", 2, 0o140777, "socket"),
        (7, "anon_inode:[eventpoll]", 2, 0o600, "epoll"),
        (7, "anon_inode:[eventfd]", 2, 0o600, "eventfd"),
        (7, "anon_inode:[io_uring]", 2, 0o600, "io_uring"),
        (7, "pipe:[5]", 0, 0o010600, "pipe"),
        (7, "/etc", 0, 0o040755, "directory"),
        (7, "/etc/passwd", 0, 0o100644, "file"),
        (7, "/memfd:x (deleted)", 2, 0o100777, "memory-file"),
        (7, "/dev/kmem", 2, 0o020600, "device"),
        (7, "/some/fifo", 2, 0o010600, "other"),
    ],
)
def test_classification(number: int, target: str, flags: int, mode: int, kind: str) -> None:
    """Each kind of descriptor by its link, flags and mode."""
    assert classify(number, target, flags, mode, {1: Socket("channel"), 2: Socket("tcp")}).kind == kind
