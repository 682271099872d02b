"""What the kernel counts: CPU of groups of processes, memory, disk use."""

import contextlib
import os
import re
import signal
import time
from collections.abc import Iterable
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
V1 = Path("/sys/fs/cgroup/cpuacct")
V2 = Path("/sys/fs/cgroup")
PREFIX = "smtpd_ps-bench"


class Group:
    """A control group, for every process of one server or of the load, forks included.

    Its CPU time stays whole when short-lived children (delivery agents) exit, which sums over /proc would miss.
    """

    def __init__(self, name: str) -> None:
        self.path = _base() / f"{PREFIX}-{os.getpid()}-{name}"
        self.path.mkdir(exist_ok=True)
        self.procs = self.path / "cgroup.procs"

    def pids(self) -> list[int]:
        """The processes in it now."""
        return _members(self.path)

    def cpu_secs(self) -> float:
        """User and system time since the group was made."""
        usage = self.path / "cpuacct.usage"
        if usage.exists():
            return int(usage.read_text()) / 1e9
        found = re.search(r"^usage_usec (\d+)", (self.path / "cpu.stat").read_text(), re.M)
        return int(found[1]) / 1e6 if found else 0.0

    def end(self, patience_secs: float = 5.0) -> None:
        """Kill what is left in it and remove it."""
        _end(self.path, patience_secs)


def _base() -> Path:
    return V1 if V1.is_dir() else V2


def _members(path: Path) -> list[int]:
    try:
        return sorted(int(line) for line in (path / "cgroup.procs").read_text().split())
    except OSError:
        return []


def _end(path: Path, patience_secs: float) -> None:
    deadline = time.monotonic() + patience_secs
    while (pids := _members(path)) and time.monotonic() < deadline:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    with contextlib.suppress(OSError):  # zombies of others may hold it for a moment more
        path.rmdir()


def end_leftovers() -> None:
    """End groups of a benchmark that was killed before it could tidy up."""
    for path in _base().glob(f"{PREFIX}-*"):
        if owner_is_gone(path):
            _end(path, 5.0)


def owner_is_gone(path: Path) -> bool:
    """Whether the process that a name of the form PREFIX-PID-... speaks of has ended."""
    owner = path.name.removeprefix(f"{PREFIX}-").split("-")[0]
    return owner.isdigit() and not Path(f"/proc/{owner}").exists()


def machine_busy_secs() -> float:
    """CPU time that anything on this machine has used since it started."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields[:8])
    return (user + nice + system + irq + softirq + steal) / TICK


def own_cpu_secs() -> float:
    """CPU time of this process and the children it has waited for outside the groups."""
    times = os.times()
    return times.user + times.system


def pss_kib(pids: Iterable[int]) -> int:
    """Proportional set size: shared pages are divided among those who share them."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            if found := re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M):
                total += int(found[1])
    return total


def roles(pids: Iterable[int]) -> dict[int, str]:
    """A short name a process: its title without the path and the options."""
    names = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            line = b" ".join(word for word in words if word).decode(errors="replace")
            names[pid] = line.split(" -")[0].rsplit("/", 1)[-1] or str(pid)
    return names


def cpu_by_role(pids: Iterable[int]) -> dict[str, float]:
    """CPU seconds of the processes that live, summed over those of one role."""
    spent: dict[str, float] = {}
    for pid, role in roles(pids).items():
        with contextlib.suppress(OSError):
            spent[role] = spent.get(role, 0.0) + _cpu_secs(pid)
    return spent


def _cpu_secs(pid: int) -> float:
    """To the nanosecond where the kernel keeps it, else to its clock's tick. Raises OSError."""
    scheduled = Path(f"/proc/{pid}/schedstat")
    if scheduled.exists():
        return int(scheduled.read_text().split()[0]) / 1e9
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICK


def descriptors(pids: Iterable[int]) -> int:
    """Open descriptors of all these processes."""
    count = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            count += len(os.listdir(f"/proc/{pid}/fd"))
    return count


def disk(tree: Path) -> dict[str, int]:
    """Bytes as files show them, bytes as the disk holds them, and files below a folder."""
    apparent = allocated = files = 0
    for folder, _dirs, names in os.walk(tree):
        for name in (".", *names):
            try:
                status = os.lstat(os.path.join(folder, name))
            except FileNotFoundError:
                continue
            allocated += status.st_blocks * 512
            if name != ".":
                apparent += status.st_size
                files += 1
    return {"disk_apparent_bytes": apparent, "disk_allocated_bytes": allocated, "disk_files": files}
