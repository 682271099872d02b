"""table-postgres(8): answers for tables from a PostgreSQL database, in transactions that only read.

A table program, run as `_sps_table`. Keys are strangers' texts, and parameters of queries, never parts of them.
A few connections serve many requests at once; one that was lost is made again by the next request.
"""

import asyncio
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from smtpd_ps.filterkit import Service, Table, TableFailure, log, run_table
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

if TYPE_CHECKING:
    import psycopg

WORDS = ("conninfo", "connections")
CONNECTIONS = 4
MAX_CONNECTIONS = 64
CONNECT_SECS = 5
STATEMENT_MSECS = 10_000
USAGE = "usage: table-postgres file"


class PostgresTable(Table):
    """`psycopg` is the module, handed in because it is optional."""

    def __init__(self, path: str, psycopg: Any) -> None:
        self._path, self._psycopg = path, psycopg
        self._config = self._read()
        self.services = self._config.services
        self._idle: list[psycopg.AsyncConnection[Any]] = []
        self._slots = asyncio.Semaphore(self._connections())
        self._rotations: dict[Service, Rotation] = {service: Rotation() for service in self._config.fetches}

    def _read(self) -> SqlConfig:
        """Raises SqlConfigError."""
        try:
            with open(self._path, encoding="utf-8") as file:
                config = parse(file.read(), self._path, WORDS)
                others = os.fstat(file.fileno()).st_mode & 0o004
        except OSError as error:
            raise SqlConfigError(f"{self._path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SqlConfigError(f"{self._path}: not UTF-8 text") from None
        try:
            conninfo = self._psycopg.conninfo.conninfo_to_dict(config.settings["conninfo"])
        except self._psycopg.ProgrammingError:
            raise SqlConfigError(f"{self._path}: conninfo is no connection string of libpq") from None
        if conninfo.get("password") and others:
            raise SqlConfigError(f"{self._path}: has a password, and every user can read it")
        return config

    def _connections(self) -> int:
        text = self._config.settings.get("connections", str(CONNECTIONS))
        if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_CONNECTIONS:
            raise SqlConfigError(f"{self._path}: connections is a number from 1 to {MAX_CONNECTIONS}")
        return int(text)

    async def check(self, service: Service, key: str) -> bool:
        """Whether there is a row."""
        return bool(await self._ask(self._config.queries.get(service, ""), key))

    async def lookup(self, service: Service, key: str) -> str | None:
        """The value of the rows."""
        try:
            return value(service, await self._ask(self._config.queries.get(service, ""), key))
        except SqlValueError as error:
            raise TableFailure(str(error)) from None

    async def fetch(self, service: Service) -> str | None:
        """The next row."""
        rotation = self._rotations.get(service)
        if rotation is None:
            raise TableFailure(f"there is no fetch_{service}")
        if rotation.empty:
            rows = await self._ask(self._config.fetches[service])
            try:
                if rotation.empty:  # another request may have filled it meanwhile
                    rotation.fill(service, rows)
            except SqlValueError as error:
                raise TableFailure(str(error)) from None
        return rotation.take()

    async def update(self) -> None:
        """Read the queries again, and connect again. The services stay what they were."""
        try:
            config = self._read()
        except SqlConfigError as error:
            raise TableFailure(str(error)) from None
        if config.services != self.services:
            raise TableFailure(f"{self._path} offers other services now: that takes a reload")
        self._config = config
        self._rotations = {service: Rotation() for service in config.fetches}
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()

    async def _ask(self, query: str, *parameters: str) -> list[Row]:
        """Raises TableFailure."""
        if not query:
            raise TableFailure("there is no query for this service")
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


def main(argv: Sequence[str] | None = None) -> int:
    """The program; its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if len(words) != 1 or words[0].startswith("-"):
        log(USAGE)
        return 2
    try:
        import psycopg

        table = PostgresTable(words[0], psycopg)
    except ImportError as error:
        log(f"table-postgres: it needs the package psycopg, and libpq: {error}")
        return 1
    except SqlConfigError as error:
        log(f"table-postgres: {error}")
        return 1
    return run_table(table)


if __name__ == "__main__":
    sys.exit(main())
