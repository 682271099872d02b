"""What OpenBSD and FreeBSD show of a live process, by the output of ps, fstat and procstat.

Runs in smtpctl_ps as root. Written from ps(1), fstat(1) and procstat(1); the parsers are tested
on samples in the form that those pages give. OpenBSD shows that a process is under pledge and
chrooted, but neither its promises nor where; those lines are then not compared.
"""

import re
import subprocess
import sys
from collections.abc import Sequence

from smtpd_ps.pure.audit import Descriptor, Observation

_PATH = "/sbin:/bin:/usr/sbin:/usr/bin"
_FREEBSD_CREDENTIALS = re.compile(r"^\s*\d+\s+.*?((?:\s+\d+){6})\s+\d+\s+(\S+)\s+(\S+)\s*$", re.M)
_FREEBSD_FILE = re.compile(
    r"^\s*\d+\s+.*?\s(text|cwd|root|jail|ctty|trace|\d+)\s+(\S)\s+(\S)\s+(\S+)\s+\S+\s+\S+\s+(\S+)\s*(.*)$"
)
_FREEBSD_LIMIT = re.compile(r"\s(coredumpsize|openfiles)\s+(infinity|\d+)(?:\s+[A-Za-z]+)?\s+(infinity|\d+)")
_LIMIT_NAMES = {"coredumpsize": "core", "openfiles": "nofile"}
_FREEBSD_KINDS = {"k": "epoll", "p": "pipe", "f": "pipe", "h": "memory-file", "P": "pidfd", "E": "eventfd"}
_VNODES = {"r": "file", "d": "directory", "c": "device"}
_STDIO = (0, 1, 2)


def _run(argv: Sequence[str]) -> str:
    """Standard output of one of our own argument vectors. Raises ProcessLookupError where it is empty."""
    done = subprocess.run(  # noqa: S603
        argv, env={"PATH": _PATH, "LC_ALL": "C"}, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    text = done.stdout.decode("utf-8", "replace")
    if not text.strip():
        raise ProcessLookupError(f"process {argv[-1]} is gone")
    return text


def inspect(pid: int) -> Observation:
    """What the system shows of `pid`. Raises ProcessLookupError when it is gone."""
    number = str(pid)
    if sys.platform.startswith("openbsd"):
        words = ["uid", "ruid", "svuid", "gid", "rgid", "svgid", "state", "supgid", "args"]
        shown = _run(["ps", "-ww", "-o", ",".join(words), "-p", number])
        return parse_openbsd(pid, shown, _run(["fstat", "-p", number]))
    return parse_freebsd(
        pid,
        _run(["procstat", "-h", "-s", number]),
        _run(["procstat", "-h", "-f", number]),
        _run(["procstat", "-h", "-l", number]),
        _run(["ps", "-ww", "-o", "args=", "-p", number]),
    )


def processes() -> dict[int, int]:
    """Every process of the system with its parent, by pid."""
    pairs = (line.split() for line in _run(["ps", "-ax", "-o", "pid=", "-o", "ppid="]).splitlines())
    return {int(pair[0]): int(pair[1]) for pair in pairs if len(pair) == 2}


def title_of(arguments: str) -> str:
    """The title without what setproctitle(3) puts before it and ps after it."""
    at = arguments.find("smtpd_ps: ")
    return re.sub(r" \([^()]*\)$", "", arguments[max(at, 0) :].strip())


def parse_freebsd(pid: int, credentials: str, files: str, limits: str, arguments: str) -> Observation:
    """From `procstat -s`, `-f` and `-l` (without headers) and `ps -o args=`."""
    found = _FREEBSD_CREDENTIALS.search(credentials)
    if found is None:
        raise ProcessLookupError(f"process {pid} is not shown by procstat")
    ids = tuple(map(int, found[1].split()))
    groups = tuple(int(word) for word in found[3].split(",") if word.isdigit())
    root, executable, descriptors = parse_procstat_files(files)
    return Observation(
        pid=pid,
        uids=ids[:3],
        gids=ids[3:6],
        groups=groups,
        root=root,
        descriptors=descriptors,
        limits={
            _LIMIT_NAMES[name]: (_limit(soft), _limit(hard)) for name, soft, hard in _FREEBSD_LIMIT.findall(limits)
        },
        title=title_of(arguments),
        executable=executable,
        capability_mode="C" in found[2],
    )


def _limit(text: str) -> int:
    return -1 if text == "infinity" else int(text)


def parse_procstat_files(text: str) -> tuple[str | None, str | None, tuple[Descriptor, ...]]:
    """Root directory, executable and descriptors of `procstat -f`."""
    root = executable = None
    out = []
    for line in text.splitlines():
        match = _FREEBSD_FILE.match(line)
        if match is None:
            continue
        which, kind, vnode, flags, protocol, name = match.groups()
        name = name.strip()
        if which == "root":
            root = name
        elif which == "text":
            executable = name
        elif which.isdigit():
            out.append(_freebsd_descriptor(int(which), kind, vnode, flags, protocol, name))
    return root, executable, tuple(out)


def _freebsd_descriptor(number: int, kind: str, vnode: str, flags: str, protocol: str, name: str) -> Descriptor:
    if kind == "s":
        word = _freebsd_socket(protocol, name)
        if number in _STDIO and word in ("channel", "log", "unix-peer"):
            word = "stdio"
        return Descriptor(number, word, name)
    if number in _STDIO:
        return Descriptor(number, "stdio", name)
    if kind == "v":
        access = {"rw": "read-write", "r-": "read", "-w": "write"}.get(flags[:2], "")
        return Descriptor(number, _VNODES.get(vnode, "other"), name, access)
    return Descriptor(number, _FREEBSD_KINDS.get(kind, "other"), name)


def _freebsd_socket(protocol: str, name: str) -> str:
    if protocol.startswith("TCP"):
        return "tcp-listener" if name.endswith((" 0.0.0.0:0", " ::.0", " :::0", " [::]:0")) else "tcp"
    if protocol.startswith("UDP"):
        return "udp"
    if protocol == "UDD":
        return "log"
    if protocol == "UDS":
        return "channel" if name in ("", "-") else "unix-listener"
    return "socket"


def parse_openbsd(pid: int, shown: str, files: str) -> Observation:
    """From `ps -o uid,ruid,svuid,gid,rgid,svgid,state,supgid,args` and `fstat -p`."""
    rows = shown.splitlines()[1:]
    if not rows:
        raise ProcessLookupError(f"process {pid} is gone")
    fields = rows[0].split(None, 8)
    ids = tuple(map(int, fields[:6]))
    state = fields[6]
    return Observation(
        pid=pid,
        uids=ids[:3],
        gids=ids[3:6],
        groups=tuple(int(word) for word in fields[7].split(",") if word.isdigit()),
        root=None,
        descriptors=parse_fstat(files),
        title=title_of(fields[8] if len(fields) > 8 else ""),
        pledged="p" in state,
        chrooted="c" in state,
    )


def parse_fstat(text: str) -> tuple[Descriptor, ...]:
    """Descriptors of `fstat -p`."""
    out = []
    for line in text.splitlines()[1:]:
        fields = line.split(None, 4)
        if len(fields) < 5 or not fields[3].rstrip("*").isdigit():
            continue  # text, wd, root, tr
        number, rest = int(fields[3].rstrip("*")), fields[4]
        kind = _openbsd_kind(rest) if fields[3].endswith("*") else _openbsd_file(rest)
        if number in _STDIO and kind not in ("tcp", "udp", "tcp-listener"):
            kind = "stdio"
        out.append(Descriptor(number, kind, rest))
    return tuple(out)


def _openbsd_kind(rest: str) -> str:
    words = rest.split()
    match words[:3]:
        case ["internet" | "internet6", "stream", *_]:
            return "tcp" if "<--" in rest or "-->" in rest else "tcp-listener"
        case ["internet" | "internet6", "dgram", *_]:
            return "udp"
        case ["unix", "dgram", *_]:
            return "log"
        case ["unix", "stream", *_]:
            if "<->" in words:
                return "unix-client" if "/" in rest else "channel"
            return "unix-listener"
        case ["kqueue", *_]:
            return "epoll"
        case ["pipe", *_]:
            return "pipe"
    return words[0] if words else "other"


def _openbsd_file(rest: str) -> str:
    mode = re.search(r"(?:^|\s)([-dclsbp])[-rwxsStT]{9}(?:\s|$)", rest)
    return {"-": "file", "d": "directory", "c": "device"}.get(mode[1], "other") if mode else "other"
