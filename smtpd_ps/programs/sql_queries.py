"""Configuration of table-sqlite and table-postgres, and how rows become values of table(5).

Runs in table programs; parses the operator's file, and turns rows of the operator's database into text; no error
quotes a row. The file has a word and its value on each line: `query_alias SELECT ...`, with one parameter, the key;
`fetch_source SELECT ...` without one; the rest is the program's own. The words are those of OpenSMTPD's programs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smtpd_ps.filterkit import TableFailure
from smtpd_ps.pure.table_protocol import SERVICES, Service

MAX_ROWS = 1000
CHECKED: tuple[Service, ...] = ("domain", "mailaddr", "netaddr", "string", "regex")  # asked whether, not what
FETCHED: tuple[Service, ...] = ("source", "relayhost")
COLUMNS: dict[Service, tuple[int, ...]] = {"userinfo": (1, 3), "credentials": (1, 2)}  # others: one
_LISTS: tuple[Service, ...] = ("alias", "mailaddrmap")  # several rows are one value
Row = Sequence[object]


class SqlConfigError(TableFailure):
    """What is wrong with the file, with its line."""


@dataclass(frozen=True, slots=True)
class SqlConfig:
    """The queries by service, and the other words."""

    queries: Mapping[Service, str]
    fetches: Mapping[Service, str]
    settings: Mapping[str, str]

    @property
    def services(self) -> tuple[Service, ...]:
        """What is offered."""
        return tuple(service for service in SERVICES if service in self.queries or service in self.fetches)


def parse(text: str, path: str, known: Sequence[str]) -> SqlConfig:
    """The file; `known` are the program's own words, of which the first is needed. Raises SqlConfigError."""
    queries: dict[Service, str] = {}
    fetches: dict[Service, str] = {}
    settings: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        word, _, value = line.strip().partition(" ")
        value = value.strip().rstrip(";").rstrip()
        if not word or word.startswith("#"):
            continue
        kind, _, name = word.partition("_")
        where = f"{path}:{number}"
        if not value:
            raise SqlConfigError(f"{where}: {word} has no value")
        if word in settings or name in (queries if kind == "query" else fetches if kind == "fetch" else ()):
            raise SqlConfigError(f"{where}: {word} stands there twice")
        if word in known:
            settings[word] = value
            continue
        for service in SERVICES:
            if name == service and service != "auth":
                if kind == "query":
                    queries[service] = value
                    break
                if kind == "fetch" and service in FETCHED:
                    fetches[service] = value
                    break
        else:
            raise SqlConfigError(f"{where}: unknown word {word!r}")
    if known[0] not in settings:
        raise SqlConfigError(f"{path}: {known[0]} is missing")
    if not queries and not fetches:
        raise SqlConfigError(f"{path}: there is no query")
    return SqlConfig(queries, fetches, settings)


def value(service: Service, rows: Sequence[Row]) -> str | None:
    """What a lookup answers; None without a row. Raises TableFailure."""
    if not rows:
        return None
    if service not in _LISTS and len(rows) > 1:
        raise TableFailure(f"the query for {service} gives more than one row")
    if len(rows) > MAX_ROWS:
        raise TableFailure(f"the query for {service} gives more than {MAX_ROWS} rows")
    return ", ".join(_row(service, row) for row in rows)


def _row(service: Service, row: Row) -> str:
    wanted = COLUMNS.get(service, (1,))
    if len(row) not in wanted:
        raise TableFailure(f"the query for {service} gives {len(row)} columns, not {' or '.join(map(str, wanted))}")
    words = []
    for each in row:
        if not isinstance(each, str | int) or isinstance(each, bool):
            raise TableFailure(f"the query for {service} gives a {type(each).__name__}, not text or a number")
        words.append(str(each))
    return ":".join(words)


class Rotation:
    """The rows of a fetch, one after the other, read again when all were given."""

    def __init__(self) -> None:
        self._values: list[str] = []
        self._next = 0

    @property
    def empty(self) -> bool:
        """Whether the rows are to be read."""
        return self._next >= len(self._values)

    def fill(self, service: Service, rows: Sequence[Row]) -> None:
        """Begin with these rows. Raises TableFailure."""
        if len(rows) > MAX_ROWS:
            raise TableFailure(f"the query for {service} gives more than {MAX_ROWS} rows")
        self._values, self._next = [_row(service, row) for row in rows], 0

    def take(self) -> str | None:
        """The next one; None where there is none."""
        if self.empty:
            return None
        self._next += 1
        return self._values[self._next - 1]
