"""Applies the filters of a listener to its sessions.

Runs in lookup, on what smtp says of its clients. What a filter decides is pure (pure/filter_rules);
here is what it needs from outside: the client's name, and DNS lists, which never hold up another
session.
"""

from collections.abc import Callable, Mapping
from functools import partial

from smtpd_ps.contract.messages import FilterAnswer, FilterRequest
from smtpd_ps.contract.settings import LookupSettings
from smtpd_ps.lookup.dns_wire import Type
from smtpd_ps.lookup.resolver import Answer, Resolver, Status
from smtpd_ps.lookup.sessions import Session
from smtpd_ps.pure.filter_rules import Facts, Filters, ListsNeeded, Step, lists, run
from smtpd_ps.pure.table import Table
from smtpd_ps.runtime.loop import Loop, Timer

PATIENCE_SECS = 10.0  # with DNS lists, all those of one filter

Reply = Callable[[FilterAnswer], None]
Say = Callable[[str], None]


class FilteredSession:
    """A session of a listener that has a filter."""

    __slots__ = ("confirmed", "filter", "held", "session")

    def __init__(self, session: Session, name: str) -> None:
        self.session = session
        self.filter = name
        self.confirmed: bool | None = None
        self.held: list[FilterRequest] | None = []  # until DNS has told the client's name, or given up


class FilterDesk:
    """Answers FilterRequest. Raises KeyError for a table or filter that is missing."""

    def __init__(
        self,
        loop: Loop,
        settings: LookupSettings,
        tables: Mapping[str, Table],
        resolver: Resolver,
        reply: Reply,
        inform: Say,
        warn: Say,
    ) -> None:
        self._loop, self._settings, self._resolver = loop, settings, resolver
        self._reply, self._inform, self._warn = reply, inform, warn
        self._by_listener = dict(settings.listener_filters)
        self._sessions: dict[int, FilteredSession] = {}
        self.use(tables)

    def use(self, tables: Mapping[str, Table]) -> None:
        """Apply the filters over other tables from now on."""
        self._filters = Filters(self._settings.filters, tables, self._settings.sub_address_delimiter)

    def opened(self, number: int, listener: int, session: Session) -> None:
        """A client has connected."""
        name = self._by_listener.get(listener)
        if name is not None:
            self._sessions[number] = FilteredSession(session, name)

    def named(self, number: int, confirmed: bool) -> None:
        """Lookup has found out the client's name, or given up."""
        filtered = self._sessions.get(number)
        if filtered is None or filtered.held is None:
            return
        filtered.confirmed = confirmed if filtered.session.name_told else None
        held, filtered.held = filtered.held, None
        for request in held:
            self._decide(filtered, request)

    def closed(self, number: int) -> None:
        """Forget it."""
        self._sessions.pop(number, None)

    def requested(self, request: FilterRequest) -> None:
        """Always answered by one FilterAnswer, unless the session ends first."""
        filtered = self._sessions.get(request.session)
        if filtered is None:
            self._warn(f"a filter is asked about session {request.session:016x}, which has none")
            self._reply(FilterAnswer(request.session, request.number, "reject", "451 4.3.0 Temporary failure"))
        elif filtered.held is not None and not filtered.held:
            filtered.held.append(request)  # one: smtp waits for the answer
        elif filtered.held:
            self._warn(f"smtp does not wait for the answer to a filter in session {request.session:016x}")
        else:
            self._decide(filtered, request)

    def _decide(self, filtered: FilteredSession, request: FilterRequest) -> None:
        session, phase = filtered.session, request.phase
        parameter = request.parameter.lower()
        facts = Facts(
            address=session.address,
            name=session.name.lower() if session.name_told else None,
            confirmed=filtered.confirmed,
            user=session.user.lower() if session.user is not None else None,
            helo=parameter if phase in ("helo", "ehlo") else request.helo.lower(),
            sender=parameter if phase == "mail-from" else request.sender.lower(),
            parameter=parameter,
        )
        self._run(request, self._filters.steps(filtered.filter, phase), facts, 0, None)

    def _run(self, request: FilterRequest, steps: tuple[Step, ...], facts: Facts, at: int, listed: bool | None) -> None:
        said: list[tuple[str, str]] = []
        outcome = run(steps, facts, said, at, listed)
        for name, text in said:
            self._inform(f'{request.session:016x} filter report filter="{name}" phase={request.phase} text="{text}"')
        if isinstance(outcome, ListsNeeded):
            again = partial(self._run, request, steps, facts, outcome.at)
            _ListQuery(self._loop, self._resolver, outcome.names, self._warn, again)
            return
        if outcome.filter and outcome.answer != "proceed":
            self._inform(
                f'{request.session:016x} filter decided filter="{outcome.filter}" phase={request.phase} '
                f'result={outcome.answer} text="{outcome.text}"'
            )
        self._reply(FilterAnswer(request.session, request.number, outcome.answer, outcome.text))


class _ListQuery:
    """Whether any of some names is in its DNS list. `done` is called once, with False where nobody can say."""

    def __init__(
        self,
        loop: Loop,
        resolver: Resolver,
        names: tuple[str, ...],
        warn: Say,
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
