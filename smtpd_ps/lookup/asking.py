"""Questions to the parent, each asked once at a time, with answers that are kept for a while.

Runs in lookup. Every question is answered: where too many are under way or the parent does not
answer in time, by the answer that says so.
"""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from smtpd_ps.lookup.cache import Cache
from smtpd_ps.runtime.loop import Loop, Timer

PATIENCE_SECS = 30.0
MAX_UNDER_WAY = 4096

Q = TypeVar("Q", bound=Hashable)
A = TypeVar("A")


class Asking(Generic[Q, A]):
    """Asks with `send(number, question)`; `keep_secs` says how long an answer is good."""

    def __init__(
        self,
        loop: Loop,
        send: Callable[[int, Q], None],
        unsure: A,
        keep_secs: Callable[[A], float],
        entries: int,
    ) -> None:
        self._loop, self._send, self._unsure, self._keep_secs = loop, send, unsure, keep_secs
        self._entries = entries
        self._known: Cache[Q, A] = Cache(entries)
        self._waiting: dict[Q, list[Callable[[Q, A], None]]] = {}
        self._queries: dict[int, tuple[Q, Timer]] = {}
        self._last = 0

    def known(self, question: Q) -> A | None:
        """What is known now."""
        return self._known.get(question, self._loop.now())

    def forget(self) -> None:
        """Ask anew from now on."""
        self._known = Cache(self._entries)

    def ask(self, question: Q, done: Callable[[Q, A], None]) -> None:
        """Call `done` once, later, with the answer."""
        waiting = self._waiting.get(question)
        if waiting is not None:
            waiting.append(done)
            return
        if len(self._queries) >= MAX_UNDER_WAY:
            self._loop.call_soon(lambda: done(question, self._unsure))
            return
        self._last = self._last % (2**32 - 1) + 1
        number = self._last
        self._waiting[question] = [done]
        timer = self._loop.call_later(PATIENCE_SECS, lambda: self.answered(number, self._unsure))
        self._queries[number] = (question, timer)
        self._send(number, question)

    def asked(self, number: int) -> Q | None:
        """The question of that number, while its answer is waited for."""
        query = self._queries.get(number)
        return query[0] if query is not None else None

    def answered(self, number: int, answer: A) -> None:
        """The parent's answer; one that nobody waits for is dropped."""
        query = self._queries.pop(number, None)
        if query is None:
            return
        question, timer = query
        timer.cancel()
        keep_secs = self._keep_secs(answer)
        if keep_secs:
            self._known.put(question, answer, self._loop.now() + keep_secs)
        for done in self._waiting.pop(question):
            done(question, answer)
