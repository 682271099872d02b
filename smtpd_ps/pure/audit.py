"""Comparing what the system shows of a live process with the policy it should be under.

Runs in smtpctl_ps (and the status part in each child, for its self-check). Values in, findings
out: one line for each difference, so that a test can break each observable line in turn.
"""

from collections import Counter
from dataclasses import dataclass, field

from smtpd_ps.contract.policy import Policy
from smtpd_ps.contract.values import Process

CAPABILITY_SETS = ("inheritable", "permitted", "effective", "bounding", "ambient")
SECCOMP_NAMES = {0: "none", 1: "strict", 2: "filter"}


@dataclass(frozen=True, slots=True)
class Descriptor:
    """An open descriptor. `kind` is one of the words that policies use, or another one."""

    number: int
    kind: str
    detail: str = ""  # path or address
    peer: int = 0  # pid at the other end of a channel, 0 where unknown


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
    pledge: frozenset[str] | None = None  # OpenBSD
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
    spool: str = ""  # directory below which "spool" files lie
    peers: frozenset[int] = field(default_factory=frozenset)  # pids it may share a channel with


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
        out.append(Finding("user", f"uids {_ids(seen.uids)}, {expected.uid} declared"))
    if any(gid != expected.gid for gid in seen.gids):
        out.append(Finding("group", f"gids {_ids(seen.gids)}, {expected.gid} declared"))
    if (
        expected.privileged
        and policy.confined
        and set(seen.groups) - {expected.gid} != set(expected.groups) - {expected.gid}
    ):
        out.append(Finding("groups", f"supplementary groups {_ids(seen.groups)}, {_ids(expected.groups)} declared"))
    if not policy.confined:
        return out
    if seen.capabilities is not None:
        for name in CAPABILITY_SETS:
            if name == "bounding" and not expected.privileged:
                continue  # only root can empty it, and without root it grants nothing
            if seen.capabilities[name]:
                out.append(Finding("capabilities", f"{name} set is {seen.capabilities[name]:#x}, empty declared"))
    if expected.system == "linux":
        if seen.seccomp != 2:
            mode = "not visible" if seen.seccomp is None else SECCOMP_NAMES.get(seen.seccomp, str(seen.seccomp))
            out.append(Finding("seccomp", f"mode {mode}, filter declared"))
        if not seen.no_new_privs:
            out.append(Finding("no_new_privs", "not set"))
    return out


def _ids(ids: tuple[int, ...]) -> str:
    return ",".join(map(str, sorted(set(ids)))) or "none"


def kinds(descriptors: tuple[Descriptor, ...]) -> dict[str, int]:
    """How many descriptors of each kind, by name."""
    return dict(sorted(Counter(d.kind for d in descriptors).items()))


def findings(expected: Expected, seen: Observation) -> tuple[Finding, ...]:
    """Every difference between a live process and its policy; none means it is as declared."""
    policy = expected.policy
    out = status_findings(expected, seen)
    if expected.privileged and policy.root != "any" and seen.root is not None and seen.root != expected.root:
        out.append(Finding("root", f"root directory {seen.root}, {expected.root} declared"))
    if policy.confined and expected.system == "linux":
        if seen.dumpable:
            out.append(Finding("dumpable", "others of this user can trace it and read its memory"))
        if not policy.threads and seen.threads is not None and seen.threads > 1:
            out.append(Finding("threads", f"{seen.threads} threads, 1 declared"))
    if policy.confined and expected.system == "openbsd":
        declared = frozenset(grant.name for grant in policy.promises)
        if seen.pledge is None or seen.pledge - declared:
            shown = "none" if seen.pledge is None else " ".join(sorted(seen.pledge))
            out.append(Finding("pledge", f"promises {shown}, {' '.join(sorted(declared))} declared"))
    if expected.system == "freebsd" and policy.capsicum.enter and not seen.capability_mode:
        out.append(Finding("capsicum", "not in capability mode"))
    for limit in policy.limits:
        shown_limit = (seen.limits or {}).get(limit.resource)
        if shown_limit is not None and any(value == -1 or value > limit.value for value in shown_limit):
            soft, hard = shown_limit
            out.append(Finding("limits", f"{limit.resource} is {soft}/{hard}, at most {limit.value} declared"))
    for descriptor in seen.descriptors or ():
        if descriptor.kind not in policy.kinds:
            out.append(Finding("descriptors", f"{descriptor.number} is {descriptor.kind} {descriptor.detail}".rstrip()))
        elif descriptor.kind == "channel" and descriptor.peer and descriptor.peer not in expected.peers:
            out.append(Finding("channels", f"{descriptor.number} leads to process {descriptor.peer}, not declared"))
    if expected.title and seen.title != expected.title:
        out.append(Finding("title", f"{seen.title!r}, {expected.title!r} declared"))
    if expected.executable and seen.executable and seen.executable != expected.executable:
        out.append(Finding("executable", f"{seen.executable}, {expected.executable} declared"))
    return tuple(out)


def set_findings(expected: dict[Process, int], seen: dict[Process, int]) -> tuple[Finding, ...]:
    """Processes that are missing or too many, by kind. Agents come and go and are not counted."""
    out = []
    for process in sorted(set(expected) | set(seen)):
        if process is Process.AGENT:
            continue
        wanted, there = expected.get(process, 0), seen.get(process, 0)
        if there < wanted:
            out.append(Finding("processes", f"{process.title} is missing ({there} of {wanted})"))
        elif there > wanted:
            out.append(Finding("processes", f"{there} {process.title} processes, {wanted} declared"))
    return tuple(out)
