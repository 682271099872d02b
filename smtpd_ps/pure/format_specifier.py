"""Format specifiers: `%{rcpt.user[0:1]:lowercase}` in a path of smtpd.conf.

Pure; runs in agents when a message is stored and in the parent when the configuration is checked. What
goes into a command is made harmless by pure/command_line instead.
Expands addresses of strangers into file names, so whatever could mean something to a file system
or a shell becomes `:` (smtpd.conf(5) FORMAT SPECIFIERS; OpenSMTPD's mda_variables.c).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

NAMES = frozenset({
    "sender", "sender.user", "sender.domain",
    "rcpt", "rcpt.user", "rcpt.domain",
    "dest", "dest.user", "dest.domain",
    "user.username", "user.directory", "mbox.from",
})  # fmt: skip
MODIFIERS = frozenset({"lowercase", "uppercase", "strip", "raw"})
MAX_EXPANDED = 1024

_SPECIFIER = re.compile(r"%%|%\{([^}]*)\}")
_INSIDE = re.compile(r"([a-z.]+)(?:\[(-?\d{1,4})(?:(:)(-?\d{1,4})?)?\])?(?::([a-z|]+))?")
_UNSAFE = re.compile(r"[^A-Za-z0-9@.+=_^\[\](),;<>\"\u0080-\U0010ffff-]")


class FormatError(Exception):
    """A specifier that cannot be understood, or a path that it must not make."""


@dataclass(frozen=True, slots=True)
class Specifier:
    """One `%{...}`; `end` is None for an open range, and equals `begin` for a single character."""

    name: str
    begin: int = 0
    end: int | None = None
    single: bool = False
    modifiers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Format:
    """A parsed text: literal pieces and specifiers in turn."""

    parts: tuple[str | Specifier, ...]

    @property
    def constant(self) -> bool:
        """Whether no message changes it."""
        return all(isinstance(part, str) or part.name.startswith("user.") for part in self.parts)


def parse_format(text: str, more_names: frozenset[str] = frozenset()) -> Format:
    """Cut `text` into its parts; `%%` is a per cent sign. Raises FormatError, naming the specifier that is wrong.

    `more_names` may be used without substring and modifier, beside NAMES.
    """
    parts: list[str | Specifier] = []
    literal = ""
    at = 0
    for found in _SPECIFIER.finditer(text):
        between = text[at : found.start()]
        _check_literal(between, text)
        literal += between
        at = found.end()
        if found[0] == "%%":
            literal += "%"
            continue
        name = found[1].lower()
        parts += [literal, Specifier(name) if name in more_names else _parse_specifier(name)]
        literal = ""
    _check_literal(text[at:], text)
    parts.append(literal + text[at:])
    return Format(tuple(part for part in parts if part != ""))


def _check_literal(piece: str, text: str) -> None:
    if "%{" in piece:
        raise FormatError(f"a %{{ without its }} in {text}")


def _parse_specifier(inside: str) -> Specifier:
    found = _INSIDE.fullmatch(inside)
    if found is None:
        raise FormatError(f"%{{{inside}}} is not a format specifier")
    name, begin, colon, end, modifiers = found.groups()
    if name not in NAMES:
        raise FormatError(f"%{{{inside}}}: {name} is not known")
    words = tuple(modifiers.split("|")) if modifiers else ()
    if unknown := [word for word in words if word not in MODIFIERS]:
        raise FormatError(f"%{{{inside}}}: {unknown[0] or 'an empty word'} is not a modifier")
    return Specifier(name, int(begin or 0), int(end) if end else None, begin is not None and colon is None, words)


def address_values(sender: str, rcpt: str, dest: str) -> dict[str, str]:
    """The values that a message's addresses give."""
    out = {"mbox.from": sender or "MAILER-DAEMON"}
    for name, address in (("sender", sender), ("rcpt", rcpt), ("dest", dest)):
        user, at, domain = address.rpartition("@")
        out[name] = address
        out[f"{name}.user"] = user if at else domain
        out[f"{name}.domain"] = domain if at else ""
    return out


def expand(format_: Format, values: Mapping[str, str], delimiter: str = "+") -> str:
    """`format_` with the values put in. Raises FormatError when it gets too long."""
    parts = (part if isinstance(part, str) else _expand_one(part, values, delimiter) for part in format_.parts)
    out = "".join(parts)
    if len(out.encode()) > MAX_EXPANDED:
        raise FormatError("a format expands to too much")
    return out


def _expand_one(specifier: Specifier, values: Mapping[str, str], delimiter: str) -> str:
    value = unsanitised(specifier, values, delimiter)
    if "raw" in specifier.modifiers or specifier.name == "user.directory":
        return value
    return _UNSAFE.sub(":", value)


def unsanitised(specifier: Specifier, values: Mapping[str, str], delimiter: str) -> str:
    """The value with its modifiers, as the stranger wrote it: the caller must make it harmless."""
    value = values[specifier.name]
    for word in specifier.modifiers:
        match word:
            case "lowercase":
                value = value.lower()
            case "uppercase":
                value = value.upper()
            case "strip":
                value = _without_tag(value, delimiter)
    return substring(value, specifier)


def substring(value: str, specifier: Specifier) -> str:
    """The part asked for: both bounds are inclusive, but a negative end is not (QUIRKS 30)."""
    length = len(value)
    begin = specifier.begin + length if specifier.begin < 0 else specifier.begin
    if begin < 0:
        begin = 0
    if specifier.single:
        return value[begin : begin + 1]
    if specifier.end is None:
        return value[begin:]
    end = specifier.end + length if specifier.end < 0 else specifier.end + 1
    return value[begin : max(end, 0)]


def _without_tag(address: str, delimiter: str) -> str:
    user, at, domain = address.rpartition("@")
    if not at:
        return domain.partition(delimiter)[0]
    return f"{user.partition(delimiter)[0]}@{domain}"


def check_path(path: str) -> str:
    """`path` again if it may be written to: absolute, and no component leads upwards. Raises FormatError."""
    if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise FormatError("the expanded path is not absolute, or leads upwards")
    return path
