"""What Linux shows of a live process: /proc/PID, for `smtpctl_ps audit` and its tests.

Runs in smtpctl_ps, as root to see everything: of a process that is not dumpable others see
neither root directory nor descriptors, and that is then None.
"""

import os
import stat
from pathlib import Path

from smtpd_ps.contract.policy import POLICIES
from smtpd_ps.contract.values import Process
from smtpd_ps.osdep.linux_kernel import Kernel
from smtpd_ps.osdep.linux_landlock import Landlock
from smtpd_ps.osdep.linux_sockets import Socket, read_sockets
from smtpd_ps.osdep.linux_status import parse_status
from smtpd_ps.pure.audit import Descriptor, Observation

_LIMITS = {"Max core file size": "core", "Max open files": "nofile"}
_STDIO = (0, 1, 2)
_ACCESS = {os.O_RDONLY: "read", os.O_WRONLY: "write", os.O_RDWR: "read-write"}
_PROTOCOLS = {"TCP": "tcp", "TCPv6": "tcp", "UDP": "udp", "UDPv6": "udp"}
_INODE_PREFIX = "socket:["


def inspect(pid: int) -> Observation:
    """What the system shows of `pid`. Raises ProcessLookupError when it is gone."""
    proc = Path(f"/proc/{pid}")
    try:
        status = parse_status((proc / "status").read_text("ascii", "replace"))
        title = (proc / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ").decode("utf-8", "replace")
        limits = parse_limits((proc / "limits").read_text("ascii"))
        owner = (proc / "status").stat().st_uid
        descriptors = _descriptors(pid)
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"process {pid} is gone") from None
    effective = status.uids[1]
    return Observation(
        pid=pid,
        uids=status.uids,
        gids=status.gids,
        groups=status.groups,
        root=_link(proc / "root"),
        capabilities=status.capabilities,
        seccomp=status.seccomp,
        no_new_privs=status.no_new_privs,
        # The files of a process that is not dumpable belong to root, which tells nothing of root's own.
        dumpable=None if effective == 0 else owner == effective,
        threads=status.threads,
        descriptors=descriptors,
        limits=limits,
        title=title,
        executable=_link(proc / "exe"),
    )


def parse_limits(text: str) -> dict[str, tuple[int, int]]:
    """Soft and hard limits of /proc/PID/limits that policies name; -1 is unlimited."""
    out = {}
    for line in text.splitlines():
        for label, name in _LIMITS.items():
            if line.startswith(label):
                soft, hard = line[len(label) :].split()[:2]
                out[name] = (_number(soft), _number(hard))
    return out


def _number(text: str) -> int:
    return -1 if text == "unlimited" else int(text)


def _link(path: Path) -> str | None:
    try:
        return str(path.readlink())
    except PermissionError:
        return None


def _descriptors(pid: int) -> tuple[Descriptor, ...] | None:
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except PermissionError:
        return None
    sockets = read_sockets(pid)
    out = []
    for number in sorted(map(int, names)):
        try:
            target = os.readlink(f"/proc/{pid}/fd/{number}")
            flags = _flags(Path(f"/proc/{pid}/fdinfo/{number}").read_text("ascii"))
            mode = os.stat(f"/proc/{pid}/fd/{number}").st_mode
            protocol = _protocol(pid, number) if stat.S_ISSOCK(mode) else ""
        except FileNotFoundError:
            continue  # closed since
        out.append(classify(number, target, flags, mode, sockets, protocol))
    return tuple(out)


def _protocol(pid: int, number: int) -> str:
    """The protocol of a socket: the tables of /proc/PID/net lack those that are not bound yet."""
    try:
        return os.getxattr(f"/proc/{pid}/fd/{number}", "system.sockprotoname").rstrip(b"\0").decode("ascii", "replace")
    except OSError:
        return ""


def _flags(text: str) -> int:
    for line in text.splitlines():
        if line.startswith("flags:"):
            return int(line.split()[1], 8)
    return 0


def classify(
    number: int, target: str, flags: int, mode: int, sockets: dict[int, Socket], protocol: str = ""
) -> Descriptor:
    """A descriptor's kind in the words of policies, from its link, open flags and file mode.

    Standard descriptors are "stdio" whatever they are, network sockets excepted. Regular files
    and directories are "file" and "directory" here; pure/audit knows which of them are spool.
    """
    if target.startswith(_INODE_PREFIX):
        inode = int(target[len(_INODE_PREFIX) : -1])
        seen = sockets.get(inode, Socket(_PROTOCOLS.get(protocol, "socket"), protocol or "of an unknown protocol"))
        if number in _STDIO and seen.kind in ("channel", "unix-peer", "unix-client", "log"):
            return Descriptor(number, "stdio", f"{seen.kind} {seen.detail}".rstrip())
        return Descriptor(number, seen.kind, seen.detail, inode=inode, peer=seen.peer)
    if number in _STDIO:
        return Descriptor(number, "stdio", target)
    if target.startswith("anon_inode:"):
        name = target.removeprefix("anon_inode:").strip("[]")
        return Descriptor(number, {"eventpoll": "epoll"}.get(name, name))
    if target.startswith("pipe:"):
        return Descriptor(number, "pipe", target)
    access = _ACCESS.get(flags & os.O_ACCMODE, "")
    if stat.S_ISDIR(mode):
        return Descriptor(number, "directory", target)
    if stat.S_ISREG(mode):
        return Descriptor(number, "memory-file" if target.startswith("/memfd:") else "file", target, access)
    if stat.S_ISCHR(mode):
        return Descriptor(number, "device", target)
    return Descriptor(number, "other", target)


def processes() -> dict[int, int]:
    """Every process of the system with its parent, by pid."""
    out = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                status = parse_status(Path(f"/proc/{name}/status").read_text("ascii", "replace"))
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # gone, or hidden by the mount option hidepid
            if status.state != "Z":
                out[int(name)] = status.parent
    return out


def system_warnings() -> tuple[str, ...]:
    """What this kernel cannot enforce; a process does not show whether it is under Landlock."""
    return Landlock(Kernel(), POLICIES[Process.KEYS]).warnings()
