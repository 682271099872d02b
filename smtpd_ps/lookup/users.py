"""Which local users exist, as far as the parent has said.

Runs in lookup, which cannot read the user database itself. Answers are kept for a minute,
absence for ten seconds, so that a new user gets mail soon.
"""

from collections.abc import Callable, Iterable

from smtpd_ps.contract.messages import UserInfo, UserQuery
from smtpd_ps.lookup.cache import Cache
from smtpd_ps.pure.expand import UserState
from smtpd_ps.runtime.loop import Loop, Timer

FOUND_SECS = 60.0
ABSENT_SECS = 10.0
PATIENCE_SECS = 30.0
CACHE_ENTRIES = 20_000
MAX_UNDER_WAY = 4096
MAX_NAME = 255

Answers = dict[str, UserState]


class Users:
    """Asks the parent, each name once at a time."""

    def __init__(self, loop: Loop, send: Callable[[UserQuery], None]) -> None:
        self._loop, self._send = loop, send
        self._known: Cache[str, UserState] = Cache(CACHE_ENTRIES)
        self._waiting: dict[str, list[Callable[[str, UserState], None]]] = {}
        self._queries: dict[int, tuple[str, Timer]] = {}
        self._last = 0

    def state(self, user: str) -> UserState:
        """What is known now."""
        return self._known.get(user, self._loop.now()) or UserState.UNKNOWN

    def ask(self, users: Iterable[str], done: Callable[[Answers], None]) -> None:
        """Call `done` once, later, with the state of all of them (none is UNKNOWN)."""
        missing = set(users)
        answers: Answers = {}

        def one(user: str, state: UserState) -> None:
            answers[user] = state
            if len(answers) == len(missing):
                done(answers)

        for user in missing:
            self._ask_one(user, one)

    def _ask_one(self, user: str, done: Callable[[str, UserState], None]) -> None:
        waiting = self._waiting.get(user)
        if waiting is not None:
            waiting.append(done)
            return
        if len(self._queries) >= MAX_UNDER_WAY:
            self._loop.call_soon(lambda: done(user, UserState.UNSURE))
            return
        if len(user) > MAX_NAME:
            self._loop.call_soon(lambda: done(user, UserState.ABSENT))
            return
        self._last = self._last % (2**32 - 1) + 1
        number = self._last
        self._waiting[user] = [done]
        timer = self._loop.call_later(PATIENCE_SECS, lambda: self.answered(UserInfo(number, False, True)))
        self._queries[number] = (user, timer)
        self._send(UserQuery(number, user))

    def answered(self, info: UserInfo) -> None:
        """The parent's answer."""
        query = self._queries.pop(info.query, None)
        if query is None:
            return  # it came after its time
        user, timer = query
        timer.cancel()
        state = UserState.UNSURE if info.temporary else UserState.FOUND if info.found else UserState.ABSENT
        if state is not UserState.UNSURE:
            keep = FOUND_SECS if state is UserState.FOUND else ABSENT_SECS
            self._known.put(user, state, self._loop.now() + keep)
        for done in self._waiting.pop(user):
            done(user, state)
