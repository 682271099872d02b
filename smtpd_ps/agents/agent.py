"""An agent: takes the jobs that delivery sends, stores those of one turn as a batch, answers.

Runs in agents, as the mail user.
"""

from collections.abc import Sequence
from typing import Protocol

from smtpd_ps.agents.bodies import Item
from smtpd_ps.agents.mbox import MailboxGone
from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Status
from smtpd_ps.runtime.channel import Handlers
from smtpd_ps.runtime.loop import Loop


class Store(Protocol):
    """A mailbox."""

    def store(self, items: Sequence[Item]) -> list[m.AgentResult]:
        """Store a batch and say what became of each. Raises MailboxGone."""


class Answers(Protocol):
    """The channel to delivery."""

    def send(self, message: m.Message) -> None:
        """Queue an answer."""

    def close(self, reason: str = "") -> None:
        """Answer no more."""


class Agent:
    """Collects jobs during a turn and stores them at its end."""

    def __init__(self, loop: Loop, store: Store) -> None:
        self._loop = loop
        self._store = store
        self._items: list[Item] = []
        self.answers: Answers | None = None  # set before the loop runs

    def handlers(self) -> Handlers:
        """For the channel to delivery."""
        return {m.AgentJob: self.take, m.AgentJobFile: self.take}

    def take(self, job: m.AgentJob | m.AgentJobFile, fd: int = -1) -> None:
        """A job; `fd` is the body of a large one."""
        self._items.append(Item(job, fd))
        self._loop.at_turn_end(self.deliver)

    def deliver(self) -> None:
        """Store what came, and answer."""
        items, self._items = self._items, []
        answers = self.answers
        assert answers is not None
        try:
            results = self._store.store(items)
        except MailboxGone:
            # A new agent is started for the next job; it gets the file that is there then.
            for item in items:
                answers.send(m.AgentResult(item.job.job, Status.TEMPFAIL, "the mailbox was replaced"))
            self._loop.call_soon(self._loop.stop)
            return
        finally:
            for item in items:
                item.close()
        for result in results:
            answers.send(result)
        if all(result.status == Status.TEMPFAIL for result in results):
            # What stands in the way may be our own confinement, to a folder that was replaced since.
            self._loop.call_soon(self._loop.stop)
