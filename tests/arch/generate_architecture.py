"""Writes the tables of docs/ARCHITECTURE.md that come from smtpd_ps/contract.

usage: generate_architecture.py [--check]      (make docs; --check changes nothing and ends 1 when stale)
Each table stands between `<!-- generated: NAME -->` and `<!-- end -->`.
"""

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from smtpd_ps.contract.policy import POLICIES, RUNNER, SCOPES, SUBMITTER, Grant, Policy
from smtpd_ps.contract.routes import ROUTES, Route
from smtpd_ps.contract.values import Phase, Process

DOCUMENT = Path(__file__).parents[2] / "docs" / "ARCHITECTURE.md"
_BLOCK = re.compile(r"(<!-- generated: ([a-z-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_PHASES = {Phase.SETUP: "setup", Phase.RUN: "run", Phase.DRAIN: "drain"}


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    names = list(head)
    lines = ["| " + " | ".join(names) + " |", "|" + " --- |" * len(names)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def size(value: int) -> str:
    """A bound in the unit that fits."""
    for unit, factor in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if value % factor == 0:
            return f"{value // factor} {unit}"
    return f"{value} B"


def hops(route: Route) -> str:
    """Who may send it to whom: `queue -> smtp`, senders with the same receivers together."""
    receivers: dict[Process, tuple[str, ...]] = {}
    for sender, receiver in route.hops:
        receivers[sender] = (*receivers.get(sender, ()), receiver.title)
    senders: dict[tuple[str, ...], list[str]] = {}
    for sender, names in receivers.items():
        senders.setdefault(names, []).append(sender.title)
    return "; ".join(f"{', '.join(said)} -> {', '.join(names)}" for names, said in senders.items())


def phases(route: Route) -> str:
    """The phases, by name."""
    return ", ".join(name for phase, name in _PHASES.items() if route.phase & phase)


def messages() -> str:
    """Every message: number, name, who to whom, when, largest payload, descriptors, answer."""
    return table(
        ("no.", "message", "sender -> receiver", "phase", "at most", "descriptors", "answered by"),
        (
            (
                str(route.number),
                route.message.__name__,
                hops(route),
                phases(route),
                size(route.max_bytes),
                ", ".join(route.fds),
                route.answer,
            )
            for route in ROUTES
        ),
    )


def matrix() -> str:
    """Who may say anything to whom at run time: the number of messages, by sender and receiver."""
    present = [process for process in Process if any(process in hop for route in ROUTES for hop in route.hops)]

    def count(sender: Process, receiver: Process) -> str:
        number = sum((sender, receiver) in route.hops and bool(route.phase & ~Phase.SETUP) for route in ROUTES)
        return str(number) if number else ""

    rows = ((f"**{sender.title}**", *(count(sender, receiver) for receiver in present)) for sender in present)
    return table(("from \\ to", *(process.title for process in present)), rows)


def names(grants: Iterable[Grant]) -> str:
    """The names of grants."""
    return ", ".join(grant.name for grant in grants) or "-"


def policies() -> str:
    """One row a process: what the kernel lets it do."""

    def row(policy: Policy) -> tuple[str, ...]:
        return (
            f"**{policy.process.title}**",
            policy.user or "the mail user",
            {"any": "/", "empty": "an empty directory", "spool": "the spool"}[policy.root],
            names(policy.syscalls),
            ", ".join(f"{grant.access} {grant.path}" for grant in policy.paths) or "-",
            names(policy.tcp),
            names(policy.promises),
            "yes" if policy.capsicum.enter else "no",
            ", ".join(f"{limit.resource} {limit.value}" for limit in policy.limits) or "-",
            names(policy.descriptors),
        )

    head = (
        "process", "user", "root directory", "system calls (groups)", "files", "TCP", "pledge(2)", "Capsicum",
        "limits", "descriptors it may hold",
    )  # fmt: skip
    note = f"Every confined process also has, where the kernel knows them, the Landlock scopes {names(SCOPES)}.\n"
    return table(head, (row(policy) for policy in (*POLICIES.values(), RUNNER, SUBMITTER))) + "\n" + note


def reasons() -> str:
    """Why each grant is given, process by process."""

    def lines(policy: Policy) -> Iterable[str]:
        yield f"**{policy.process.title}**"
        yield ""
        named: list[tuple[str, str]] = []
        for kind, grants in (("descriptor", policy.descriptors), ("calls", policy.syscalls), ("tcp", policy.tcp),
                             ("pledge", policy.promises)):  # fmt: skip
            named += [(f"{kind} {grant.name}", grant.why) for grant in grants]
        named += [(f"{path.access} {path.path}", path.why) for path in policy.paths]
        named += [(f"limit {limit.resource} {limit.value}", limit.why) for limit in policy.limits]
        named.append(("capsicum" if policy.capsicum.enter else "no capsicum", policy.capsicum.why))
        yield from (f"- `{name}`: {why}" for name, why in named)
        yield ""

    return "\n".join(line for policy in (*POLICIES.values(), RUNNER, SUBMITTER) for line in lines(policy))


TABLES: dict[str, Callable[[], str]] = {
    "messages": messages,
    "matrix": matrix,
    "policies": policies,
    "reasons": reasons,
}


def generate(text: str) -> str:
    """`text` with every table made anew. Raises KeyError for a name that is not in TABLES."""
    return _BLOCK.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[4]}", text)


def main(arguments: list[str]) -> int:
    """Write the document, or say that it is stale."""
    before = DOCUMENT.read_text(encoding="utf-8")
    after = generate(before)
    if before == after:
        return 0
    if "--check" in arguments:
        print("docs/ARCHITECTURE.md is stale: run `make docs`", file=sys.stderr)
        return 1
    DOCUMENT.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
