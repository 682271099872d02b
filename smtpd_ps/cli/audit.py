"""`smtpctl_ps audit`: every live process beside its declared policy, and what differs.

Runs as root in smtpctl_ps; reads what the kernel shows, and the process table that the parent
gave through the control socket. The comparison is pure/audit.
"""

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
from smtpd_ps.contract.messages import ProcessRow
from smtpd_ps.contract.policy import POLICIES
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
    set_findings,
)

_WANTED = (Process.PARENT, *CHILDREN)
_EXTRA_PATIENCE_SECS = 0.5
_LOOKS = 5
_HELPERS = ("smtpd_ps.parent.system_auth",)  # one password check each, with a deadline

Inspect = Callable[[int], Observation]


@dataclass(slots=True)
class Report:
    """One process: what it is, what was seen (None: it is gone), what differs."""

    row: ProcessRow
    expected: Expected
    seen: Observation | None
    findings: list[Finding] = field(default_factory=list)


def run(ask: Callable[[], Sequence[ProcessRow]], json: bool, out: TextIO, inspect: Inspect = osdep.inspect) -> int:
    """Print the audit of the processes that `ask` names; 0 when all is as declared, 1 when not.

    Where something differs and a reload has changed the set of processes meanwhile, all are looked at again.
    """
    rows = ask()
    for _ in range(_LOOKS):
        reports = examine(rows, inspect)
        general = list(set_findings(_declared(rows), Counter(r.row.process for r in reports if r.seen is not None)))
        general += _extra_processes(rows)
        count = len(general) + sum(len(report.findings) for report in reports)
        if not count or _core(rows) == _core(rows := ask()):
            break
    installation = _installation(reports)
    general += installation
    count += len(installation)
    warnings = _warnings([report.row for report in reports], reports)
    if json:
        json_text.dump(_as_json(reports, general, warnings), out, indent=1)
        out.write("\n")
    else:
        _print(reports, general, warnings, count, out)
    return 1 if count else 0


def _core(rows: Sequence[ProcessRow]) -> set[int]:
    return {row.pid for row in rows if row.process is not Process.AGENT}


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
    policy = POLICIES[row.process]
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


def _extra_processes(rows: Sequence[ProcessRow]) -> list[Finding]:
    """Processes started by the daemon's that the parent did not name. Short-lived ones get a moment."""
    known = {row.pid for row in rows}
    extra = _started_by(known)
    if extra:
        time.sleep(_EXTRA_PATIENCE_SECS)
        extra &= _started_by(known)
    out = []
    for pid in sorted(extra):
        try:
            title = osdep.inspect(pid).title
        except ProcessLookupError:
            continue
        if not any(title.endswith(helper) for helper in _HELPERS):
            out.append(Finding("processes", f"process {pid} ({title}) was started and is not declared"))
    return out


def _started_by(known: set[int]) -> set[int]:
    return {pid for pid, parent in osdep.processes().items() if parent in known and pid not in known}


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


def _print(
    reports: Sequence[Report], general: Sequence[Finding], warnings: Sequence[str], count: int, out: TextIO
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
    for finding in general:
        out.write(f"DIFFERS {finding.line}: {finding.text}\n")
    for warning in warnings:
        out.write(f"warning: {warning}\n")
    out.write(f"audit: {len(reports)} processes, {f'{count} differences' if count else 'all as declared'}\n")


def _as_json(reports: Sequence[Report], general: Sequence[Finding], warnings: Sequence[str]) -> dict[str, Any]:
    return {
        "ok": not general and not any(report.findings for report in reports),
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
        "findings": [{"line": f.line, "text": f.text} for f in general],
        "warnings": list(warnings),
    }
