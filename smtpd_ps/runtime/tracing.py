"""Traces: what each subsystem does, in the log, for as long as the operator wants to see it.

Runs in every process. Off, a trace costs one look at `mask`:

    if tracing.mask & tracing.SMTP:
        tracing.write("smtp", f"<<< {line}")

A trace quotes strangers as other log lines do (escaped), and never a password, a key or a message's body.
`profile` measures in the same way: how long a message's handler, or a transaction of the queue, took.
"""

from collections.abc import Callable
from time import perf_counter

IMSG, IO, SMTP, FILTERS, MTA, BOUNCE, SCHEDULER, LOOKUP = (1 << n for n in range(8))
STAT, RULES, MPROC, EXPAND, TABLES, QUEUE = (1 << n for n in range(8, 14))
PROFILE_IMSG, PROFILE_QUEUE = 1 << 14, 1 << 15

SUBSYSTEMS: dict[str, int] = {
    "imsg": IMSG, "io": IO, "smtp": SMTP, "filters": FILTERS, "mta": MTA, "transfer": MTA, "bounce": BOUNCE,
    "scheduler": SCHEDULER, "lookup": LOOKUP, "stat": STAT, "rules": RULES, "mproc": MPROC, "expand": EXPAND,
    "tables": TABLES, "queue": QUEUE, "all": (1 << 14) - 1,
}  # fmt: skip
PROFILES: dict[str, int] = {"imsg": PROFILE_IMSG, "queue": PROFILE_QUEUE}
_IN_LINES = (b"AUTH ", b"MAIL ", b"RCPT ", b"EHLO ", b"HELO ", b"LHLO ")

mask = 0  # what is traced, for the log or for an operator who watches
_logged = _watched = 0
clock = perf_counter


def _nowhere(_text: str) -> None:
    """Before there is a log."""


_watcher: Callable[[str], None] = _nowhere

_log: Callable[[str], None] = _nowhere


def attach(log: Callable[[str], None]) -> None:
    """Where lines go."""
    global _log
    _log = log


def set_mask(value: int) -> None:
    """What is traced from now on."""
    global mask, _logged
    _logged = value
    mask = _logged | _watched


def follow(value: int, watcher: Callable[[str], None]) -> None:
    """What `watcher` hears from now on, whether or not it is logged (runtime/following)."""
    global mask, _watched, _watcher
    _watched, _watcher = value, watcher
    mask = _logged | _watched


def names(value: int) -> tuple[str, ...]:
    """The subsystems of a mask."""
    traced = [name for name, bits in SUBSYSTEMS.items() if name not in ("transfer", "all") and value & bits]
    return (*traced, *(f"profile-{name}" for name, bits in PROFILES.items() if value & bits))


def write(subsystem: str, text: str) -> None:
    """A line; the caller has looked at `mask`."""
    if _watched and not SUBSYSTEMS.get(subsystem, _logged) & _logged:
        _watcher(f"{subsystem}: {text}")
    else:
        _log(f"{subsystem}: {text}")  # which the watcher hears too, where there is one


def commands(data: bytes) -> str:
    """SMTP commands for a trace: passwords left out, and anything that is no command as its size."""
    lines = data.split(b"\r\n")
    shown = []
    for line in lines[:50]:
        word = line[:5].upper()
        if word == b"AUTH ":
            shown.append(" ".join(line.decode("ascii", "replace").split()[:2]) + " ***")
        elif word.startswith(_IN_LINES) or line.upper() in (b"DATA", b"QUIT", b"RSET", b"STARTTLS", b"NOOP"):
            shown.append(line.decode("utf-8", "replace"))
        elif line:
            shown.append(f"({len(line)} bytes)")
    return " | ".join(shown)
