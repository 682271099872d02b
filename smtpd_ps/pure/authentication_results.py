"""The Authentication-Results field (RFC 8601): written, and recognized where somebody else wrote our name.

Pure; runs in filter-auth; parses header fields of any message.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

FIELD = b"authentication-results"
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~/-]+")
_VALUE = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`{|}~/@-]+")


@dataclass(frozen=True, slots=True)
class MethodResult:
    """One method: `properties` such as ("header.d", "example.org"), and a comment."""

    method: str
    result: str
    comment: str = ""
    properties: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        words = [f"{self.method}={self.result}"]
        if self.comment:
            words.append("(" + re.sub(r"[^ -'*-\[\]-~]", "?", self.comment) + ")")
        words += [f"{name}={quoted(value)}" for name, value in self.properties if value]
        return " ".join(words)


def quoted(value: str) -> str:
    """A value as it may stand in the field: as it is, or as a quoted string."""
    if _VALUE.fullmatch(value):
        return value
    clean = "".join(c if " " <= c <= "~" else "?" for c in value)
    return '"' + clean.replace("\\", "\\\\").replace('"', '\\"') + '"'


def written(authserv_id: str, results: Iterable[MethodResult]) -> bytes:
    """The field with CRLF, a line for each method."""
    lines = ";\r\n\t".join(map(str, results)) or "none"
    return f"Authentication-Results: {quoted(authserv_id)};\r\n\t{lines}\r\n".encode("ascii", "replace")


def authserv_id(value: bytes) -> str | None:
    """Who claims to have written a field, in lower case; None where it cannot be read."""
    text = value.decode("latin-1")
    at, depth = 0, 0
    while at < len(text):
        c = text[at]
        if depth or c == "(":
            if c == "\\":
                at += 1
            depth += (c == "(") - (c == ")")
        elif c not in " \t\r\n":
            break
        at += 1
    rest = text[at:]
    if rest.startswith('"'):
        found = re.match(r'"((?:[^"\\]|\\.)*)"', rest, re.S)
        return re.sub(r"\\(.)", r"\1", found[1]).strip().lower() if found else None
    token = _TOKEN.match(rest)
    return token[0].lower() if token else None


def without_ours(message: bytes | bytearray, ours: str) -> tuple[list[memoryview], int]:
    """The message in pieces, without the fields that claim to be `ours` or cannot be read; how many there were."""
    view = memoryview(message)
    pieces: list[memoryview] = []
    start = at = removed = 0
    while at < len(message) and not message.startswith(b"\r\n", at):
        end = _field_end(message, at)
        name, colon, value = bytes(view[at:end]).partition(b":")
        if colon and name.rstrip(b" \t").lower() == FIELD and authserv_id(value) in (ours.lower(), None):
            pieces.append(view[start:at])
            start = end
            removed += 1
        at = end
    pieces.append(view[start:])
    return [piece for piece in pieces if piece], removed


def _field_end(message: bytes | bytearray, at: int) -> int:
    """Where the field that begins at `at` ends, with the lines that continue it."""
    while True:
        end = message.find(b"\r\n", at)
        if end < 0:
            return len(message)
        at = end + 2
        if message[at : at + 1] not in (b" ", b"\t"):
            return at
