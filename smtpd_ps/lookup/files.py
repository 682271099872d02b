"""The files that the parent opened for lookup: tables, resolv.conf, hosts.

Runs in lookup before confinement; parses files of the operator.
"""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field

from smtpd_ps.contract.messages import Asset
from smtpd_ps.contract.settings import LookupSettings
from smtpd_ps.lookup.table_db import read_db
from smtpd_ps.pure import hosts_file
from smtpd_ps.pure.hosts_file import Hosts, ResolverSettings
from smtpd_ps.pure.table import MAX_TABLE_BYTES, Table, TableError, from_settings
from smtpd_ps.pure.table_program import Asked, program_table
from smtpd_ps.pure.table_uses import checked, parse_file

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
    asked: Asked = field(default_factory=Asked)  # what tables of programs read


def read_files(settings: LookupSettings, assets: Iterable[tuple[Asset, int]]) -> Files:
    """Read all, and close the descriptors but those of databases. Raises FilesError with all that is wrong."""
    errors: list[str] = []
    data: dict[tuple[str, str], bytes] = {}
    databases = {table.name for table in settings.tables if table.source == "db"}
    open_databases: dict[str, int] = {}
    for asset, fd in assets:
        if asset.kind == "table" and asset.name in databases:
            open_databases[asset.name] = fd  # it stays open
            continue
        try:
            data[asset.kind, asset.name if asset.kind == "table" else ""] = read_whole(fd)
        except OSError as error:
            errors.append(f"{asset.kind} {asset.name}: {os.strerror(error.errno or 0)}")
        finally:
            os.close(fd)
    tables: dict[str, Table] = {}
    asked = Asked()
    for table in settings.tables:
        if table.source == "inline":
            try:
                tables[table.name] = checked(from_settings(table), table.uses)
            except ValueError as error:
                errors.append(f"table {table.name}: {error}")
            continue
        if table.source == "program":
            tables[table.name] = program_table(table.name, asked)
            continue
        content = data.get(("table", table.name))
        if content is None and table.name not in open_databases:
            errors.append(f"table {table.name}: no file came with it")
            continue
        path = table.path or table.name
        try:
            if content is None:
                tables[table.name] = read_db(table.name, open_databases[table.name], path, table.uses)
            else:
                tables[table.name] = parse_file(table.name, content, path, table.uses)
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
    return Files(tables, resolver, hosts_file.parse_hosts(data.get(("hosts", ""), b"")), asked)


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
