"""smtpd-filters(7): the lines that filter programs are sent, and those that they send.

Runs in lookup; parses what programs of the operator's write, which may quote strangers. A line is
fields between "|", of which the last may hold any. Numbers of sessions and tokens are hexadecimal.
"""

from dataclasses import dataclass
from typing import Literal

from smtpd_ps.contract.settings import FILTER_EVENTS, FILTER_PHASES, FilterEvent, FilterPhase

VERSION = "0.7"
Subsystem = Literal["smtp-in", "smtp-out"]
MAX_QUOTED = 100  # characters of a bad line, in the log
_NEVER_ASKED = ("help", "wiz")  # OpenSMTPD takes them at registration
_EVENTS: dict[str, int] = {event: 1 << index for index, event in enumerate(FILTER_EVENTS)}
_PHASES: dict[str, int] = {phase: 1 << index for index, phase in enumerate(FILTER_PHASES)}
_ALL_EVENTS = (1 << len(FILTER_EVENTS)) - 1

Answer = Literal["proceed", "junk", "reject", "disconnect", "rewrite", "report"]
_ANSWERS: dict[str, tuple[Answer, bool]] = {  # and whether a parameter follows
    "proceed": ("proceed", False),
    "junk": ("junk", False),
    "reject": ("reject", True),
    "disconnect": ("disconnect", True),
    "rewrite": ("rewrite", True),
    "report": ("report", True),
}


class FilterProtocolError(ValueError):
    """A line that no program may write (there)."""


@dataclass(frozen=True, slots=True)
class Register:
    """What the program wants: bits of FILTER_PHASES and FILTER_EVENTS; `ready` when it has said all.

    `outgoing` are events too, of smtp-out.
    """

    phases: int = 0
    events: int = 0
    ready: bool = False
    outgoing: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """The answer to a request."""

    session: int
    token: int
    answer: Answer
    text: str = ""


@dataclass(frozen=True, slots=True)
class DataLine:
    """A line of the message, dots doubled; "." ends it."""

    session: int
    token: int
    line: bytes


@dataclass(frozen=True, slots=True)
class Told:
    """A report of the program's own."""

    session: int
    text: str


def handshake(
    version: str, timeout_secs: int, admd: str, subsystems: tuple[Subsystem, ...] = ("smtp-in",)
) -> tuple[bytes, ...]:
    """What a program is told before it registers."""
    lines = (
        f"config|smtpd-version|{version}",
        f"config|protocol|{VERSION}",
        f"config|smtp-session-timeout|{timeout_secs}",
        *(f"config|subsystem|{subsystem}" for subsystem in subsystems),
        f"config|admd|{admd}",
        "config|ready",
    )
    return tuple(line.encode() for line in lines)


def request(now_secs: float, phase: FilterPhase, session: int, token: int, *parameters: str) -> bytes:
    """A request; one without a parameter ends in "|" (QUIRKS 55)."""
    return b"filter" + _middle(now_secs, phase, session) + b"|%016x|" % token + _joined(parameters)


def data_prefix(now_secs: float, session: int, token: int) -> bytes:
    """What stands before each line of a message."""
    return request(now_secs, "data-line", session, token)


def report(
    now_secs: float, event: FilterEvent, session: int, *parameters: str, subsystem: Subsystem = "smtp-in"
) -> bytes:
    """A report."""
    line = b"report" + _middle(now_secs, event, session, subsystem)
    return line + b"|" + _joined(parameters) if parameters else line


def _middle(now_secs: float, what: str, session: int, subsystem: Subsystem = "smtp-in") -> bytes:
    usecs = int(now_secs * 1_000_000)
    return f"|{VERSION}|{usecs // 1_000_000}.{usecs % 1_000_000:06}|{subsystem}|{what}|{session:016x}".encode()


def _joined(parameters: tuple[str, ...]) -> bytes:
    return "|".join(map(_clean, parameters)).encode(errors="replace")


def _clean(text: str) -> str:
    """`text` without anything that would end the line."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def parse_registration(line: bytes) -> Register:
    """A line before the program is ready. Raises FilterProtocolError."""
    match _text(line).split("|"):
        case ["register", "ready"]:
            return Register(ready=True)
        case ["register", "report", "smtp-in", "*"]:
            return Register(events=_ALL_EVENTS)
        case ["register", "report", "smtp-in", event] if event in _EVENTS:
            return Register(events=_EVENTS[event])
        case ["register", "filter", "smtp-in", phase] if phase in _PHASES:
            return Register(phases=_PHASES[phase])
        case ["register", "filter", "smtp-in", phase] if phase in _NEVER_ASKED:
            return Register()
        case ["register", "report", "smtp-out", "*"]:
            return Register(outgoing=_ALL_EVENTS)
        case ["register", "report", "smtp-out", event] if event in _EVENTS:
            return Register(outgoing=_EVENTS[event])
    raise FilterProtocolError(f"not a registration: {quoted(line)}")


def parse(line: bytes) -> Result | DataLine | Told:
    """A line of a program that is ready. Raises FilterProtocolError."""
    kind, _, rest = line.partition(b"|")
    if kind == b"filter-dataline":
        fields = rest.split(b"|", 2)
        if len(fields) == 3:
            return DataLine(_number(fields[0], line), _number(fields[1], line), fields[2])
    elif kind == b"filter-result":
        fields = rest.split(b"|", 3)
        if len(fields) >= 3:
            known = _ANSWERS.get(_text(fields[2]))
            if known is not None and (len(fields) == 4 or not known[1]):
                text = _text(fields[3]) if known[1] else ""
                return Result(_number(fields[0], line), _number(fields[1], line), known[0], text)
    elif kind == b"report":
        fields = rest.split(b"|", 3)
        if len(fields) == 4 and fields[1] == b"smtp-in":
            return Told(_number(fields[2], line), _text(fields[3]))
    raise FilterProtocolError(f"not a line of smtpd-filters(7): {quoted(line)}")


def _number(field: bytes, line: bytes) -> int:
    try:
        if len(field) > 16 or not field.isalnum():
            raise ValueError
        return int(field, 16)
    except ValueError:
        raise FilterProtocolError(f"not a session and a token: {quoted(line)}") from None


def _text(field: bytes) -> str:
    return _clean(field.removesuffix(b"\r").decode(errors="replace"))


def quoted(line: bytes) -> str:
    """The beginning of a line for the log."""
    return f'"{_text(line[:MAX_QUOTED])}"'


def data_line(line: bytes) -> bytes:
    """A line as a program wrote it, as it may stand in a message: no CR, no NUL."""
    line = line.removesuffix(b"\r")
    return line.translate(None, b"\r\0") if b"\r" in line or b"\0" in line else line
