"""How a table is compared with what a client says: domains, networks, addresses, plain words.

Runs in lookup. Each function compiles the keys of a table once into a predicate that costs a
few hash lookups, however long the table; only globs are tried one by one.
"""

import re
from collections.abc import Callable, Container, Iterable
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address

from smtpd_ps.pure.address import split
from smtpd_ps.pure.ere import Ere

Predicate = Callable[[str], bool]


def glob_pattern(glob: str) -> str:
    """A regular expression that means what OpenSMTPD's hostname_match does.

    A `*` takes everything up to the first occurrence of the character behind it, and never
    gives any of it back: `*.example.org` matches a.example.org and not a.b.example.org
    (QUIRKS 12).
    """
    parts: list[str] = []
    at = 0
    while at < len(glob):
        if glob[at] != "*":
            parts.append(re.escape(glob[at]))
            at += 1
            continue
        while at < len(glob) and glob[at] == "*":
            at += 1
        if at == len(glob):
            parts.append(".+")  # a last star wants something to take
        else:
            stop = re.escape(glob[at])
            parts.append(f"[^{stop}]*{stop}")
            at += 1
    return "".join(parts)


def _globs(globs: list[str]) -> Predicate:
    """Whether any of the lower-case globs matches a lower-case name."""
    match = re.compile("|".join(f"(?:{glob_pattern(glob)})" for glob in globs), re.DOTALL).fullmatch

    def matches(name: str) -> bool:
        return name != "" and match(name) is not None

    return matches


def match_words(keys: Iterable[str]) -> Predicate:
    """Whether a lower-case word is one of the keys (table service "string")."""
    return frozenset(key.lower() for key in keys).__contains__


def match_domains(keys: Iterable[str], stored: Container[str] | None = None) -> Predicate:
    """Whether a lower-case domain is one of the keys or matches a glob of them.

    `stored`, here and below, holds further keys that are not in memory and match what equals them.
    """
    if stored is not None:
        some = match_domains(keys)
        return lambda domain: domain in stored or some(domain)
    lower = {key.lower() for key in keys}
    plain = frozenset(key for key in lower if "*" not in key)
    globs = sorted(lower - plain)
    if not globs:
        return plain.__contains__
    if "*" in globs:
        return lambda domain: domain != ""
    matches = _globs(globs)
    return lambda domain: domain in plain or matches(domain)


class _Either:
    """What is in one of two places."""

    def __init__(self, in_memory: Container[str], stored: Container[str]) -> None:
        self._in_memory, self._stored = in_memory, stored

    def __contains__(self, key: object) -> bool:
        return key in self._in_memory or key in self._stored


def match_mailaddrs(keys: Iterable[str], delimiter: str, stored: Container[str] | None = None) -> Predicate:
    """Whether a lower-case address matches a key: `user`, `@domain`, `user@domain` or `@`.

    The tag of the address (what follows `delimiter` in its local part) is left out of the
    comparison where the key has none. The null sender is "" or "@".
    """
    in_memory: set[str] = set()
    globs: dict[str, list[str]] = {}
    for key in keys:
        user, domain = split(key.lower())
        if "*" in domain:
            globs.setdefault(user, []).append(domain)
        elif domain:
            in_memory.add(f"{user}@{domain}")
        else:
            in_memory.add(user or "@")
    exact: Container[str] = in_memory if stored is None else _Either(in_memory, stored)
    by_user = {user: _globs(domains) for user, domains in globs.items()}

    def matches(address: str) -> bool:
        if "@" in exact:
            return True
        user, domain = split(address)
        if "@" in user:
            user = ""  # no local part that a key could mean
        bare, tag, _ = user.partition(delimiter)
        if bare and (bare in exact or f"{bare}@{domain}" in exact):
            return True
        if domain and f"@{domain}" in exact:
            return True
        if tag and (user in exact or f"{user}@{domain}" in exact):
            return True
        if by_user and domain:
            return any(who in by_user and by_user[who](domain) for who in {"", bare, user})
        return False

    return matches


def match_netaddrs(keys: Iterable[str], stored: Container[str] | None = None) -> Predicate:
    """Whether an address as text ("192.0.2.1", "2001:db8::1", "local") is in one of the networks.

    Keys are addresses or networks in CIDR notation, IPv6 optionally in brackets. A key that is
    neither is compared as a word ("local").
    """
    words: set[str] = set()
    nets: dict[tuple[int, int], set[int]] = {}  # by (IP version, bits to ignore)
    for key in keys:
        net = parse_network(key)
        if net is None:
            words.add(key.lower())
        else:
            version, value, ignored = net
            nets.setdefault((version, ignored), set()).add(value >> ignored)
    by_version = {
        version: tuple((ignored, values) for (v, ignored), values in nets.items() if v == version) for version in (4, 6)
    }

    def matches(address: str) -> bool:
        if address in words or (stored is not None and address in stored):
            return True
        parsed = client_address(address)
        if parsed is None:
            return False
        if stored is not None and (text := str(parsed)) != address and text in stored:
            return True
        value = int(parsed)
        return any(value >> ignored in values for ignored, values in by_version[parsed.version])

    return matches


def match_patterns(keys: Iterable[str]) -> Predicate:
    """Whether a lower-case text contains a match of one of the keys (table service "regex").

    Raises EreError for a key that is no pattern (pure/ere).
    """
    return Ere(keys).search


def client_address(text: str) -> IPv4Address | IPv6Address | None:
    """The IP address of a client; an IPv4 one that IPv6 carries ("::ffff:192.0.2.1") is IPv4."""
    try:
        parsed = ip_address(text)
    except ValueError:
        return None
    mapped = parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None
    return mapped or parsed


def parse_network(text: str) -> tuple[int, int, int] | None:
    """(IP version, address as a number, bits to ignore) of "10.0.0.0/8", "[::1]"; None if it is none.

    Of an IPv4 network trailing zero bytes may be left out ("10/8"). The brackets may be around the
    address alone ("[2001:db8::]/32") or around all of it ("[2001:db8::/32]").
    """
    if text[:5].lower() == "ipv6:":
        text = text[5:]
    if text.startswith("["):
        inner, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and ("/" in inner or not rest.startswith("/"))):
            return None
        text = inner + rest
        if text[:5].lower() == "ipv6:":
            text = text[5:]
    address, slash, prefix = text.partition("/")
    if slash and not (prefix.isascii() and prefix.isdigit() and len(prefix) <= 3):
        return None
    parsed: IPv4Address | IPv6Address
    try:
        if ":" in address:
            parsed = IPv6Address(address)
        else:
            parsed = IPv4Address(address + ".0" * (3 - address.count(".")) if slash else address)
    except AddressValueError:
        return None
    bits = int(prefix) if slash else parsed.max_prefixlen
    if bits > parsed.max_prefixlen:
        return None
    return parsed.version, int(parsed), parsed.max_prefixlen - bits
