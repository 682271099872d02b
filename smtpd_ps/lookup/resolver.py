"""Names to records: cache, negative answers, aliases followed, equal questions asked once.

Runs in lookup. What servers say is believed only as far as it answers the question asked:
records of other names are left out, chains of CNAME are bounded, TTLs are capped.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial

from smtpd_ps.lookup.cache import Cache
from smtpd_ps.lookup.dns_exchange import Servers
from smtpd_ps.lookup.dns_wire import BadName, Mx, Question, Rcode, Reply, Type, question
from smtpd_ps.runtime import tracing
from smtpd_ps.runtime.loop import Loop

MAX_TTL_SECS = 86_400
MAX_NEGATIVE_TTL_SECS = 3600  # RFC 2308 5 suggests one to three hours
DEFAULT_NEGATIVE_TTL_SECS = 60  # without a SOA
MAX_CNAMES = 8
CACHE_ENTRIES = 20_000


class Status(Enum):
    """How a question was answered."""

    FOUND = "found"
    NO_DATA = "no data"  # the name exists, but has no such record
    NO_NAME = "no name"  # NXDOMAIN, or not a name at all
    TEMPORARY = "temporary"  # nobody could say


@dataclass(frozen=True, slots=True)
class Answer:
    """`values` of the type asked for; `expires` by the loop's clock."""

    status: Status
    expires: float
    values: tuple[str | Mx, ...] = ()

    @property
    def texts(self) -> tuple[str, ...]:
        """The values that are addresses or names."""
        return tuple(value for value in self.values if isinstance(value, str))


Done = Callable[[Answer], None]


class Resolver:
    """Answers from the cache at once, others later."""

    def __init__(self, loop: Loop, servers: Servers) -> None:
        self._loop, self._servers = loop, servers
        self._cache: Cache[tuple[str, Type], Answer] = Cache(CACHE_ENTRIES)
        self._waiting: dict[tuple[str, Type], list[Done]] = {}

    def ask(self, name: str, kind: Type, done: Done) -> None:
        """Call `done` once with the answer, possibly before this returns."""
        key = (name.lower().rstrip("."), kind)
        if tracing.mask & tracing.LOOKUP:
            tracing.write("lookup", f"{kind.name} {name}?")
        cached = self._cache.get(key, self._loop.now())
        if cached is not None:
            done(cached)
            return
        waiting = self._waiting.get(key)
        if waiting is not None:
            waiting.append(done)
            return
        try:
            asked = question(*key)
        except BadName:
            done(Answer(Status.NO_NAME, self._loop.now() + DEFAULT_NEGATIVE_TTL_SECS))
            return
        self._waiting[key] = [done]
        self._servers.ask(asked, partial(self._answered, key, asked, MAX_TTL_SECS, MAX_CNAMES))

    def _answered(
        self, key: tuple[str, Type], asked: Question, ttl_secs: int, cnames_left: int, reply: Reply | None
    ) -> None:
        """`ttl_secs` and `cnames_left` are what the CNAMEs followed so far leave."""
        now = self._loop.now()
        if reply is None:
            self._finish(key, Answer(Status.TEMPORARY, now))
            return
        name = asked.name
        while True:
            values: dict[str | Mx, None] = {}
            target = None
            for record in reply.records:
                if record.name != name:
                    continue
                if record.type is asked.type:
                    values[record.data] = None
                elif record.type is Type.CNAME:
                    assert isinstance(record.data, str)
                    target = record.data
                else:
                    continue
                ttl_secs = min(ttl_secs, record.ttl_secs)
            if values:
                self._finish(key, Answer(Status.FOUND, now + ttl_secs, tuple(values)))
                return
            if target is None:
                break
            name, cnames_left = target, cnames_left - 1
            if cnames_left < 0:
                self._finish(key, Answer(Status.TEMPORARY, now))
                return
        negative_secs = reply.negative_ttl_secs
        if name != asked.name and reply.rcode == Rcode.NOERROR and negative_secs is None:
            self._follow(key, name, asked.type, ttl_secs, cnames_left)
            return
        if negative_secs is None:
            negative_secs = DEFAULT_NEGATIVE_TTL_SECS
        status = Status.NO_NAME if reply.rcode == Rcode.NXDOMAIN else Status.NO_DATA
        self._finish(key, Answer(status, now + min(ttl_secs, negative_secs, MAX_NEGATIVE_TTL_SECS)))

    def _follow(self, key: tuple[str, Type], target: str, kind: Type, ttl_secs: int, cnames_left: int) -> None:
        """A server gave an alias and not what it stands for."""
        try:
            asked = question(target, kind)
        except BadName:
            self._finish(key, Answer(Status.NO_NAME, self._loop.now() + DEFAULT_NEGATIVE_TTL_SECS))
            return
        self._servers.ask(asked, partial(self._answered, key, asked, ttl_secs, cnames_left))

    def _finish(self, key: tuple[str, Type], answer: Answer) -> None:
        if answer.status is not Status.TEMPORARY:
            self._cache.put(key, answer, answer.expires)
        if tracing.mask & tracing.LOOKUP:
            values = " ".join(map(str, answer.values))
            tracing.write("lookup", f"{key[1].name} {key[0]}: {answer.status.value} {values}")
        for done in self._waiting.pop(key):
            done(answer)
