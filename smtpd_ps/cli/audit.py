"""`smtpctl_ps audit`: every live process beside its declared policy, and what differs.

Runs as root in smtpctl_ps; reads what the kernel shows, and the process table that the parent
gave through the control socket. The comparison is pure/audit. Of filter and table programs, which
are not ours, it is looked at as whom they run, where, and that they hold nothing of the daemon's.
"""

import grp
import json as json_text
import os
import pwd
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from smtpd_ps import osdep
from smtpd_ps.cli.accounts import plans
from smtpd_ps.cli.setup import state_differences
from smtpd_ps.contract.installation import state_dir_of
from smtpd_ps.contract.messages import ProcessRow, ProgramRow
from smtpd_ps.contract.policy import policy_of
from smtpd_ps.contract.routes import CHILDREN, GENERATION
from smtpd_ps.contract.values import Process
from smtpd_ps.pure.audit import (
    CAPABILITY_SETS,
    SECCOMP_NAMES,
    Expected,
    Finding,
    Observation,
    channel_findings,
    findings,
    ids_text,
    kinds,
    program_findings,
    set_findings,
)

_WANTED = (Process.PARENT, *CHILDREN)
_EXTRA_PATIENCE_SECS = 0.5
_LOOKS = 5
_HELPERS = ("smtpd_ps.parent.system_auth",)  # one password check each, with a deadline

Inspect = Callable[[int], Observation]
Rows = Sequence[ProcessRow | ProgramRow]


@dataclass(slots=True)
class Report:
    """One process: what it is, what was seen (None: it is gone), what differs."""

    row: ProcessRow
    expected: Expected
    seen: Observation | None
    findings: list[Finding] = field(default_factory=list)


@dataclass(slots=True)
class ProgramReport:
    """One filter or table program: what it is, what differs."""

    row: ProgramRow
    seen: Observation | None
    findings: list[Finding]


def run(ask: Callable[[], Rows], json: bool, out: TextIO, inspect: Inspect = osdep.inspect) -> int:
    """Print the audit of the processes that `ask` names; 0 when all is as declared, 1 when not.

    Where something differs and a reload has changed the set of processes meanwhile, all are looked at again.
    """
    answered = ask()
    for _ in range(_LOOKS):
        rows = [row for row in answered if isinstance(row, ProcessRow)]
        reports = examine(rows, inspect)
        programs = examine_programs([row for row in answered if isinstance(row, ProgramRow)], reports, inspect)
        general = list(set_findings(_declared(rows), Counter(r.row.process for r in reports if r.seen is not None)))
        general += _extra_processes(answered)
        count = len(general) + sum(len(found) for found in _all_findings(reports, programs))
        if not count or _core(answered) == _core(answered := ask()):
            break
    installation = _installation(reports)
    general += installation
    count += len(installation)
    warnings = _warnings([report.row for report in reports], reports)
    if json:
        json_text.dump(_as_json(reports, programs, general, warnings), out, indent=1)
        out.write("\n")
    else:
        _print(reports, programs, general, warnings, count, out)
    return 1 if count else 0


def _all_findings(reports: Sequence[Report], programs: Sequence[ProgramReport]) -> list[list[Finding]]:
    return [report.findings for report in reports] + [report.findings for report in programs]


def _core(rows: Rows) -> set[int]:
    return {row.pid for row in rows if isinstance(row, ProgramRow) or row.process is not Process.AGENT}


def examine_programs(rows: Sequence[ProgramRow], reports: Sequence[Report], inspect: Inspect) -> list[ProgramReport]:
    """Look at every program. One that is gone since is started again by the parent, and differs in nothing."""
    starter = next((report.seen for report in reports if report.row.process is Process.PARENT), None)
    owned = {
        descriptor.inode: report.row.process
        for report in reports if report.seen is not None
        for descriptor in report.seen.descriptors or () if descriptor.kind == "channel" and descriptor.inode
    }  # fmt: skip
    out = []
    for row in rows:
        seen = _look(row.pid, inspect)
        if row.privileged:
            uid, gid = _user_id(row.user), _group_id(row.group)
        else:
            uid, gid = (starter.uids[0], starter.gids[0]) if starter is not None else (os.getuid(), os.getgid())
        root = os.path.realpath(row.root) if row.root else "/"
        found = program_findings(uid, gid, root, row.privileged, seen, owned) if seen is not None else []
        out.append(ProgramReport(row, seen, found))
    return out


def _user_id(name: str) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return -1


def _group_id(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return -1


def examine(rows: Sequence[ProcessRow], inspect: Inspect) -> list[Report]:
    """Look at every process once and compare it."""
    spool = next((row.root for row in rows if row.process is Process.QUEUE), "")
    looks = [(row, _look(row.pid, inspect)) for row in rows]
    starter = next((seen for row, seen in looks if row.process is Process.PARENT), None)
    reports = []
    for row, seen in looks:
        expected = expect(row, spool, starter)
        found = list(findings(expected, seen)) if seen is not None else []
        if seen is None and row.process is not Process.AGENT:
            found.append(Finding("processes", "it is gone"))
        reports.append(Report(row, expected, seen, found))
    held = {r.row.pid: (r.row.process, r.seen.descriptors or ()) for r in reports if r.seen is not None}
    for pid, wrong in channel_findings(held, {row.pid: row.generation for row in rows}).items():
        next(report for report in reports if report.row.pid == pid).findings += wrong
    return reports


def _look(pid: int, inspect: Inspect) -> Observation | None:
    try:
        return inspect(pid)
    except ProcessLookupError:
        return None


def expect(row: ProcessRow, spool: str, starter: Observation | None = None) -> Expected:
    """The policy of a process on this host. A user who does not exist is uid -1 and so a finding.

    In the unprivileged mode everything runs as whoever runs the parent (`starter`).
    """
    policy = policy_of(row.process, row.commands, row.submits)
    agent = row.process is Process.AGENT
    groups: tuple[int, ...] = ()
    if row.privileged:
        uid, gid, groups = _ids_of(policy.user or row.user, agent)
    elif starter is not None:
        uid, gid = starter.uids[0], starter.gids[0]
    else:
        uid, gid = os.getuid(), os.getgid()
    return Expected(
        policy,
        uid,
        gid,
        groups,
        root=os.path.realpath(row.root) if row.root else "/",
        privileged=row.privileged,
        title=f"smtpd_ps: agent {row.user}" if agent else f"smtpd_ps: {row.process.title}",
        executable=os.path.realpath(sys.executable),
        system=_system(),
        spool=os.path.realpath(spool) if spool else "",
    )


def _ids_of(user: str, agent: bool) -> tuple[int, int, tuple[int, ...]]:
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return -1, -1, ()
    groups = tuple(os.getgrouplist(user, entry.pw_gid)) if agent else ()
    return entry.pw_uid, entry.pw_gid, groups


def _system() -> str:
    return next((name for name in ("linux", "openbsd", "freebsd") if sys.platform.startswith(name)), sys.platform)


def _declared(rows: Sequence[ProcessRow]) -> dict[Process, int]:
    """One of each core process; of those that hold the configuration as many as each generation has."""
    wanted = dict.fromkeys(_WANTED, 0)
    for process, _generation, configured in {(row.process, row.generation, row.configured) for row in rows}:
        if process in wanted:
            wanted[process] += configured
    return {process: count or 1 for process, count in wanted.items()}


def _extra_processes(rows: Rows) -> list[Finding]:
    """Processes started by the daemon's that the parent did not name. Short-lived ones get a moment.

    What a program starts is its own affair, and what an agent starts that runs commands is its user's.
    """
    known = {row.pid for row in rows}
    starters = {row.pid for row in rows if isinstance(row, ProcessRow) and not row.commands}
    extra = _started_by(starters) - known
    if extra:
        time.sleep(_EXTRA_PATIENCE_SECS)
        extra &= _started_by(starters)
    out = []
    for pid in sorted(extra):
        try:
            title = osdep.inspect(pid).title
        except ProcessLookupError:
            continue
        if not any(title.endswith(helper) for helper in _HELPERS):
            out.append(Finding("processes", f"process {pid} ({title}) was started and is not declared"))
    return out


def _started_by(starters: set[int]) -> set[int]:
    return {pid for pid, parent in osdep.processes().items() if parent in starters and pid not in starters}


def _installation(reports: Sequence[Report]) -> list[Finding]:
    """Users and directories, against the table that setup makes them from."""
    queue = next((report for report in reports if report.row.process is Process.QUEUE), None)
    if queue is None:
        return []
    privileged = queue.row.privileged
    texts = [plan.text for plan in plans()] if privileged else []
    owner = None if privileged else (queue.expected.uid, queue.expected.gid)
    texts += state_differences(state_dir_of(queue.row.root), owner)
    return [Finding("installation", text) for text in texts]


def _warnings(rows: Sequence[ProcessRow], reports: Sequence[Report]) -> list[str]:
    out = []
    if any(not row.privileged for row in rows):
        out.append("unprivileged mode: processes share one user, nothing is chrooted; not for real mail")
    out += osdep.system_warnings()
    if any(r.seen is not None and r.seen.descriptors is None for r in reports):
        out.append("descriptors are not visible without root, and were not compared")
    return out


def _facts(report: Report) -> list[tuple[str, str, str]]:
    """Name, what was seen, what is declared: the lines of one process."""
    seen, expected = report.seen, report.expected
    if seen is None:
        return []
    policy = expected.policy
    own = policy.confined
    out = [
        ("user", _user_text(seen.uids), _user_text((expected.uid,))),
        ("groups", ids_text((*seen.gids, *seen.groups)), ids_text((expected.gid, *expected.groups))),
        ("root", seen.root or "not visible", expected.root if policy.root != "any" and expected.privileged else "any"),
    ]
    if expected.system == "linux":
        held = seen.capabilities or {}
        shown = " ".join(f"{name}={held[name]:x}" for name in CAPABILITY_SETS if name in held)
        empty = "none" if expected.privileged else "none (bounding: any)"
        out += [
            ("capabilities", shown if any(held.values()) else "none", empty if own else "any"),
            ("seccomp", SECCOMP_NAMES.get(seen.seccomp or 0, str(seen.seccomp)), "filter" if own else "any"),
            ("no_new_privs", _yes(seen.no_new_privs), "yes" if own else "any"),
            ("dumpable", _yes(seen.dumpable), "no" if own else "any"),
        ]
    if expected.system == "openbsd":
        promises = " ".join(grant.name for grant in policy.promises)
        out.append(("pledge", _yes(seen.pledged), f"yes ({promises})" if own else "any"))
    if expected.system == "freebsd":
        out.append(("capsicum", _yes(seen.capability_mode), "yes" if policy.capsicum.enter else "any"))
    limits = seen.limits or {}
    for limit in policy.limits:
        soft, hard = limits.get(limit.resource, (0, 0))
        out.append((f"limit {limit.resource}", f"{soft}/{hard}", f"at most {limit.value}"))
    counted = kinds(expected, seen.descriptors or ())
    shown = " ".join(f"{kind}={number}" for kind, number in counted.items())
    out += [
        ("descriptors", shown if seen.descriptors is not None else "not visible", " ".join(sorted(policy.kinds))),
        ("title", seen.title, expected.title),
        ("executable", seen.executable or "not visible", expected.executable or "any"),
    ]
    return out


def _user_text(uids: Sequence[int]) -> str:
    names = []
    for uid in sorted(set(uids)):
        try:
            names.append(f"{pwd.getpwuid(uid).pw_name} ({uid})")
        except (KeyError, OverflowError):
            names.append(str(uid))
    return " ".join(names)


def _yes(value: bool | None) -> str:
    return {True: "yes", False: "no", None: "not visible"}[value]


def _program_facts(report: ProgramReport) -> list[tuple[str, str, str]]:
    seen, row = report.seen, report.row
    if seen is None:
        return []
    who = (row.user, row.group) if row.privileged else ("the starter", "the starter's")
    return [
        ("user", _user_text(seen.uids), who[0]),
        ("groups", ids_text((*seen.gids, *seen.groups)), who[1]),
        ("root", seen.root or "not visible", row.root or "/"),
        ("executable", seen.executable or "not visible", "as smtpd.conf says"),
    ]


def _print(
    reports: Sequence[Report],
    programs: Sequence[ProgramReport],
    general: Sequence[Finding],
    warnings: Sequence[str],
    count: int,
    out: TextIO,
) -> None:
    for report in reports:
        verdict = "differs" if report.findings else "as declared"
        row = report.row
        generation = f", generation {row.generation}" if row.process in (*GENERATION, Process.AGENT) else ""
        out.write(f"{row.process.title} (pid {row.pid}{generation}): {verdict}\n")
        for name, seen, declared in _facts(report):
            out.write(f"  {name:<13} {seen:<40} declared: {declared}\n")
        for finding in report.findings:
            out.write(f"  DIFFERS {finding.line}: {finding.text}\n")
    for program in programs:
        about = program.row
        verdict = "differs" if program.findings else "as declared"
        out.write(f"{about.kind} {about.name} (pid {about.pid}, generation {about.index}): {verdict}\n")
        for name, shown, declared in _program_facts(program):
            out.write(f"  {name:<13} {shown:<40} declared: {declared}\n")
        for finding in program.findings:
            out.write(f"  DIFFERS {finding.line}: {finding.text}\n")
    for finding in general:
        out.write(f"DIFFERS {finding.line}: {finding.text}\n")
    for warning in warnings:
        out.write(f"warning: {warning}\n")
    verdict = f"{count} differences" if count else "all as declared"
    out.write(f"audit: {len(reports) + len(programs)} processes, {verdict}\n")


def _as_json(
    reports: Sequence[Report], programs: Sequence[ProgramReport], general: Sequence[Finding], warnings: Sequence[str]
) -> dict[str, Any]:
    return {
        "ok": not general and not any(_all_findings(reports, programs)),
        "processes": [
            {
                "process": report.row.process.title,
                "generation": report.row.generation,
                "pid": report.row.pid,
                "ok": not report.findings,
                "lines": [{"name": n, "seen": s, "declared": d} for n, s, d in _facts(report)],
                "findings": [{"line": f.line, "text": f.text} for f in report.findings],
            }
            for report in reports
        ],
        "programs": [
            {
                "kind": report.row.kind,
                "name": report.row.name,
                "index": report.row.index,
                "pid": report.row.pid,
                "ok": not report.findings,
                "lines": [{"name": n, "seen": s, "declared": d} for n, s, d in _program_facts(report)],
                "findings": [{"line": f.line, "text": f.text} for f in report.findings],
            }
            for report in programs
        ],
        "findings": [{"line": f.line, "text": f.text} for f in general],
        "warnings": list(warnings),
    }
