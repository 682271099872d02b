"""table-sqlite(8): answers for tables from an SQLite database, which it only reads.

A table program, run as `_sps_table`. Keys are strangers' texts, and parameters of queries, never parts of them.
"""

import os
import sqlite3
import sys
from collections.abc import Sequence
from urllib.parse import quote

from smtpd_ps.filterkit import Service, StopProgram, TableFailure
from smtpd_ps.programs.sql_queries import MAX_ROWS, Row, value
from smtpd_ps.programs.sql_table import SqlTable, run

BUSY_SECS = 5.0  # for a writer that holds the database


class SqliteTable(SqlTable):
    """The database is opened anew where its file was replaced, and after an error."""

    words = ("dbpath",)

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._database: sqlite3.Connection | None = None
        self._identity = (0, 0)

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
        return bool(self._ask(self._query(service), key))

    def lookup(self, service: Service, key: str) -> str | None:
        """The value of the rows."""
        return value(service, self._ask(self._query(service), key))

    def fetch(self, service: Service) -> str | None:
        """The next row."""
        rotation = self._rotation(service)
        if rotation.empty:
            rotation.fill(service, self._ask(self._config.fetches[service]))
        return rotation.take()

    def update(self) -> None:
        """Read the queries again, and open the database again."""
        self._read_again()
        self.close()

    def _ask(self, query: str, *parameters: str) -> list[Row]:
        """Raises TableFailure."""
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
    return run("table-sqlite", argv, SqliteTable)


if __name__ == "__main__":
    sys.exit(main())
