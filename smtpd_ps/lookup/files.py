"""The files that the parent opened for lookup: tables, resolv.conf, hosts.

Runs in lookup before confinement; parses files of the operator.
"""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from smtpd_ps.contract.messages import Asset
from smtpd_ps.contract.settings import LookupSettings, TableSettings
from smtpd_ps.pure import hosts_file
from smtpd_ps.pure.ere import Ere
from smtpd_ps.pure.hosts_file import Hosts, ResolverSettings
from smtpd_ps.pure.relay_url import parse_relay_url
from smtpd_ps.pure.table import MAX_TABLE_BYTES, Table, TableError, from_settings, parse_table

_CHUNK = 1 << 20


class FilesError(Exception):
    """What the files say cannot be used. `errors` are lines to log."""

    def __init__(self, errors: Iterable[str]) -> None:
        self.errors = tuple(errors)
        super().__init__("; ".join(self.errors))


@dataclass(frozen=True, slots=True)
class Files:
    """What was read."""

    tables: dict[str, Table]
    resolver: ResolverSettings
    hosts: Hosts


def read_files(settings: LookupSettings, assets: Iterable[tuple[Asset, int]]) -> Files:
    """Read all, and close the descriptors. Raises FilesError with all that is wrong."""
    errors: list[str] = []
    data: dict[tuple[str, str], bytes] = {}
    for asset, fd in assets:
        try:
            data[asset.kind, asset.name if asset.kind == "table" else ""] = read_whole(fd)
        except OSError as error:
            errors.append(f"{asset.kind} {asset.name}: {os.strerror(error.errno or 0)}")
        finally:
            os.close(fd)
    tables: dict[str, Table] = {}
    checks = key_checks(settings)
    for table in settings.tables:
        if table.source == "inline":
            tables[table.name] = from_settings(table)
            continue
        content = data.get(("table", table.name))
        if content is None:
            errors.append(f"table {table.name}: no file came with it")
            continue
        try:
            tables[table.name] = parse_file(table, content, checks.get(table.name))
        except TableError as error:
            errors.extend(error.errors)
    resolver = hosts_file.parse_resolv_conf(data.get(("resolv.conf", ""), b""))
    if settings.resolver:
        try:
            resolver = ResolverSettings((hosts_file.parse_resolver(settings.resolver),))
        except ValueError as error:
            errors.append(f"resolver: {error}")
    if errors:
        raise FilesError(errors)
    return Files(tables, resolver, hosts_file.parse_hosts(data.get(("hosts", ""), b"")))


CheckKeys = Callable[[Iterable[str]], object]  # raises ValueError


def key_checks(settings: LookupSettings) -> dict[str, CheckKeys]:
    """What the keys of some lists have to be: regular expressions to a rule, relay URLs to an action."""
    checks: dict[str, CheckKeys] = {
        action.relay_host_table: _check_urls for action in settings.actions if action.relay_host_table
    }
    for rule in settings.rules:
        checks |= {condition.table: Ere for condition in rule.conditions if condition.regex}
    return checks


def _check_urls(keys: Iterable[str]) -> None:
    for key in keys:
        parse_relay_url(key)


def parse_file(settings: TableSettings, content: bytes, check: CheckKeys | None) -> Table:
    """The table of a file; where keys are checked, a list whatever blanks and colons they have. Raises TableError."""
    path = settings.path or settings.name
    if check is None:
        return parse_table(settings.name, content, path)
    table = parse_table(settings.name, content, path, "list", lambda key: check((key,)))
    try:
        check(table.entries)
    except ValueError as error:  # too many patterns
        raise TableError((f"{path}: {error}",)) from None
    return table


def read_whole(fd: int) -> bytes:
    """The whole file from where the descriptor stands, up to a chunk over the bound. Raises OSError."""
    parts: list[bytes] = []
    size = 0
    while size <= MAX_TABLE_BYTES:
        part = os.read(fd, _CHUNK)
        if not part:
            break
        parts.append(part)
        size += len(part)
    return b"".join(parts)
