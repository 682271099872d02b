"""Tables: the file format of table(5), and tables as values.

Runs in lookup, on the bytes of files that the parent opened. A file is a list (one key a line)
or a map (`key[:] value`); its first entry decides, or a `# @list` comment before it. Keys are
case-insensitive and kept in lower case (QUIRKS 24). Values go on in further lines (aliases(5)).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from smtpd_ps.contract.settings import TableSettings

MAX_TABLE_BYTES = 64 * 1024 * 1024
MAX_KEY = 1023  # characters; OpenSMTPD's buffer
MAX_VALUE = 2047
MAX_ERRORS = 20  # named; more of them say nothing new
_BLANK = b" \t\n\v\f\r"  # isspace(3) in the C locale
_VALUE = re.compile(rb"[ \t:].")  # a line of a mapping has one

TableKind = Literal["list", "map"]
_WRONG_KIND = {  # what the first entry of a file makes it, and is not wanted
    "map": 'a key and a value, where a list is needed, one key a line ("# @list" above says that it is one)',
    "list": 'a key without a value, where a mapping is needed ("key: value")',
}


class TableError(ValueError):
    """A table file that cannot be used. `errors` are lines of `path:line: what is wrong`."""

    def __init__(self, errors: tuple[str, ...]) -> None:
        super().__init__("; ".join(errors))
        self.errors = errors


class TableUnreadable(Exception):
    """A database that was good when it was opened cannot be read any more, or a program cannot say; the
    text is for the log.
    """


@dataclass(frozen=True, slots=True)
class Table:
    """One table: `entries` by lower-case key, with "" as the values of a list.

    Of a database `entries` reads from the file what is asked for, so nobody goes through all of it:
    `patterns` are those keys that match more than what equals them, `hash_starts` what the password hashes
    among its values begin with. Reading may raise TableUnreadable.
    """

    name: str
    kind: TableKind
    entries: Mapping[str, str]
    patterns: tuple[str, ...] | None = None  # None: all entries are in memory
    hash_starts: tuple[str, ...] = ()

    def get(self, key: str) -> str | None:
        """The value of `key` in any case; None where there is none."""
        return self.entries.get(key.lower())

    def serving(self, service: str) -> "Table":
        """The table as it is asked for a service: itself, unless a program answers (pure/table_program)."""
        return self


def from_settings(settings: TableSettings) -> Table:
    """The table written inline in smtpd.conf."""
    return Table(settings.name, settings.kind, {key.lower(): value for key, value in settings.entries})


def parse_table(
    name: str,
    data: bytes,
    path: str,
    kind: TableKind | None = None,
    check: Callable[[str, str], str] | None = None,
    kinds: tuple[TableKind, ...] = ("list", "map"),
) -> Table:
    """The table in the file `data`; `path` is for messages.

    Without a `kind` the file says it, which must be one of `kinds`; an empty one has whichever is wanted,
    and is rather a map. Of two entries with one key the later holds. `check` gives the key to store, or
    raises ValueError for a key or value that the table's use does not allow. Raises TableError that names
    every bad line (up to MAX_ERRORS).
    """
    if len(data) > MAX_TABLE_BYTES:
        raise TableError((f"{path}: larger than {MAX_TABLE_BYTES} bytes",))
    entries: dict[str, str] = {}
    errors: list[str] = []
    raw = data.split(b"\n")
    below = 0  # the line that comes next
    while below < len(raw):
        line = raw[below].strip(_BLANK)
        below += 1
        number = below
        if not line:
            continue
        if line.startswith(b"#"):
            if kind is None and line[1:].lstrip(_BLANK) == b"@list":
                kind = "list"
                if kind not in kinds:
                    errors.append(f"{path}:{number}: this makes the table a list, where a mapping is needed")
                    break
            continue
        while kind != "list" and below < len(raw) and goes_on(line, raw[below]):
            line += b" " + raw[below].strip(_BLANK)
            below += 1
        try:
            this, key, value = parse_entry(line, kind)
            if kind is None:
                kind = this
                if kind not in kinds:
                    errors.append(f"{path}:{number}: {_WRONG_KIND[kind]}")
                    break
            if check is not None:
                key = check(key, value)
            entries[key.lower()] = value
        except ValueError as error:
            errors.append(f"{path}:{number}: {error}")
            if len(errors) == MAX_ERRORS:
                break
    if errors:
        raise TableError(tuple(errors))
    if kind is None:
        kind = "map" if "map" in kinds else "list"
    return Table(name, kind, entries)


def goes_on(line: bytes, following: bytes) -> bool:
    """Whether an indented line belongs to a mapping's line before it: a comma ends that or begins this (aliases(5))."""
    more = following.strip(_BLANK)
    if not more or following[:1] not in b" \t" or more.startswith(b"#"):
        return False
    return (line.endswith(b",") or more.startswith(b",")) and _VALUE.search(line) is not None


def parse_entry(line: bytes, kind: TableKind | None) -> tuple[TableKind, str, str]:
    """Kind, key and value of a line without blanks around it; without a `kind` the line says it. Raises ValueError."""
    text = _decode(line)
    cut = _key_end(text)
    if kind is None:
        kind = "list" if cut == len(text) else "map"
    return (kind, *_entry(text, cut, kind))


def _decode(line: bytes) -> str:
    try:
        text = line.decode()
    except UnicodeDecodeError:
        raise ValueError("not UTF-8 text") from None
    if "\0" in text:
        raise ValueError("a NUL byte")
    return text


def _key_end(text: str) -> int:
    """Where the key ends: at a blank or colon, or behind the bracket of "[::1]"."""
    if text.startswith("["):
        end = text.find("]")
        if end < 0:
            raise ValueError("expected ] after the address")
        return end + 1
    for at, character in enumerate(text):
        if character in " \t:":
            return at
    return len(text)


def _entry(text: str, cut: int, kind: TableKind) -> tuple[str, str]:
    if kind == "list":
        key, value = text, ""  # the whole line, blanks included
    else:
        key, value = text[:cut], text[cut + 1 :].lstrip(" \t")
        if not value:
            raise ValueError("expected a value after the key")
    if not key:
        raise ValueError("expected a key")
    if len(key) > MAX_KEY or len(value) > MAX_VALUE:
        raise ValueError("the line is too long")
    return key, value
