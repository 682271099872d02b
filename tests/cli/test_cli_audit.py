"""`smtpctl_ps audit` while processes come and go."""

import io
import json
import os

from smtpd_ps.cli.audit import run
from smtpd_ps.contract.messages import ProcessRow
from smtpd_ps.contract.routes import CHILDREN
from smtpd_ps.contract.values import Process
from smtpd_ps.pure.audit import Observation


def rows(generation: int, gone: bool) -> list[ProcessRow]:
    """A whole daemon; with `gone`, an old generation besides."""
    found = [ProcessRow(0, Process.PARENT, 0, 100, "", "", False)]
    for process in CHILDREN:
        found.append(ProcessRow(0, process, generation, 200 + process, "", "", False))
    if gone:
        for process in (Process.KEYS, Process.SMTP, Process.LOOKUP, Process.DELIVERY):
            found.append(ProcessRow(0, process, generation - 1, 300 + process, "", "", False))
    return found


def inspect(pid: int) -> Observation:
    """Processes of the old generation are gone."""
    if pid >= 300:
        raise ProcessLookupError
    return Observation(pid, (os.getuid(),), (os.getgid(),), (), None)


def gone_findings(*answers: list[ProcessRow]) -> int:
    """How often "it is gone" is said when the daemon gives these answers, one after the other."""
    left = list(answers)
    out = io.StringIO()
    run(lambda: left.pop(0) if len(left) > 1 else left[0], True, out, inspect)
    report = json.loads(out.getvalue())
    return sum("gone" in finding["text"] for process in report["processes"] for finding in process["findings"])


def test_an_old_generation_that_ends_during_the_audit_is_no_finding() -> None:
    """What the daemon does not name any more is not missed; what it still names is."""
    assert gone_findings(rows(1, gone=True), rows(1, gone=False)) == 0
    assert gone_findings(rows(1, gone=True)) == 4
