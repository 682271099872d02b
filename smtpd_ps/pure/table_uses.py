"""What each use of a table asks of it: a list or a mapping, and what its keys and values must be.

The one place that says so. Runs in the parent and in `smtpd_ps -n` on tables written in smtpd.conf, and
in lookup on those in files. The kinds are those of OpenSMTPD's parse.y (table_check_use).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from smtpd_ps.contract.settings import TableUse
from smtpd_ps.pure.ere import Ere
from smtpd_ps.pure.ere_syntax import EreError
from smtpd_ps.pure.match_tables import parse_network
from smtpd_ps.pure.relay_url import RelayUrlError, parse_relay_url
from smtpd_ps.pure.table import Table, TableError, TableKind, parse_table
from smtpd_ps.pure.table_values import (
    check_credentials,
    parse_address,
    parse_host_name,
    parse_mailaddrs,
    parse_userinfo,
)

_EITHER: tuple[TableKind, ...] = ("list", "map")
_LIST: tuple[TableKind, ...] = ("list",)
_MAP: tuple[TableKind, ...] = ("map",)


def _as_it_is(key: str) -> str:
    return key


def _any_value(_value: str) -> None:
    """Nothing is asked of it, or who uses it says so then."""


@dataclass(frozen=True, slots=True)
class Use:
    """What a use asks. `key` gives the key to store, `value` and `together` check; all raise ValueError."""

    kinds: tuple[TableKind, ...]
    key: Callable[[str], str] = _as_it_is
    value: Callable[[str], object] = _any_value
    together: Callable[[Iterable[str]], object] | None = None  # all keys, after each alone
    blanks: bool = False  # keys may have blanks and colons: a file of them is a list however it looks


def _network(key: str) -> str:
    if parse_network(key) is None and key.lower() != "local":
        raise ValueError(f'"{key}" is not an address or a network such as 192.0.2.0/24')
    return key


def _pattern(key: str) -> str:
    try:
        Ere((key,))
    except EreError as error:
        raise ValueError(f'"{key}" is not a regular expression: {error}') from None
    return key


def _patterns(keys: Iterable[str]) -> None:
    try:
        Ere(keys)
    except EreError as error:
        raise ValueError(f"the regular expressions together: {error}") from None


def _url(key: str) -> str:
    _check_url(key)
    return key


def _check_url(text: str) -> None:
    try:
        parse_relay_url(text)
    except RelayUrlError as error:
        raise ValueError(f'"{text}": {error}') from None


USES: Mapping[TableUse, Use] = {
    "alias": Use(_MAP),  # a bad entry costs its own recipient a 424, no more (pure/expand)
    "virtual": Use(_MAP),
    "userinfo": Use(_MAP, value=parse_userinfo),
    "credentials": Use(_MAP),  # a malformed hash never matches, which the log tells (lookup/credentials)
    "relay-credentials": Use(_MAP, value=check_credentials),
    "domain": Use(_LIST),
    "netaddr": Use(_LIST, key=_network, blanks=True),
    "mailaddr": Use(_EITHER),
    "string": Use(_LIST),
    "user": Use(_EITHER),
    "regex": Use(_LIST, key=_pattern, together=_patterns, blanks=True),
    "relayhosts": Use(_LIST, key=_url, blanks=True),
    "relayhost": Use(_MAP, value=_check_url),
    "source": Use(_EITHER, key=parse_address, blanks=True),
    "addrname": Use(_MAP, key=parse_address, value=parse_host_name),
    "mailaddrmap": Use(_MAP, value=parse_mailaddrs),
}
NEEDS: Mapping[TableKind, str] = {
    "list": "a list such as { a, b }",
    "map": "a mapping such as { key = value }",
}


def kinds_for(uses: Iterable[TableUse]) -> tuple[TableKind, ...]:
    """The kinds that all of the uses can work with; none where they contradict each other."""
    wanted = [USES[use].kinds for use in uses]
    return tuple(kind for kind in _EITHER if all(kind in kinds for kinds in wanted))


def wanted_kind(uses: Iterable[TableUse]) -> TableKind | None:
    """The kind that a file has because of what it is used for, where its first line does not say it."""
    given = tuple(uses)
    if any(USES[use].blanks for use in given) and "list" in kinds_for(given):
        return "list"
    return None


def check_entry(uses: Iterable[TableUse], key: str, value: str) -> str:
    """The key to store. Raises ValueError where one of the uses cannot work with the entry."""
    for use in uses:
        asked = USES[use]
        key = asked.key(key)
        asked.value(value)
    return key


def check_together(uses: Iterable[TableUse], keys: Iterable[str]) -> None:
    """Raises ValueError where one of the uses cannot work with all of the keys at once."""
    for use in uses:
        together = USES[use].together
        if together is not None:
            together(keys)


def checked(table: Table, uses: Iterable[TableUse]) -> Table:
    """`table`, whose kind is right, with the keys to store. Raises ValueError for the first bad entry."""
    given = tuple(uses)
    entries = {check_entry(given, key, value).lower(): value for key, value in table.entries.items()}
    check_together(given, entries)
    return Table(table.name, table.kind, entries)


def parse_file(name: str, data: bytes, path: str, uses: Iterable[TableUse]) -> Table:
    """The table in a file, good for all of its uses. Raises TableError, which names the lines."""
    given = tuple(uses)

    def check(key: str, value: str) -> str:
        return check_entry(given, key, value)

    table = parse_table(name, data, path, wanted_kind(given), check if given else None, kinds_for(given))
    try:
        check_together(given, table.entries)
    except ValueError as error:
        raise TableError((f"{path}: {error}",)) from None
    return table
