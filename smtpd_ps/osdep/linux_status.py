"""Reading /proc/PID/status: users, groups, capabilities, seccomp, no_new_privs.

Runs in a child for its self-check and in smtpctl_ps. Parses only what the kernel wrote.
"""

from dataclasses import dataclass

_CAPABILITY_LINES = {
    "CapInh": "inheritable",
    "CapPrm": "permitted",
    "CapEff": "effective",
    "CapBnd": "bounding",
    "CapAmb": "ambient",
}


@dataclass(frozen=True, slots=True)
class Status:
    """The lines of /proc/PID/status that matter here."""

    uids: tuple[int, ...]
    gids: tuple[int, ...]
    groups: tuple[int, ...]
    capabilities: dict[str, int]
    seccomp: int | None
    no_new_privs: bool | None
    threads: int
    parent: int
    state: str


def parse_status(text: str) -> Status:
    """Raises KeyError, ValueError where a line that every kernel has is missing."""
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    seccomp, no_new_privs = lines.get("Seccomp"), lines.get("NoNewPrivs")
    return Status(
        uids=tuple(map(int, lines["Uid"].split())),
        gids=tuple(map(int, lines["Gid"].split())),
        groups=tuple(map(int, lines["Groups"].split())),
        capabilities={name: int(lines[key], 16) for key, name in _CAPABILITY_LINES.items()},
        seccomp=None if seccomp is None else int(seccomp),
        no_new_privs=None if no_new_privs is None else int(no_new_privs) == 1,
        threads=int(lines["Threads"]),
        parent=int(lines["PPid"]),
        state=lines["State"].split()[0],
    )
