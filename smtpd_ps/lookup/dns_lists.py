"""Is a client in a DNS list?

Runs in lookup, on what name servers say. The answer comes within PATIENCE_SECS; a list that does not
answer does not have the client.
"""

from collections.abc import Callable
from functools import partial

from smtpd_ps.lookup.dns_wire import Type
from smtpd_ps.lookup.resolver import Answer, Resolver, Status
from smtpd_ps.pure.filter_rules import lists
from smtpd_ps.runtime.loop import Loop, Timer

PATIENCE_SECS = 10.0  # with all the lists of one filter


class ListQuery:
    """Whether any of some names is in its DNS list. `done` is called once, with False where nobody can say."""

    def __init__(
        self,
        loop: Loop,
        resolver: Resolver,
        names: tuple[str, ...],
        warn: Callable[[str], None],
        done: Callable[[bool], None],
    ) -> None:
        self._left = len(names)
        self._warn = warn
        self._done: Callable[[bool], None] | None = done
        self._timer: Timer = loop.call_later(PATIENCE_SECS, partial(self._finish, False))
        for name in names:
            resolver.ask(name, Type.A, partial(self._answered, name))

    def _answered(self, name: str, answer: Answer) -> None:
        self._left -= 1
        if answer.status is Status.TEMPORARY and self._done is not None:
            self._warn(f"the DNS list at {name} does not answer; taken as not listed")
        if any(lists(text) for text in answer.texts):
            self._finish(True)
        elif not self._left:
            self._finish(False)

    def _finish(self, listed: bool) -> None:
        self._timer.cancel()
        done, self._done = self._done, None
        if done is not None:
            done(listed)
