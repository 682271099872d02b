"""The terms of an SPF record (RFC 7208) that name addresses.

Pure; runs in `smtpctl_ps spf walk`; parses what any domain publishes. Nothing is judged here: whoever reads
the addresses wants to list them. Macros depend on a message and cannot be followed.
"""

from dataclasses import dataclass
from ipaddress import ip_network
from typing import Literal

from smtpd_ps.pure.address import domain_valid

VERSION = "v=spf1"
MAX_TERMS = 512

TermKind = Literal["address", "a", "mx", "include"]


@dataclass(frozen=True, slots=True)
class Term:
    """`value`: the network as written, or the domain to ask; the prefix lengths are -1 where none is given."""

    kind: TermKind
    value: str
    prefix4: int = -1
    prefix6: int = -1


class Unfollowable(Exception):
    """A term that cannot be followed; the text has it."""


def is_spf(text: str) -> bool:
    """Whether a TXT record is an SPF record."""
    return text.lower() == VERSION or text.lower().startswith(f"{VERSION} ")


def parse_term(text: str, domain: str) -> Term | None:
    """A term of the record of `domain`; None where it names no address that may send. Raises Unfollowable."""
    word = text.rstrip(".")
    if word[:1] in ("-", "~"):
        return None
    word = word.lstrip("+?")
    name, colon, value = word.partition(":")
    match name.partition("/")[0].lower():
        case "ip4" | "ip6" if colon:
            return _address(name.lower(), value)
        case "a" | "mx" as kind:
            name, _, prefixes = (value if colon else word).partition("/")
            return _named("a" if kind == "a" else "mx", name if colon else domain, prefixes)
        case "include" | "exists" as kind if colon:
            return _named("a" if kind == "exists" else "include", value, "")
    if word.lower().startswith("redirect="):
        return _named("include", word.partition("=")[2], "")
    return None


def _address(kind: str, value: str) -> Term | None:
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        raise Unfollowable(f"{kind}:{value} is no address") from None
    if network.version != int(kind[2]):
        raise Unfollowable(f"{kind}:{value} is of another family")
    return Term("address", value)


def _named(kind: TermKind, domain: str, prefixes: str) -> Term:
    if "%" in domain:
        raise Unfollowable(f"{domain} has a macro")
    if not domain_valid(domain):
        raise Unfollowable(f"{domain} is no domain")
    first, _, second = prefixes.partition("/")
    second = second.removeprefix("/")
    return Term(kind, domain.lower(), _prefix(first, 32), _prefix(second, 128))


def _prefix(text: str, most: int) -> int:
    if not text:
        return -1
    if not text.isascii() or not text.isdigit() or int(text) > most:
        raise Unfollowable(f"/{text} is no prefix length")
    return int(text)
