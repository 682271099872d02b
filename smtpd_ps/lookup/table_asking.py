"""Computations over tables, some of whose entries only a program knows.

Runs in lookup. A computation (pure) is run; where it needs answers of table programs
(pure/table_program.AnswersNeeded) they are asked, all at once, and it is run again with them, until it
has all. Without such a table it is run once, at once.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from smtpd_ps.lookup.table_client import Answer, TableClient
from smtpd_ps.pure.table import TableUnreadable
from smtpd_ps.pure.table_program import AnswersNeeded, Asked, TableAnswer, TableQuestion
from smtpd_ps.pure.table_protocol import Service

MAX_ROUNDS = 200  # of one computation; expansion goes ten levels deep, with a few keys each
MAX_QUESTIONS = 20_000

T = TypeVar("T")
Known = dict[TableQuestion, TableAnswer]


class TableAsking:
    """`asked` is what the tables of programs read; `clients` speak to them, by the tables' names."""

    def __init__(self, asked: Asked | None = None, clients: Mapping[str, TableClient] | None = None) -> None:
        self._asked, self.clients = asked or Asked(), clients or {}

    def run(
        self,
        work: Callable[[], T],
        done: Callable[[T | TableUnreadable, Known], None],
        known: Known | None = None,
    ) -> None:
        """Call `done` with what `work` returns, or with why a table could not be read, and with the
        answers that went into it (none: it depends on no program). At once where nothing must be asked.
        `known` are answers of an earlier run for the same request.
        """
        self._run(work, done, known or {}, 0)

    def _run(
        self, work: Callable[[], T], done: Callable[[T | TableUnreadable, Known], None], known: Known, rounds: int
    ) -> None:
        before = self._asked.known
        self._asked.known = known
        result: T | TableUnreadable
        try:
            result = work()
        except AnswersNeeded as needed:
            if rounds >= MAX_ROUNDS or len(known) + len(needed.questions) > MAX_QUESTIONS:
                result = TableUnreadable("too many questions to table programs for one request")
            else:
                self._ask(needed.questions, lambda more: self._run(work, done, {**known, **more}, rounds + 1))
                return
        except TableUnreadable as error:
            result = error
        finally:
            self._asked.known = before
        done(result, known)

    def _ask(self, questions: frozenset[TableQuestion], done: Callable[[Known], None]) -> None:
        answers: Known = {}

        def answered(question: TableQuestion, answer: Answer) -> None:
            answers[question] = TableAnswer(answer.status, answer.why or answer.value)
            if len(answers) == len(questions):
                done(answers)

        for question in questions:
            client, told = self.clients[question.table], partial(answered, question)
            match question.operation:
                case "check":
                    client.check(question.service, question.key, told)
                case "lookup":
                    client.lookup(question.service, question.key, told)
                case "fetch":
                    client.fetch(question.service, told)

    def offers(self, table: str, service: Service) -> bool:
        """Whether the program of that table has registered the service."""
        return service in self.clients[table].services
