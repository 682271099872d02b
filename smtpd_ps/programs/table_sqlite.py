"""table-sqlite(8): answers for tables from an SQLite database, which it only reads.

A table program, run as `_sps_table`. Keys are strangers' texts, and parameters of queries, never parts of them.
"""

import os
import sqlite3
import sys
from collections.abc import Sequence
from urllib.parse import quote

from smtpd_ps.filterkit import Service, StopProgram, Table, TableFailure, log, run_table
from smtpd_ps.programs.sql_queries import (
    MAX_ROWS,
    Rotation,
    Row,
    SqlConfig,
    SqlConfigError,
    SqlValueError,
    parse,
    value,
)

BUSY_SECS = 5.0  # for a writer that holds the database
WORDS = ("dbpath",)
USAGE = "usage: table-sqlite file"


class SqliteTable(Table):
    """The database is opened anew where its file was replaced, and after an error."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._config = self._read()
        self.services = self._config.services
        self._database: sqlite3.Connection | None = None
        self._identity = (0, 0)
        self._rotations: dict[Service, Rotation] = {service: Rotation() for service in self._config.fetches}

    def _read(self) -> SqlConfig:
        """Raises SqlConfigError."""
        try:
            with open(self._path, encoding="utf-8") as file:
                return parse(file.read(), self._path, WORDS)
        except OSError as error:
            raise SqlConfigError(f"{self._path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SqlConfigError(f"{self._path}: not UTF-8 text") from None

    def ready(self) -> None:
        """See that every query can be asked. Raises StopProgram."""
        try:
            for query in self._config.queries.values():
                self._ask(f"EXPLAIN {query}", "x")
            for query in self._config.fetches.values():
                self._ask(f"EXPLAIN {query}")
        except TableFailure as error:
            raise StopProgram(f"table-sqlite: {error}") from None

    def check(self, service: Service, key: str) -> bool:
        """Whether there is a row."""
        return bool(self._ask(self._config.queries.get(service, ""), key))

    def lookup(self, service: Service, key: str) -> str | None:
        """The value of the rows."""
        try:
            return value(service, self._ask(self._config.queries.get(service, ""), key))
        except SqlValueError as error:
            raise TableFailure(str(error)) from None

    def fetch(self, service: Service) -> str | None:
        """The next row."""
        rotation = self._rotations.get(service)
        if rotation is None:
            raise TableFailure(f"there is no fetch_{service}")
        try:
            if rotation.empty:
                rotation.fill(service, self._ask(self._config.fetches[service]))
        except SqlValueError as error:
            raise TableFailure(str(error)) from None
        return rotation.take()

    def update(self) -> None:
        """Read the queries again, and open the database again. The services stay what they were."""
        try:
            config = self._read()
        except SqlConfigError as error:
            raise TableFailure(str(error)) from None
        if config.services != self.services:
            raise TableFailure(f"{self._path} offers other services now: that takes a reload")
        self._config = config
        self._rotations = {service: Rotation() for service in config.fetches}
        self.close()

    def _ask(self, query: str, *parameters: str) -> list[Row]:
        """Raises TableFailure."""
        if not query:
            raise TableFailure("there is no query for this service")
        try:
            return list(self._open().execute(query, parameters).fetchmany(MAX_ROWS + 1))
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise TableFailure(f"{self._config.settings['dbpath']}: {error}") from None

    def _open(self) -> sqlite3.Connection:
        path = self._config.settings["dbpath"]
        about = os.stat(path)
        identity = about.st_dev, about.st_ino
        if self._database is not None and self._identity == identity:
            return self._database
        self.close()
        self._database = sqlite3.connect(
            f"file:{quote(path)}?mode=ro", uri=True, timeout=BUSY_SECS, isolation_level=None
        )
        self._identity = identity
        return self._database

    def close(self) -> None:
        """Close the database; the next request opens it."""
        if self._database is not None:
            self._database.close()
            self._database = None


def main(argv: Sequence[str] | None = None) -> int:
    """The program; its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if len(words) != 1 or words[0].startswith("-"):
        log(USAGE)
        return 2
    try:
        table = SqliteTable(words[0])
    except SqlConfigError as error:
        log(f"table-sqlite: {error}")
        return 1
    return run_table(table)


if __name__ == "__main__":
    sys.exit(main())
