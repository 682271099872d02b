"""SPF records: terms and macros (RFC 7208, sections 4.6, 5, 6 and 7).

Pure; runs in filter-auth; parses what any domain publishes.
"""

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Literal, cast
from urllib.parse import quote

Qualifier = Literal["+", "-", "~", "?"]
Name = Literal["all", "include", "a", "mx", "ptr", "ip4", "ip6", "exists"]
NAMES: tuple[Name, ...] = ("all", "include", "a", "mx", "ptr", "ip4", "ip6", "exists")
_MODIFIER = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)=(.*)")
_DUAL = re.compile(r"(?P<rest>.*?)(?:/(?P<four>0|[1-9][0-9]?))?(?://(?P<six>0|[1-9][0-9]{0,2}))?")
_MACRO = re.compile(r"%\{([A-Za-z])([0-9]*)([rR]?)([.+,/_=-]*)\}|%%|%_|%-")
_TOP = re.compile(r".*\.(?:[A-Za-z0-9]*[A-Za-z][A-Za-z0-9]*|[A-Za-z0-9]+-[A-Za-z0-9-]*[A-Za-z0-9])\.?")
_ENDS_IN_MACRO = re.compile(r"(?:%\{[^}]*\}|%%|%_|%-)$")
MAX_NAME = 253


class SpfError(Exception):
    """The record is none: permerror."""


@dataclass(frozen=True, slots=True)
class Mechanism:
    """`domain` is as written, "" where none is; the prefix lengths are of a and mx, `network` of ip4 and ip6."""

    qualifier: Qualifier
    name: Name
    domain: str = ""
    prefix4: int = 32
    prefix6: int = 128
    network: IPv4Network | IPv6Network | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A record; `redirect` is "" where there is none."""

    mechanisms: tuple[Mechanism, ...]
    redirect: str = ""


@dataclass(frozen=True, slots=True)
class Macros:
    """What macros stand for. `client` is `i`: dotted, IPv6 in nibbles; `validated` is `p`."""

    sender: str
    domain: str
    client: str
    version: str
    helo: str
    validated: str = "unknown"


def parse(text: str) -> Record:
    """A record that begins with v=spf1. Raises SpfError."""
    mechanisms: list[Mechanism] = []
    modifiers: dict[str, str] = {}
    for word in text.split(" ")[1:]:
        if not word:
            continue
        modifier = _MODIFIER.fullmatch(word)
        if modifier is None:
            mechanisms.append(_mechanism(word))
            continue
        name, value = modifier[1].lower(), modifier[2]
        if name in ("redirect", "exp"):
            if name in modifiers:
                raise SpfError(f"{name} stands there twice")
            modifiers[name] = _domain_spec(value, name)
        else:
            _macros_valid(value)
    return Record(tuple(mechanisms), modifiers.get("redirect", ""))


def _mechanism(word: str) -> Mechanism:
    qualifier = cast(Qualifier, word[0] if word[0] in "+-~?" else "+")
    rest = word[1:] if word[0] in "+-~?" else word
    found = re.match(r"[A-Za-z0-9]+", rest)
    name = found[0].lower() if found else ""
    if name not in NAMES:
        raise SpfError(f"{word[:40]!r} is no mechanism")
    tail = rest[len(name) :]
    match name:
        case "all":
            if tail:
                raise SpfError("all has no argument")
            return Mechanism(qualifier, name)
        case "include" | "exists":
            if not tail.startswith(":"):
                raise SpfError(f"{name} needs a domain")
            return Mechanism(qualifier, name, _domain_spec(tail[1:], name))
        case "ptr":
            if not tail:
                return Mechanism(qualifier, name)
            if not tail.startswith(":"):
                raise SpfError("ptr has a domain or nothing")
            return Mechanism(qualifier, name, _domain_spec(tail[1:], name))
        case "ip4" | "ip6":
            return Mechanism(qualifier, name, network=_network(name, tail))
        case _:
            parts = _DUAL.fullmatch(tail)
            assert parts is not None
            domain = parts["rest"]
            prefix4, prefix6 = int(parts["four"] or 32), int(parts["six"] or 128)
            if parts["four"] == "0":
                prefix4 = 0
            if parts["six"] == "0":
                prefix6 = 0
            if prefix4 > 32 or prefix6 > 128 or (domain and not domain.startswith(":")):
                raise SpfError(f"{word[:40]!r} has no valid argument")
            return Mechanism(
                qualifier, cast(Name, name), _domain_spec(domain[1:], name) if domain else "", prefix4, prefix6
            )


def _network(name: str, tail: str) -> IPv4Network | IPv6Network:
    text, slash, prefix = tail[1:].partition("/")
    if not tail.startswith(":") or (slash and not re.fullmatch("0|[1-9][0-9]{0,2}", prefix)):
        raise SpfError(f"{name} has no valid network")
    try:
        network = ip_network(text + (f"/{prefix}" if slash else ""), strict=False)
    except ValueError:
        raise SpfError(f"{name} has no valid network") from None
    if network.version != int(name[2]):
        raise SpfError(f"{name} has a network of another family")
    return network


def _domain_spec(text: str, what: str) -> str:
    _macros_valid(text)
    if not _ENDS_IN_MACRO.search(text) and not _TOP.fullmatch(text):
        raise SpfError(f"{what} has no valid domain")
    return text


def _macros_valid(text: str) -> None:
    if any(not 0x21 <= ord(c) <= 0x7E for c in text) or "%" in _MACRO.sub("", text):
        raise SpfError("a macro that is none")
    for macro in _MACRO.finditer(text):
        if macro[1] and (macro[1].lower() not in "slodiphv" or (macro[2] and int(macro[2]) == 0)):
            raise SpfError(f"the macro {macro[0]}")


def needs_validated(text: str) -> bool:
    """Whether the macro `p` is in a text, which costs look-ups."""
    return any(macro[1] in ("p", "P") for macro in _MACRO.finditer(text))


def expand(text: str, macros: Macros) -> str:
    """A domain of a record with its macros expanded, cut from the left to what a name can be (section 7.3)."""
    local, _, origin = macros.sender.rpartition("@")
    values = {
        "s": macros.sender, "l": local, "o": origin, "d": macros.domain, "i": macros.client, "p": macros.validated,
        "v": macros.version, "h": macros.helo,
    }  # fmt: skip

    def one(macro: re.Match[str]) -> str:
        if not macro[1]:
            return {"%%": "%", "%_": " ", "%-": "%20"}[macro[0]]
        parts = re.split("[" + re.escape(macro[4] or ".") + "]", values[macro[1].lower()])
        if macro[3]:
            parts.reverse()
        if macro[2]:
            parts = parts[-int(macro[2]) :]
        made = ".".join(parts)
        return quote(made, safe="-._~") if macro[1].isupper() else made

    name = _MACRO.sub(one, text).rstrip(".").lower()
    while len(name) > MAX_NAME:
        name = name.partition(".")[2]
    return name
