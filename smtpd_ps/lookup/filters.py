"""Applies the filters of a listener to its sessions.

Runs in lookup, on what smtp says of its clients. What a builtin filter decides is pure
(pure/filter_rules), a program is asked by lookup/filter_program; here is what they need from outside: the
client's name, and DNS lists, which never hold up another session.
"""

from collections.abc import Callable, Mapping
from functools import partial

from smtpd_ps.contract.messages import FilterAnswer, FilterCredit, FilterData, FilterHooks, FilterReport, FilterRequest
from smtpd_ps.contract.messages.filters import FILTER_WINDOW_BYTES
from smtpd_ps.contract.settings import FILTER_EVENTS, FILTER_PHASES, FilterSettings, LookupSettings
from smtpd_ps.contract.values import seat_of_session
from smtpd_ps.lookup.dns_lists import ListQuery
from smtpd_ps.lookup.filter_program import FilterProgram
from smtpd_ps.lookup.filter_stream import FilterStream
from smtpd_ps.lookup.outgoing_filters import OutgoingFilters
from smtpd_ps.lookup.programs import Programs
from smtpd_ps.lookup.resolver import Resolver
from smtpd_ps.lookup.sessions import Session
from smtpd_ps.lookup.table_asking import TableAsking
from smtpd_ps.pure.filter_protocol import Result
from smtpd_ps.pure.filter_reply import ReplyTextError, check_reply
from smtpd_ps.pure.filter_rules import (
    UNKNOWN,
    Facts,
    Filters,
    ListsNeeded,
    Outcome,
    ProgramNeeded,
    Step,
    Verdict,
    run,
)
from smtpd_ps.pure.table import Table, TableUnreadable
from smtpd_ps.runtime.loop import Loop

STREAMS_BYTES = 8 << 20  # of messages on their way to programs, all together
MOST_WINDOW_BYTES = 65_536  # of one of them
FAILURE = "4.3.0 Temporary failure, try again later"
_ALL_PHASES = (1 << len(FILTER_PHASES)) - 1
_ALL_EVENTS = (1 << len(FILTER_EVENTS)) - 1
_HARMLESS = ("quit", "rset", "noop")  # no program's failure keeps a client from these

Send = Callable[[FilterAnswer | FilterData | FilterCredit], None]
Say = Callable[[str], None]


class FilteredSession:
    """A session of a listener that has a filter."""

    __slots__ = ("confirmed", "filter", "held", "numbers", "session", "stream")

    def __init__(self, session: Session, name: str, numbers: dict[str, int]) -> None:
        self.session = session
        self.filter = name
        self.numbers = numbers  # which session this is to each program
        self.confirmed: bool | None = None
        self.held: list[FilterRequest] | None = []  # until DNS has told the client's name, or given up
        self.stream: FilterStream | None = None


class FilterDesk:
    """Answers FilterRequest. Raises KeyError for a table or filter that is missing."""

    def __init__(
        self,
        loop: Loop,
        settings: LookupSettings,
        tables: Mapping[str, Table],
        resolver: Resolver,
        programs: Programs,
        asking: TableAsking,
        send: Send,
        send_hooks: Callable[[int, FilterHooks], None],
        inform: Say,
        warn: Say,
    ) -> None:
        self.loop, self._settings, self.resolver, self.asking = loop, settings, resolver, asking
        self._send, self._send_hooks, self._inform, self.warn = send, send_hooks, inform, warn
        self._by_listener = dict(settings.listener_filters)
        self._sessions: dict[int, FilteredSession] = {}
        self._streams = 0
        self._told: dict[tuple[int, int], tuple[int, int]] = {}  # hooks, by session's process and listener
        admd = settings.admd or settings.hostname
        self.programs = {name: FilterProgram(loop, name, admd, self._program_said) for name in settings.procs}
        for name, program in self.programs.items():
            program.present = self._sessions
            programs.use("filter", name, program, program.figures)
        self.outgoing = OutgoingFilters(settings, self.programs, warn)
        self.use(tables)

    def use(self, tables: Mapping[str, Table]) -> None:
        """Apply the filters over other tables from now on."""
        self._filters = Filters(self._settings.filters, tables, self._settings.sub_address_delimiter)

    # Sessions.

    def opened(self, number: int, listener: int, session: Session) -> None:
        """A client has connected."""
        name = self._by_listener.get(listener)
        if name is None:
            return
        programs = self._filters.programs(name)
        numbers = {each.program: self.programs[each.program].session_number() for each in programs}
        self._sessions[number] = FilteredSession(session, name, numbers)
        if programs:
            self._tell_hooks(number, listener, name, programs)

    def _tell_hooks(self, number: int, listener: int, name: str, filters: tuple[FilterSettings, ...]) -> None:
        """Smtp learns what programs want before the first session in which that is known."""
        phases, events = self._filters.phases(name), 0
        for each in filters:
            program = self.programs[each.program]
            phases |= program.phases if program.known else _ALL_PHASES
            events |= program.events if program.known else _ALL_EVENTS
        where = seat_of_session(number), listener
        if self._told.get(where) != (phases, events):
            self._told[where] = phases, events
            self._send_hooks(seat_of_session(number), FilterHooks(listener, phases, events))

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
        filtered = self._sessions.pop(number, None)
        if filtered is None:
            return
        for name in filtered.numbers:
            self.programs[name].forget(number)
        if filtered.stream is not None:
            filtered.stream.drop()

    # Requests.

    def requested(self, request: FilterRequest) -> None:
        """Always answered by one FilterAnswer, unless the session ends first."""
        filtered = self._sessions.get(request.session)
        if filtered is None:
            self.warn(f"a filter is asked about session {request.session:016x}, which has none")
            self.answer(request, Verdict("reject", f"451 {FAILURE}"))
        elif filtered.held is not None and not filtered.held:
            filtered.held.append(request)  # one: smtp waits for the answer
        elif filtered.held:
            self.warn(f"smtp does not wait for the answer to a filter in session {request.session:016x}")
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
        _Question(self, filtered, request, self._filters.steps(filtered.filter, phase), facts).go_on(0)

    def answer(self, request: FilterRequest, verdict: Verdict) -> None:
        """What came of a request, for smtp and the log."""
        answer, text = verdict.answer, verdict.text
        if verdict.filter and answer != "proceed":
            self._inform(
                f'{request.session:016x} filter decided filter="{verdict.filter}" phase={request.phase} '
                f'result={answer} text="{text}"'
            )
        self._send(FilterAnswer(request.session, request.number, answer, text[:2048]))

    # Programs.

    def reported(self, message: FilterReport) -> None:
        """Smtp tells what happens in a session."""
        filtered = self._sessions.get(message.session)
        if filtered is None:
            self.warn(f"a report of session {message.session:016x}, which has no filter")
            return
        parameters = message.parameters
        if message.event == "link-connect":
            words = {True: "pass", False: "fail", None: "error"}
            parameters = (filtered.session.name or UNKNOWN, words[filtered.confirmed], *parameters)
        for name, number in filtered.numbers.items():
            self.programs[name].report(number, message.event, message.session, parameters)

    def say(self, session: int, kind: str, name: str, phase: str, text: str) -> None:
        """A filter reports: into the log, and to programs that want to be told."""
        self._inform(f'{session:016x} filter report filter="{name}" phase={phase} text="{text}"')
        filtered = self._sessions.get(session)
        if filtered is not None:
            for proc, number in filtered.numbers.items():
                self.programs[proc].report(number, "filter-report", session, (kind, name, text))

    def _program_said(self, session: int, name: str, text: str) -> None:
        filtered = self._sessions.get(session)
        if filtered is not None and name in filtered.numbers:
            self.say(session, "proc", name, "-", text)

    # Messages.

    def data(self, message: FilterData) -> None:
        """A piece of a message, for the programs that asked for its lines."""
        filtered = self._sessions.get(message.session)
        if filtered is None:
            self.warn(f"a message of session {message.session:016x}, which has no filter")
            return
        stream = filtered.stream
        if stream is None or stream.transaction != message.transaction:
            if stream is not None:
                stream.drop()
            stream = self._begin(filtered, message.session, message.transaction)
        stream.feed(message.data, message.last)

    def credit(self, message: FilterCredit) -> None:
        """Smtp takes more of a message."""
        filtered = self._sessions.get(message.session)
        if filtered is not None and filtered.stream is not None and filtered.stream.transaction == message.transaction:
            filtered.stream.credit(message.size_bytes)

    def _begin(self, filtered: FilteredSession, session: int, transaction: int) -> FilterStream:
        self._streams += 1
        window_bytes = max(FILTER_WINDOW_BYTES, min(MOST_WINDOW_BYTES, STREAMS_BYTES // self._streams))

        def over() -> None:
            self._streams -= 1

        stream = filtered.stream = FilterStream(self.loop, session, transaction, self._send, window_bytes, over)
        through: list[tuple[FilterProgram, int]] = []
        for each in self._filters.programs(filtered.filter):
            program, number = self.programs[each.program], filtered.numbers[each.program]
            if not program.wants("data-line") or (each.accept_on_failure and not program.serves(number)):
                continue
            through.append((program, number))
        if not stream.begin(through):
            stream.fail()
        return stream


class _Question:
    """One request on its way along a chain."""

    def __init__(
        self,
        desk: FilterDesk,
        filtered: FilteredSession,
        request: FilterRequest,
        steps: tuple[Step, ...],
        facts: Facts,
    ) -> None:
        self._desk, self._filtered, self._request, self._steps, self._facts = desk, filtered, request, steps, facts

    def go_on(self, at: int, listed: bool | None = None) -> None:
        """From step `at`."""
        said: list[tuple[str, str]] = []

        def decide() -> Outcome:
            said.clear()
            return run(self._steps, self._facts, said, at, listed, self._wants)

        def decided(outcome: Outcome | TableUnreadable, _heard: object) -> None:
            if isinstance(outcome, TableUnreadable):
                self._desk.warn(f"filter: {outcome}")
                outcome = Verdict("reject", f"451 {FAILURE}")
            self._follow(outcome, said)

        self._desk.asking.run(decide, decided)

    def _follow(self, outcome: Outcome, said: list[tuple[str, str]]) -> None:
        desk, request = self._desk, self._request
        for name, text in said:
            desk.say(request.session, "builtin", name, request.phase, text)
        match outcome:
            case ListsNeeded(names, step):
                ListQuery(desk.loop, desk.resolver, names, desk.warn, partial(self.go_on, step))
            case ProgramNeeded(settings, step):
                self._ask(settings, step)
            case verdict:
                desk.answer(request, verdict)

    def _wants(self, program: str) -> bool:
        return self._desk.programs[program].wants(self._request.phase)

    def _ask(self, settings: FilterSettings, at: int) -> None:
        request = self._request
        program = self._desk.programs[settings.program]
        number = self._filtered.numbers[settings.program]
        parameters: tuple[str, ...] = (request.parameter,)
        if request.phase == "connect":
            parameters = (self._filtered.session.name or UNKNOWN, _bracketed(request.parameter))
        program.ask(number, request.session, request.phase, parameters, partial(self._replied, settings, at))

    def _replied(self, settings: FilterSettings, at: int, result: Result | None) -> None:
        request, desk = self._request, self._desk
        if result is None:
            if settings.accept_on_failure or request.phase in _HARMLESS:
                self.go_on(at + 1)
            elif request.phase == "connect":
                desk.answer(request, Verdict("disconnect", f"421 {FAILURE}", settings.name))
            else:
                desk.answer(request, Verdict("reject", f"451 {FAILURE}", settings.name))
            return
        match result.answer:
            case "proceed":
                self.go_on(at + 1)
            case "report":
                desk.say(request.session, "proc", settings.program, request.phase, result.text)
                self.go_on(at + 1)
            case "reject" | "disconnect":
                try:
                    check_reply(result.text)
                    desk.answer(request, Verdict(result.answer, result.text, settings.name))
                except ReplyTextError as error:
                    desk.warn(f'filter {settings.name}: "{result.text}": {error}')
                    desk.answer(request, Verdict("disconnect", "421 4.3.0 Internal server error", settings.name))
            case "junk" | "rewrite":
                if request.phase in ("commit", *_HARMLESS) or (result.answer == "rewrite" and not request.parameter):
                    desk.warn(f"filter {settings.name}: {result.answer} means nothing in phase {request.phase}")
                    self.go_on(at + 1)
                else:
                    desk.answer(request, Verdict(result.answer, result.text, settings.name))


def _bracketed(address: str) -> str:
    """As OpenSMTPD writes an address: IPv6 in brackets."""
    return f"[{address}]" if ":" in address else address
