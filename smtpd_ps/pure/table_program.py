"""Tables whose entries a program knows: what is asked of them, and the answers of the request at hand.

Runs in lookup. Rules and expansion read tables as if all entries were in memory. Where the entry of a
program's table is not known yet, the reading raises AnswersNeeded; whoever runs the computation asks the
program and runs it again, from the start, with the answers (lookup/asking). So the computation stays
free of I/O and nobody else waits. Answers are kept for that one request.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from smtpd_ps.contract.settings import TableUse
from smtpd_ps.pure.table import Table, TableUnreadable
from smtpd_ps.pure.table_protocol import Service, Status


@dataclass(frozen=True, slots=True)
class TableQuestion:
    """`key` is in lower case, as all keys of tables are (QUIRKS 24); "" to fetch."""

    table: str
    operation: Literal["check", "lookup", "fetch"]
    service: Service
    key: str


@dataclass(frozen=True, slots=True)
class TableAnswer:
    """What the program said; `text` is the value, or why there is none."""

    status: Status
    text: str = ""


class AnswersNeeded(Exception):
    """Ask these, and run again."""

    def __init__(self, questions: frozenset[TableQuestion]) -> None:
        super().__init__(f"{len(questions)} questions to table programs")
        self.questions = questions


class Asked:
    """The answers of the request at hand; `known` is set around each run of a computation."""

    __slots__ = ("known",)

    def __init__(self) -> None:
        self.known: Mapping[TableQuestion, TableAnswer] = {}

    def answer(self, question: TableQuestion) -> TableAnswer:
        """Found or not. Raises AnswersNeeded, and TableUnreadable where the program could not say."""
        answer = self.known.get(question)
        if answer is None:
            raise AnswersNeeded(frozenset((question,)))
        if answer.status == "error":
            raise TableUnreadable(answer.text)
        return answer


class ProgramEntries(Mapping[str, str]):
    """The entries for one service, as far as they are asked for by key."""

    def __init__(self, table: str, service: Service, asked: Asked) -> None:
        self._table, self._service, self._asked = table, service, asked

    def __getitem__(self, key: str) -> str:
        answer = self._asked.answer(TableQuestion(self._table, "lookup", self._service, key.lower()))
        if answer.status != "found":
            raise KeyError(key)
        return answer.text

    def __iter__(self) -> Iterator[str]:
        """None can be listed."""
        return iter(())

    def __len__(self) -> int:
        return 0


@dataclass(frozen=True, slots=True)
class ProgramTable(Table):
    """A table of a program. Its entries depend on the service; without one there are none."""

    asked: Asked = field(default_factory=Asked)

    def serving(self, service: str) -> Table:
        """The table as that service sees it."""
        return replace(self, entries=ProgramEntries(self.name, service, self.asked))  # type: ignore[arg-type]

    def next_value(self, service: Service) -> str | None:
        """What the program gives next of the values that it gives in turn."""
        answer = self.asked.answer(TableQuestion(self.name, "fetch", service, ""))
        return answer.text if answer.status == "found" else None

    def matcher(self, service: Service) -> Callable[[str], bool]:
        """Whether a key matches: the program compares. As OpenSMTPD writes them, "" is "@", the null
        sender, and an IPv6 address is in brackets.
        """
        name, asked = self.name, self.asked

        def matches(key: str) -> bool:
            if service == "netaddr" and ":" in key:
                key = f"[{key}]"
            elif service == "mailaddr":
                key = key or "@"
            return asked.answer(TableQuestion(name, "check", service, key.lower())).status == "found"

        return matches


# Which services a use asks for; one of them must be offered.
SERVICES_FOR: Mapping[TableUse, tuple[Service, ...]] = {
    "alias": ("alias",),
    "virtual": ("alias",),
    "userinfo": ("userinfo",),
    "credentials": ("auth", "credentials"),
    "relay-credentials": ("credentials",),
    "domain": ("domain",),
    "netaddr": ("netaddr",),
    "mailaddr": ("mailaddr",),
    "string": ("string",),
    "user": ("string", "mailaddr"),
    "regex": ("regex",),
    "relayhosts": ("relayhost",),
    "relayhost": ("relayhost",),
    "source": ("source",),
    "addrname": ("addrname",),
    "mailaddrmap": ("mailaddrmap",),
}


def program_table(name: str, asked: Asked) -> ProgramTable:
    """The table of that name."""
    return ProgramTable(name, "map", {}, asked=asked)
