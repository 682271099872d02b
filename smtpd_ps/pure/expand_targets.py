"""Comma lists of where mail goes: values of alias and virtual tables, lines of .forward files (aliases(5)).

Runs in lookup, on table values and on what users write.
"""

from dataclasses import dataclass
from typing import Literal

from smtpd_ps.pure.address import MAX_DOMAIN, MAX_LOCAL

_ALNUM = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_USER = _ALNUM | frozenset("_.-+")
_LOCAL = _ALNUM | frozenset("!#$%*/?|^{}`~&'+-=_.")
_DOMAIN = _ALNUM | frozenset("-.")
MAX_PROGRAM = 2000  # characters of a path or command; an envelope holds a few more

TargetKind = Literal["user", "address", "error", "file", "command", "include"]


class TargetError(ValueError):
    """A value that is no list of targets."""


@dataclass(frozen=True, slots=True)
class Target:
    """One element. `text` is the user, the address, "NNN text", the path or the command."""

    kind: TargetKind
    text: str


def parse_targets(value: str) -> tuple[Target, ...]:
    """The targets of a table value, in order, each once. Raises TargetError."""
    if _USER.issuperset(value) and value:
        return (Target("user", value),)  # nearly all there are
    seen: dict[Target, None] = {}
    for part in _split(value):
        text = part.strip(" \t\n\v\f\r")
        if text:
            seen[_target(text)] = None
    return tuple(seen)


def _split(value: str) -> list[str]:
    """Cut at commas outside quotes; a backslash takes the next character as it is."""
    parts: list[str] = []
    out: list[str] = []
    quote = ""
    escaped = False
    for character in value:
        if escaped:
            escaped = False
        elif character == "\\":
            escaped = True
            continue
        elif character == "," and not quote:
            parts.append("".join(out))
            out.clear()
            continue
        elif quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        out.append(character)
    if quote or escaped:
        raise TargetError("a quote or a backslash without its end")
    parts.append("".join(out))
    return parts


def _target(text: str) -> Target:
    lower = text.lower()
    for prefix in (":error:", "error:"):
        if lower.startswith(prefix) and _is_reply(text[len(prefix) :]):
            return Target("error", text[len(prefix) :])
    for prefix in (":include:", "include:"):
        if lower.startswith(prefix + "/"):
            return Target("include", text[len(prefix) :])
    if text.startswith("|"):
        return Target("command", _program(text[1:]))
    if text.startswith('"|') and text.endswith('"') and len(text) > 2:
        return Target("command", _program(text[2:-1]))
    if text.startswith("/"):
        return Target("file", _program(text))
    local, at, domain = text.partition("@")
    if at and local and domain and _LOCAL.issuperset(local) and _DOMAIN.issuperset(domain):
        if len(local) > MAX_LOCAL or len(domain) > MAX_DOMAIN:
            raise TargetError("the address is too long")
        return Target("address", text)
    if _USER.issuperset(text):
        return Target("user", text)
    raise TargetError(f"expected a user, an address, a file, a command or error:NNN text instead of {text!r}")


def _program(text: str) -> str:
    if not text.strip():
        raise TargetError("a command without words")
    if len(text) > MAX_PROGRAM or not text.replace("\t", " ").isprintable():
        raise TargetError("the path or command is too long, or has a control character")
    return text


def _is_reply(text: str) -> bool:
    return (
        len(text) >= 5
        and text.isascii()
        and text.isprintable()
        and text[0] in "45"
        and text[1] in "0123456789"
        and text[2] in "0123456789"
        and text[3] == " "
        and text[4] in _ALNUM
    )
