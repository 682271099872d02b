"""Databases that makemap made, as tables: read entry by entry, with pread(2) on the parent's descriptor.

Runs in lookup, before confinement and after it; parses files of the operator. A new file replaces an old one
by rename(2), so an open one never changes, and one that does all the same is an error and no crash.
"""

import os
from collections.abc import Iterable, Iterator, Mapping

from smtpd_ps.contract.settings import TableUse
from smtpd_ps.pure.cdb import CdbError
from smtpd_ps.pure.table import Table, TableError, TableUnreadable
from smtpd_ps.pure.table_db import open_table_db
from smtpd_ps.pure.table_uses import check_entry, check_together, kinds_for

MAX_WHOLE = 100_000  # entries of a database that is read whole
_READ_WHOLE: tuple[TableUse, ...] = ("addrname", "regex", "relayhosts", "source")


class _File:
    """A descriptor that is closed with the last reference."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def read(self, position: int, size: int) -> bytes:
        return os.pread(self.fd, size, position)

    def __del__(self) -> None:
        os.close(self.fd)


class DbEntries(Mapping[str, str]):
    """The entries of a database; the descriptor is closed with the last reference."""

    def __init__(self, path: str, fd: int) -> None:
        """Takes over `fd`. Raises CdbError, OSError."""
        self._path = path
        file = _File(fd)
        self.db = open_table_db(file.read, os.fstat(fd).st_size)

    def __getitem__(self, key: str) -> str:
        try:
            value = self.db.cdb.get(key.encode("utf-8", "surrogatepass"))
            if value is not None:
                return value.decode()
        except (CdbError, UnicodeDecodeError, OSError) as error:
            raise TableUnreadable(f"{self._path}: {_reason(error)}") from None
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        try:
            for key, _value in self.db.cdb.items():
                yield key.decode()
        except (CdbError, UnicodeDecodeError, OSError) as error:
            raise TableUnreadable(f"{self._path}: {_reason(error)}") from None

    def __len__(self) -> int:
        return self.db.entries


def _reason(error: Exception) -> str:
    return os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)


def read_db(name: str, fd: int, path: str, uses: Iterable[TableUse]) -> Table:
    """The table of a database. Takes over `fd`. Raises TableError."""
    given = tuple(uses)
    try:
        entries = DbEntries(path, fd)
        kind = entries.db.kind
        if kind == "list" and "list" not in kinds_for(given):
            raise TableError((f"{path}: made by makemap -t set, but a mapping of keys to values is needed",))
        whole = tuple(use for use in given if use in _READ_WHOLE)
        if whole:
            _check_whole(entries, whole, path)
    except TableUnreadable as error:
        raise TableError((str(error),)) from None
    except (CdbError, OSError) as error:
        raise TableError((f"{path}: {_reason(error)}",)) from None
    return Table(name, kind, entries, entries.db.patterns, entries.db.hash_starts)


def _check_whole(entries: DbEntries, uses: tuple[TableUse, ...], path: str) -> None:
    """Check the entries of a database that will be read whole."""
    if len(entries) > MAX_WHOLE:
        raise TableError((f"{path}: at most {MAX_WHOLE} entries can be used so, found {len(entries)}",))
    for key, value in entries.items():
        try:
            check_entry(uses, key, value)
        except ValueError as error:
            raise TableError((f"{path}: {error}",)) from None
    try:
        check_together(uses, entries)
    except ValueError as error:
        raise TableError((f"{path}: {error}",)) from None
