"""What table-sqlite and table-postgres have in common: the file of queries, read and read again, and the start.

Runs in table programs, as `_sps_table`; reads the operator's file.
"""

import os
import sys
from collections.abc import Callable, Sequence

from smtpd_ps.filterkit import Service, Table, TableFailure, log, run_table
from smtpd_ps.programs.sql_queries import Rotation, SqlConfig, SqlConfigError, parse


class SqlTable(Table):
    """Offers the services for which there are queries. Raises SqlConfigError."""

    words: Sequence[str] = ()  # of the file, the program's own; the first is needed

    def __init__(self, path: str) -> None:
        self._path = path
        self._use(self._read())
        self.services = self._config.services

    def _has_password(self, config: SqlConfig) -> bool:
        """Whether only the program's user may read the file. May raise SqlConfigError."""
        return False

    def _read(self) -> SqlConfig:
        """Raises SqlConfigError."""
        try:
            with open(self._path, encoding="utf-8") as file:
                config = parse(file.read(), self._path, self.words)
                others = os.fstat(file.fileno()).st_mode & 0o004
        except OSError as error:
            raise SqlConfigError(f"{self._path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise SqlConfigError(f"{self._path}: not UTF-8 text") from None
        if self._has_password(config) and others:
            raise SqlConfigError(f"{self._path}: has a password, and every user can read it")
        return config

    def _use(self, config: SqlConfig) -> None:
        self._config = config
        self._rotations = {service: Rotation() for service in config.fetches}

    def _read_again(self) -> None:
        """The services stay what they were. Raises TableFailure."""
        config = self._read()
        if config.services != self.services:
            raise TableFailure(f"{self._path} offers other services now: that takes a reload")
        self._use(config)

    def _query(self, service: Service) -> str:
        """What check and lookup ask. Raises TableFailure."""
        if service not in self._config.queries:
            raise TableFailure("there is no query for this service")
        return self._config.queries[service]

    def _rotation(self, service: Service) -> Rotation:
        """Where fetch takes from. Raises TableFailure."""
        if service not in self._rotations:
            raise TableFailure(f"there is no fetch_{service}")
        return self._rotations[service]


def run(name: str, argv: Sequence[str] | None, make: Callable[[str], Table]) -> int:
    """The program `name`, with the table that `make` makes of the file; its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    if len(words) != 1 or words[0].startswith("-"):
        log(f"usage: {name} file")
        return 2
    try:
        table = make(words[0])
    except SqlConfigError as error:
        log(f"{name}: {error}")
        return 1
    return run_table(table)
