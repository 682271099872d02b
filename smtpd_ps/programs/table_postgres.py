"""table-postgres(8): answers for tables from a PostgreSQL database, in transactions that only read.

A table program, run as `_sps_table`. Keys are strangers' texts, and parameters of queries, never parts of them.
A few connections serve many requests at once; one that was lost is made again by the next request.
"""

import asyncio
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from smtpd_ps.filterkit import Service, TableFailure
from smtpd_ps.programs.sql_queries import MAX_ROWS, Row, SqlConfig, SqlConfigError, value
from smtpd_ps.programs.sql_table import SqlTable, run

if TYPE_CHECKING:
    import psycopg

CONNECTIONS = 4
MAX_CONNECTIONS = 64
CONNECT_SECS = 5
STATEMENT_MSECS = 10_000


class PostgresTable(SqlTable):
    """`psycopg` is the module, handed in because it is optional."""

    words = ("conninfo", "connections")

    def __init__(self, path: str, psycopg: Any) -> None:
        self._psycopg = psycopg
        super().__init__(path)
        self._idle: list[psycopg.AsyncConnection[Any]] = []
        self._slots = asyncio.Semaphore(self._connections())

    def _has_password(self, config: SqlConfig) -> bool:
        try:
            conninfo = self._psycopg.conninfo.conninfo_to_dict(config.settings["conninfo"])
        except self._psycopg.ProgrammingError:
            raise SqlConfigError(f"{self._path}: conninfo is no connection string of libpq") from None
        return bool(conninfo.get("password"))

    def _connections(self) -> int:
        text = self._config.settings.get("connections", str(CONNECTIONS))
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_CONNECTIONS:
            raise SqlConfigError(f"{self._path}: connections is a number from 1 to {MAX_CONNECTIONS}")
        return int(text)

    async def check(self, service: Service, key: str) -> bool:
        """Whether there is a row."""
        return bool(await self._ask(self._query(service), key))

    async def lookup(self, service: Service, key: str) -> str | None:
        """The value of the rows."""
        return value(service, await self._ask(self._query(service), key))

    async def fetch(self, service: Service) -> str | None:
        """The next row."""
        rotation = self._rotation(service)
        if rotation.empty:
            rows = await self._ask(self._config.fetches[service])
            if rotation.empty:  # another request may have filled it meanwhile
                rotation.fill(service, rows)
        return rotation.take()

    async def update(self) -> None:
        """Read the queries again, and connect again."""
        self._read_again()
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()

    async def _ask(self, query: str, *parameters: str) -> list[Row]:
        """Raises TableFailure."""
        async with self._slots:
            reused = bool(self._idle)
            try:
                return await self._ask_once(query, parameters)
            except (self._psycopg.OperationalError, OSError) as error:
                if not reused or isinstance(error, self._psycopg.errors.QueryCanceled):
                    raise self._failure(error) from None
            except self._psycopg.Error as error:
                raise self._failure(error) from None
            # The server was restarted, it may be: the other idle connections are no better.
            idle, self._idle = self._idle, []
            for connection in idle:
                await connection.close()
            try:
                return await self._ask_once(query, parameters)
            except (self._psycopg.Error, OSError) as error:
                raise self._failure(error) from None

    def _failure(self, error: Exception) -> TableFailure:
        # The server's texts quote parameters, which may be passwords.
        state = getattr(error, "sqlstate", None)
        return TableFailure(f"the database says {state}" if state else "the database cannot be reached")

    async def _ask_once(self, query: str, parameters: Sequence[str]) -> list[Row]:
        connection = self._idle.pop() if self._idle else await self._connect()
        try:
            cursor = self._psycopg.AsyncRawCursor(connection)
            await cursor.execute(query, parameters or None)
            rows: list[Row] = await cursor.fetchmany(MAX_ROWS + 1)
            await cursor.close()
        except BaseException:
            await connection.close()
            raise
        self._idle.append(connection)
        return rows

    async def _connect(self) -> "psycopg.AsyncConnection[Any]":
        return await self._psycopg.AsyncConnection.connect(
            self._config.settings["conninfo"], autocommit=True, connect_timeout=CONNECT_SECS,
            application_name="table-postgres", client_encoding="UTF8",  # also of a database without an encoding
            options=f"-c default_transaction_read_only=on -c statement_timeout={STATEMENT_MSECS}",
        )  # fmt: skip


def _table(path: str) -> PostgresTable:
    try:
        import psycopg
    except ImportError as error:
        raise SqlConfigError(f"it needs the package psycopg, and libpq: {error}") from None
    return PostgresTable(path, psycopg)


def main(argv: Sequence[str] | None = None) -> int:
    """The program; its exit status."""
    return run("table-postgres", argv, _table)


if __name__ == "__main__":
    sys.exit(main())
