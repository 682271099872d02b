"""Reads a table again while the daemon runs; the new one is used only if it has no error.

Runs in lookup, confined, on a file of the operator that the parent opened. Reading and parsing are
done in a thread, so that no session waits; the swap is one step of the loop.
"""

import os
from collections.abc import Callable, Mapping

from smtpd_ps.contract.messages import TableFile, TableRead
from smtpd_ps.contract.settings import LookupSettings, TableSettings
from smtpd_ps.lookup.checking import Checking
from smtpd_ps.lookup.credentials import schemes_in
from smtpd_ps.lookup.files import read_whole
from smtpd_ps.lookup.password_hash import PasswordHashes
from smtpd_ps.lookup.table_db import read_db
from smtpd_ps.pure.table import Table, TableError
from smtpd_ps.pure.table_uses import parse_file

MAX_TEXT = 2000  # characters; what TableRead holds, less a margin

_Outcome = Table | tuple[str, ...]  # the table, or what is wrong


class TableUpdates:
    """Answers TableFile. `swap` puts a table in the place of the one of the same name."""

    def __init__(
        self,
        settings: LookupSettings,
        tables: Mapping[str, Table],
        hashes: PasswordHashes,
        checking: Checking,
        swap: Callable[[Table], None],
        answer: Callable[[TableRead], None],
    ) -> None:
        self._settings = {table.name: table for table in settings.tables if table.source in ("file", "db")}
        self._schemes = {name: schemes_in({name: tables[name]}) for name in self._settings}
        self._hashes, self._checking, self._swap, self._answer = hashes, checking, swap, answer
        self._last: dict[str, int] = {}  # number of the newest update of each table
        self._number = 0

    def requested(self, message: TableFile, fd: int) -> None:
        """Always answered by one TableRead."""
        if message.name not in self._settings:
            os.close(fd)
            self._answer(TableRead(message.client, False, f"table {message.name} has no file", message.name))
            return
        self._number += 1
        number = self._last[message.name] = self._number
        done = self._checking.run(
            lambda: self._read(message.name, fd), lambda outcome: self._finish(message, number, outcome)
        )  # fmt: skip
        if not done:
            os.close(fd)
            self._answer(TableRead(message.client, False, "too much to do; try again", message.name))

    def _read(self, name: str, fd: int) -> _Outcome:
        """In a thread. Raises nothing."""
        settings = self._settings[name]
        try:
            if settings.source == "db":
                return self._checked(settings, read_db(name, os.dup(fd), settings.path or name, settings.uses))
            table = parse_file(name, read_whole(fd), settings.path or name, settings.uses)
        except TableError as error:
            return error.errors
        except OSError as error:
            return (f"{settings.path}: {os.strerror(error.errno or 0)}",)
        finally:
            os.close(fd)
        return self._checked(settings, table)

    def _checked(self, settings: TableSettings, table: Table) -> _Outcome:
        """The table, unless it has passwords that cannot be checked."""
        lacking = self._hashes.lacks(schemes_in({table.name: table}) - self._schemes[table.name])
        if lacking:
            return (f"{settings.path}: hashes of scheme {', '.join(lacking)} can be checked only after a restart",)
        return table

    def _finish(self, message: TableFile, number: int, outcome: _Outcome) -> None:
        if not isinstance(outcome, Table):
            text = "\n".join(_printable(line) for line in outcome)
            self._answer(TableRead(message.client, False, text[:MAX_TEXT], message.name))
            return
        if number == self._last[message.name]:  # two threads may end in another order than they began
            self._swap(outcome)
        entries = len(outcome.entries)
        text = f"table {message.name}: {entries} {'entry' if entries == 1 else 'entries'}"
        self._answer(TableRead(message.client, True, text, message.name))


def _printable(line: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in line)
