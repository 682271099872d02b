"""Files of targets: .forward (forward(5)) and the files that aliases include.

Runs in lookup. A .forward is any user's, and its bytes are hostile; an included file is the
operator's, or of whoever keeps a list. Neither includes another (QUIRKS 32).
"""

from dataclasses import dataclass

from smtpd_ps.pure.expand_targets import Target, TargetError, parse_targets

MAX_FORWARD_BYTES = 4096  # that many are too many
MAX_FORWARD_TARGETS = 100
MAX_INCLUDE_BYTES = 1024 * 1024
MAX_INCLUDE_TARGETS = 10_000


@dataclass(frozen=True, slots=True)
class FileTargets:
    """The targets, in order and each once; `notes` say what was left out, with line numbers."""

    targets: tuple[Target, ...]
    notes: tuple[str, ...] = ()


def parse_forward(data: bytes) -> FileTargets:
    """The targets of a .forward. Raises TargetError: one bad line spoils the file."""
    if len(data) >= MAX_FORWARD_BYTES:
        raise TargetError(f"it has {MAX_FORWARD_BYTES} bytes or more")
    found: dict[Target, None] = {}
    notes: list[str] = []
    for number, line in _lines(data):
        try:
            targets = parse_targets(line)
        except TargetError as error:
            raise TargetError(f"line {number}: {error}") from None
        _add(found, notes, number, targets)
        if len(found) > MAX_FORWARD_TARGETS:
            raise TargetError(f"it names more than {MAX_FORWARD_TARGETS} targets")
    return FileTargets(tuple(found), tuple(notes))


def parse_include(data: bytes) -> FileTargets:
    """The targets of an included file; a line that is none is left out. Raises TargetError where there is too much."""
    if len(data) > MAX_INCLUDE_BYTES:
        raise TargetError(f"it has more than {MAX_INCLUDE_BYTES} bytes")
    found: dict[Target, None] = {}
    notes: list[str] = []
    for number, line in _lines(data):
        try:
            _add(found, notes, number, parse_targets(line))
        except TargetError as error:
            notes.append(f"line {number}: {error}")
        if len(found) > MAX_INCLUDE_TARGETS:
            raise TargetError(f"it names more than {MAX_INCLUDE_TARGETS} targets")
    return FileTargets(tuple(found), tuple(notes))


def _add(found: dict[Target, None], notes: list[str], number: int, targets: tuple[Target, ...]) -> None:
    for target in targets:
        if target.kind == "include":
            notes.append(f"line {number}: :include: is not allowed here: {target.text}")
        else:
            found[target] = None


def _lines(data: bytes) -> list[tuple[int, str]]:
    """The lines that say something, with the number of their first: `#` starts a comment, a backslash at
    the end goes on in the next line, and a backslash before either takes its meaning away. Raises TargetError.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise TargetError("it is not UTF-8 text") from None
    lines: list[tuple[int, str]] = []
    started, whole = 0, ""
    for number, physical in enumerate(text.split("\n"), 1):
        line = _uncommented(physical.removesuffix("\r"))
        started = started or number
        if line.endswith("\\") and not _escaped(line, len(line) - 1):
            whole += line[:-1]
            continue
        whole += line
        if whole.strip():
            lines.append((started, whole))
        started, whole = 0, ""
    if whole.strip():
        lines.append((started, whole))
    return lines


def _uncommented(line: str) -> str:
    at = line.find("#")
    while at >= 0 and _escaped(line, at):
        at = line.find("#", at + 1)
    return line if at < 0 else line[:at]


def _escaped(line: str, at: int) -> bool:
    """Whether an odd number of backslashes stands before this place."""
    before = line[:at]
    return (len(before) - len(before.rstrip("\\"))) % 2 == 1
