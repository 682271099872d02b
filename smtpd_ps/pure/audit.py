"""Comparing what the system shows of a live process with the policy it should be under.

Runs in smtpctl_ps (and the status part in each child, for its self-check). Values in, findings
out: one line for each difference, so that a test can break each observable line in turn.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from smtpd_ps.contract.policy import Policy
from smtpd_ps.contract.routes import CHANNELS, LASTING
from smtpd_ps.contract.values import Process

CAPABILITY_SETS = ("inheritable", "permitted", "effective", "bounding", "ambient")
_OF_ALL = frozenset({Process.PARENT, *LASTING})  # have to do with every generation
SECCOMP_NAMES = {0: "none", 1: "strict", 2: "filter"}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """An open descriptor. `kind` is one of the words that policies use, or another one."""

    number: int
    kind: str
    detail: str = ""  # path or address
    access: str = ""  # of a file: "read", "write", "read-write"
    inode: int = 0  # of a socket
    peer: int = 0  # inode at the other end of a Unix socket, 0 where unknown


@dataclass(frozen=True, slots=True)
class Observation:
    """One live process as the system shows it. None: not visible, or not there on this system."""

    pid: int
    uids: tuple[int, ...]  # real, effective, saved, file system
    gids: tuple[int, ...]
    groups: tuple[int, ...]
    root: str | None
    capabilities: dict[str, int] | None = None  # by CAPABILITY_SETS
    seccomp: int | None = None
    no_new_privs: bool | None = None
    dumpable: bool | None = None
    threads: int | None = None
    descriptors: tuple[Descriptor, ...] | None = None
    limits: dict[str, tuple[int, int]] | None = None  # soft and hard by resource; -1 is infinite
    title: str = ""
    executable: str | None = None
    pledged: bool | None = None  # OpenBSD; the system does not show which promises
    chrooted: bool | None = None  # OpenBSD, which does not show where
    capability_mode: bool | None = None  # FreeBSD


@dataclass(frozen=True, slots=True)
class Expected:
    """The policy with the names of this host filled in."""

    policy: Policy
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    root: str = "/"
    privileged: bool = True
    title: str = ""
    executable: str | None = None
    system: str = "linux"
    spool: str = ""  # directory below which spool files lie


@dataclass(frozen=True, slots=True)
class Finding:
    """One observable line that differs from the policy."""

    line: str  # "user", "groups", "root", ...
    text: str


def status_findings(expected: Expected, seen: Observation) -> list[Finding]:
    """What /proc/PID/status alone can show: users, groups, capabilities, seccomp, no_new_privs."""
    out: list[Finding] = []
    policy = expected.policy
    if any(uid != expected.uid for uid in seen.uids):
        out.append(Finding("user", f"uids {ids_text(seen.uids)}, {expected.uid} declared"))
    if any(gid != expected.gid for gid in seen.gids):
        out.append(Finding("group", f"gids {ids_text(seen.gids)}, {expected.gid} declared"))
    if not policy.confined:
        return out
    own = {expected.gid}
    if expected.privileged and set(seen.groups) - own != set(expected.groups) - own:
        out.append(Finding("groups", f"groups {ids_text(seen.groups)}, {ids_text(expected.groups)} declared"))
    if expected.system == "linux":
        out += _linux_status_findings(expected, seen)
    return out


def _linux_status_findings(expected: Expected, seen: Observation) -> list[Finding]:
    out = []
    for name in CAPABILITY_SETS:
        if name == "bounding" and not expected.privileged:
            continue  # only root can empty it, and with no_new_privs it grants nothing
        held = (seen.capabilities or {}).get(name)
        if held != 0:
            shown = "not visible" if held is None else f"{held:#x}"
            out.append(Finding("capabilities", f"{name} set is {shown}, empty declared"))
    if seen.seccomp != 2:
        mode = "not visible" if seen.seccomp is None else SECCOMP_NAMES.get(seen.seccomp, str(seen.seccomp))
        out.append(Finding("seccomp", f"mode {mode}, filter declared"))
    if not seen.no_new_privs:
        out.append(Finding("no_new_privs", "not set"))
    return out


def findings(expected: Expected, seen: Observation) -> tuple[Finding, ...]:
    """Every difference between a live process and its policy; none means it is as declared."""
    policy = expected.policy
    out = status_findings(expected, seen)
    if expected.privileged and policy.root != "any" and seen.root is not None and seen.root != expected.root:
        out.append(Finding("root", f"root directory {seen.root}, {expected.root} declared"))
    if policy.confined:
        out += _sandbox_findings(expected, seen)
    out += _limit_findings(policy, seen)
    for descriptor in seen.descriptors or ():
        kind = kind_in(descriptor, policy, expected.spool)
        if kind not in policy.kinds:
            out.append(Finding("descriptors", f"{descriptor.number} is {kind} {descriptor.detail}".rstrip()))
    if expected.title and seen.title != expected.title:
        out.append(Finding("title", f"{seen.title!r}, {expected.title!r} declared"))
    if expected.executable and seen.executable and seen.executable != expected.executable:
        out.append(Finding("executable", f"{seen.executable}, {expected.executable} declared"))
    return tuple(out)


def program_findings(
    uid: int, gid: int, root: str, privileged: bool, seen: Observation, owned: Mapping[int, Process]
) -> list[Finding]:
    """What differs of a filter or table program: its user, groups and root, and channels that it holds.

    `owned` are the daemon's own channels by inode. What else a program opens is its own affair.
    """
    out: list[Finding] = []
    if any(each != uid for each in seen.uids):
        out.append(Finding("user", f"uids {ids_text(seen.uids)}, {uid} declared"))
    if any(each != gid for each in seen.gids):
        out.append(Finding("group", f"gids {ids_text(seen.gids)}, {gid} declared"))
    if privileged and set(seen.groups) - {gid}:
        out.append(Finding("groups", f"groups {ids_text(seen.groups)}, {gid} declared"))
    if privileged and seen.root is not None and seen.root != root:
        out.append(Finding("root", f"root directory {seen.root}, {root} declared"))
    for descriptor in seen.descriptors or ():
        for inode in (descriptor.inode, descriptor.peer):
            if inode and inode in owned:
                out.append(Finding("channels", f"{descriptor.number} leads to {owned[inode].title}"))
                break
    return out


def _sandbox_findings(expected: Expected, seen: Observation) -> list[Finding]:
    policy = expected.policy
    out = []
    if expected.system == "linux":
        if seen.dumpable:
            out.append(Finding("dumpable", "its user's processes can trace it and read its memory"))
        if not policy.threads and seen.threads is not None and seen.threads > 1:
            out.append(Finding("threads", f"{seen.threads} threads, 1 declared"))
    if expected.system == "openbsd":
        if not seen.pledged:
            out.append(Finding("pledge", "not under pledge(2)"))
        if expected.privileged and policy.root != "any" and seen.chrooted is False:
            out.append(Finding("root", f"not chrooted, {expected.root} declared"))
    if expected.system == "freebsd" and policy.capsicum.enter and not seen.capability_mode:
        out.append(Finding("capsicum", "not in capability mode"))
    return out


def _limit_findings(policy: Policy, seen: Observation) -> list[Finding]:
    out = []
    for limit in policy.limits:
        shown = (seen.limits or {}).get(limit.resource)
        if shown is not None and any(value == -1 or value > limit.value for value in shown):
            out.append(Finding("limits", f"{limit.resource} is {shown[0]}/{shown[1]}, at most {limit.value} declared"))
    return out


def kind_in(descriptor: Descriptor, policy: Policy, spool: str) -> str:
    """The kind as `policy` names it.

    A file below the spool is "spool" to queue and a body to others; elsewhere one that can only
    be read is a "table" to who may hold tables.
    """
    if descriptor.kind not in ("file", "directory"):
        return descriptor.kind
    if not spool or not descriptor.detail.startswith(spool.rstrip("/") + "/"):
        is_table = descriptor.kind == "file" and descriptor.access == "read" and "table" in policy.kinds
        return "table" if is_table else descriptor.kind
    if "spool" in policy.kinds:
        return "spool"
    return {"read": "body-read", "write": "body-write"}.get(descriptor.access, "spool")


def kinds(expected: Expected, descriptors: Collection[Descriptor]) -> dict[str, int]:
    """How many descriptors of each kind, by name."""
    counted = Counter(kind_in(descriptor, expected.policy, expected.spool) for descriptor in descriptors)
    return dict(sorted(counted.items()))


def channel_findings(
    seen: Mapping[int, tuple[Process, tuple[Descriptor, ...]]],
    generations: Mapping[int, int] = MappingProxyType({}),
) -> dict[int, tuple[Finding, ...]]:
    """Channels that lead where the contract has no route, by pid.

    `seen` holds every process of the daemon by pid, `generations` the generation of each (0 where
    it is missing). Only the parent and delivery may have channels to a process that is not among
    them (an agent that started or ended meanwhile).
    """
    owners = {
        descriptor.inode: (process, generations.get(pid, 0))
        for pid, (process, descriptors) in seen.items()
        for descriptor in descriptors
        if descriptor.kind == "channel" and descriptor.inode
    }
    out = {}
    for pid, (process, descriptors) in seen.items():
        found = []
        for descriptor in descriptors:
            if descriptor.kind != "channel" or not descriptor.peer:
                continue
            other, generation = owners.get(descriptor.peer, (None, 0))
            if other is None:
                if process not in (Process.PARENT, Process.DELIVERY):
                    found.append(Finding("channels", f"{descriptor.number} leads to a process unknown to the parent"))
            elif not may_share(process, other):
                found.append(Finding("channels", f"{descriptor.number} leads to {other.title}, which has no route"))
            elif generation != generations.get(pid, 0) and not {process, other} & _OF_ALL:
                found.append(Finding("channels", f"{descriptor.number} leads to {other.title} of another generation"))
        if found:
            out[pid] = tuple(found)
    return out


def may_share(one: Process, other: Process) -> bool:
    """Whether the contract has a route between two kinds of process."""
    if Process.AGENT in (one, other):
        return bool({one, other} & {Process.PARENT, Process.DELIVERY})
    return frozenset((one, other)) in CHANNELS


def set_findings(wanted: Mapping[Process, int], there: Mapping[Process, int]) -> tuple[Finding, ...]:
    """Core processes that are missing or too many. Agents come and go and are not counted."""
    out = []
    for process in sorted(set(wanted) | set(there)):
        if process is Process.AGENT:
            continue
        declared, live = wanted.get(process, 0), there.get(process, 0)
        if live < declared:
            out.append(Finding("processes", f"{process.title} is missing ({live} of {declared})"))
        elif live > declared:
            out.append(Finding("processes", f"{live} {process.title} processes, {declared} declared"))
    return tuple(out)


def ids_text(ids: Collection[int]) -> str:
    """Distinct ids, sorted, or "none"."""
    return ",".join(map(str, sorted(set(ids)))) or "none"
