"""The configuration while it is being read: what has been declared so far, and every problem.

Runs in the parent and in `smtpd_ps -n`. Directives add to it; `load` makes the immutable
Configuration from it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from smtpd_ps.config.model import (
    Action,
    CertificateAuthority,
    Filter,
    Listener,
    Options,
    Problem,
    Proc,
    Rule,
    SocketListener,
    Table,
    TableKind,
    Where,
    Wrapper,
)
from smtpd_ps.config.tokens import SyntaxProblem
from smtpd_ps.contract.settings import Dhe, TableUse


@dataclass(slots=True)
class PkiDraft:
    """A pki whose certificate and key come in statements of their own."""

    name: str
    where: Where
    cert_path: str = ""
    key_path: str = ""
    dhe: Dhe | None = None


@dataclass(slots=True)
class Draft:
    """What has been declared so far.

    `broken` holds (sort, name) of declarations with an error, so that their uses are not
    reported as well.
    """

    hostname: str
    options: Options = field(default_factory=Options)
    tables: dict[str, Table] = field(default_factory=dict)
    pki: dict[str, PkiDraft] = field(default_factory=dict)
    authorities: dict[str, CertificateAuthority] = field(default_factory=dict)
    listeners: list[Listener] = field(default_factory=list)
    socket: SocketListener | None = None
    wrappers: dict[str, Wrapper] = field(default_factory=dict)
    actions: dict[str, Action] = field(default_factory=dict)
    filters: dict[str, Filter] = field(default_factory=dict)
    procs: dict[str, Proc] = field(default_factory=dict)
    admd: str = ""
    rules: list[Rule] = field(default_factory=list)
    rules_seen: int = 0  # those with errors too
    broken: set[tuple[str, str]] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    uses: dict[str, dict[TableUse, None]] = field(default_factory=dict)  # of tables in lookup, by name, in order
    _inline_tables: int = 0

    def report(self, where: Where, text: str) -> None:
        """An error; reading goes on."""
        self.problems.append(Problem(where.path, where.line, text, column=where.column))

    def warn(self, where: Where, text: str) -> None:
        """A warning."""
        self.problems.append(Problem(where.path, where.line, text, warning=True, column=where.column))

    @contextmanager
    def declaring(self, sort: str, name: str) -> Iterator[None]:
        """Remember a declaration that is given up, so that its uses are not reported as well."""
        try:
            yield
        except SyntaxProblem:
            self.broken.add((sort, name))
            raise

    def add_inline_table(self, kind: TableKind, entries: tuple[tuple[str, str], ...], where: Where) -> str:
        """Keep values written where a table could stand; returns the name made for them."""
        self._inline_tables += 1
        name = f"<dynamic:{self._inline_tables:04}>"
        self.tables[name] = Table(name, kind, entries, "", where)
        return name
