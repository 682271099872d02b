"""One filter program: what it wants, what it was asked, and the messages that pass through it.

Runs in lookup; the lines of smtpd-filters(7) are pure/filter_protocol, the pipe and its bounds
lookup/program_pipe. A run that breaks the protocol, or answers nothing for PATIENCE_SECS, is given up: what was
asked of it fails, and sessions that began with it have no other.
"""

import time
from collections import deque
from collections.abc import Callable, Container
from typing import Protocol

from smtpd_ps import __version__
from smtpd_ps.contract.settings import FILTER_EVENTS, FILTER_PHASES, FilterEvent, FilterPhase
from smtpd_ps.lookup.program_pipe import LinePipe
from smtpd_ps.lookup.programs import Figures, State
from smtpd_ps.pure import filter_protocol as protocol
from smtpd_ps.pure.filter_protocol import DataLine, FilterProtocolError, Register, Result, Subsystem, Told
from smtpd_ps.pure.received import PROGRAM
from smtpd_ps.runtime.loop import Loop, Timer

PATIENCE_SECS = 120.0  # for an answer
REGISTER_SECS = 30.0
SESSION_TIMEOUT_SECS = 300  # what programs are told
LATENCIES = 1000  # of the newest answers are kept
MAX_EARLY = 10_000  # requests and reports kept until it has registered

Done = Callable[[Result | None], None]  # None: the program has failed
_EVENT_BITS: dict[FilterEvent, int] = {event: 1 << index for index, event in enumerate(FILTER_EVENTS)}
_PHASE_BITS: dict[FilterPhase, int] = {phase: 1 << index for index, phase in enumerate(FILTER_PHASES)}


class Passage(Protocol):
    """A message on its way through a program."""

    def came_out(self, line: bytes) -> None:
        """A line of it, dots doubled; "." ends it."""

    def lost(self) -> None:
        """The program has failed."""

    def pump(self) -> None:
        """The program takes lines again."""

    @property
    def waits(self) -> bool:
        """Whether it is the program's turn."""


class FilterProgram:
    """The `User` of one program (lookup/programs). `told` is called with what it reports itself."""

    def __init__(
        self,
        loop: Loop,
        name: str,
        admd: str,
        told: Callable[[int, str, str], None],
        patience_secs: float = PATIENCE_SECS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._loop, self.name, self._admd, self._told = loop, name, admd, told
        self._patience_secs, self.clock = patience_secs, clock
        self._pipe: LinePipe | None = None
        self.known = False  # it has registered once, so that what it wants is known
        self.phases = self.events = self.outgoing = 0
        self.subsystems: tuple[Subsystem, ...] = ("smtp-in",)  # that it is used for
        self.ready = False
        self.first = 0  # sessions with a lower number began with an earlier run
        self._sessions = 0  # number of the last session
        self._registering = Register()
        self._early: list[Callable[[], None]] = []
        self._asked: dict[int, tuple[int, Done, Timer, float]] = {}  # by session: token, who waits, and since when
        self._count = self._failed = 0  # requests, and those that it owed when it failed
        self._latencies_secs: deque[float] = deque(maxlen=LATENCIES)
        self._passages: dict[int, tuple[int, Passage]] = {}
        self._pausing: set[Passage] = set()
        self._token = 0
        self.present: Container[int] = ()  # the sessions that there are
        self._timer: Timer | None = None  # of the registration, later of the passages

    # Sessions.

    def session_number(self) -> int:
        """A number for a session that begins now."""
        self._sessions += 1
        return self._sessions

    def serves(self, number: int) -> bool:
        """Whether the session with that number may be asked about."""
        return self.ready and number > self.first

    def wants(self, phase: FilterPhase) -> bool:
        """Whether it is to be asked in this phase, as far as is known."""
        return not self.known or bool(self.phases & _PHASE_BITS[phase])

    def forget(self, session: int) -> None:
        """The session is over."""
        asked = self._asked.pop(session, None)
        if asked is not None:
            asked[2].cancel()

    def figures(self) -> Figures:
        """For `show filters`."""
        state: State = "not running" if self._pipe is None else "running" if self.ready else "registering"
        wanted: list[str] = [phase for phase, bit in _PHASE_BITS.items() if self.phases & bit]
        wanted += [event for event, bit in _EVENT_BITS.items() if self.events & bit]
        wanted += [f"smtp-out:{event}" for event, bit in _EVENT_BITS.items() if self.outgoing & bit]
        in_flight = len(self._asked) + len(self._passages)
        return Figures(state, in_flight, self._count, self._failed, tuple(self._latencies_secs), " ".join(wanted))

    # Asking and telling.

    def ask(self, number: int, session: int, phase: FilterPhase, parameters: tuple[str, ...], done: Done) -> None:
        """Ask, for the session with that number. `done` is called once, unless the session is forgotten."""
        pipe = self._pipe
        if pipe is None or number <= self.first:
            done(None)
        elif not self.ready:
            self._later(lambda: self.ask(number, session, phase, parameters, done), lambda: done(None))
        elif not self.wants(phase):
            done(Result(session, 0, "proceed"))
        else:
            token = self._new_token()
            if not pipe.send(protocol.request(self.clock(), phase, session, token, *parameters)):
                done(None)
                self._give_up("it does not read what it is asked")
                return
            timer = self._loop.call_later(self._patience_secs, lambda: self._give_up("it does not answer"))
            self._asked[session] = token, done, timer, self._loop.now()
            self._count += 1

    def report(
        self,
        number: int,
        event: FilterEvent,
        session: int,
        parameters: tuple[str, ...],
        subsystem: Subsystem = "smtp-in",
    ) -> None:
        """Tell it, if it wants to be told."""
        pipe = self._pipe
        if pipe is None or number <= self.first:
            return
        if not self.ready:
            self._later(lambda: self.report(number, event, session, parameters, subsystem), lambda: None)
        elif (self.events if subsystem == "smtp-in" else self.outgoing) & _EVENT_BITS[event] and not pipe.send(
            protocol.report(self.clock(), event, session, *parameters, subsystem=subsystem)
        ):
            self._give_up("it does not read what it is told")

    def _later(self, do: Callable[[], None], lost: Callable[[], None]) -> None:
        if len(self._early) >= MAX_EARLY:
            lost()
            self._give_up("it does not register")
        else:
            self._early.append(do)

    def _new_token(self) -> int:
        self._token += 1
        return self._token

    # Messages.

    def enter(self, number: int, session: int, passage: Passage) -> int | None:
        """A message begins; the token of its lines, None where the program takes none."""
        if not self.serves(number):
            return None
        token = self._new_token()
        self._passages[session] = token, passage
        if self._timer is None:
            self._timer = self._loop.call_later(self._patience_secs, self._look_at_passages)
        return token

    def leave(self, session: int, passage: Passage) -> None:
        """The message is through, or over. Lines of it that still come are dropped."""
        entry = self._passages.get(session)
        if entry is not None and entry[1] is passage:
            del self._passages[session]
        self.resume(passage)

    @property
    def writable(self) -> bool:
        """Whether it takes lines of messages."""
        return self._pipe is not None and self._pipe.writable

    def send_line(self, line: bytes) -> bool:
        """A whole line of the protocol; False where it was not taken."""
        return self._pipe is not None and self._pipe.send(line)

    def pause(self, passage: Passage) -> None:
        """Read nothing more of what it writes, for the sake of one message."""
        if self._pipe is not None and not self._pausing:
            self._pipe.pause()
        self._pausing.add(passage)

    def resume(self, passage: Passage) -> None:
        """The message may go on."""
        if passage in self._pausing:
            self._pausing.discard(passage)
            if not self._pausing and self._pipe is not None:
                self._pipe.resume()

    def _pump(self) -> None:
        for _token, passage in list(self._passages.values()):
            passage.pump()

    def _look_at_passages(self) -> None:
        """Give up a program that does nothing about a message for too long."""
        self._timer = None
        if any(passage.waits for _token, passage in self._passages.values()) and not self._pausing:
            self._give_up("it does nothing about a message")
        elif self._passages:
            self._timer = self._loop.call_later(self._patience_secs, self._look_at_passages)

    # The User of a program.

    def opened(self, pipe: LinePipe) -> None:
        """A new run: say who we are."""
        self._pipe = pipe
        pipe.on_writable = self._pump
        self.first = self._sessions
        self._registering = Register()
        self._timer = self._loop.call_later(REGISTER_SECS, lambda: self._give_up("it does not register"))
        for line in protocol.handshake(f"{PROGRAM} {__version__}", SESSION_TIMEOUT_SECS, self._admd, self.subsystems):
            pipe.send(line)

    def line(self, line: bytes) -> None:
        """A line of the program."""
        try:
            if self.ready:
                self._take(line)
            else:
                self._register(protocol.parse_registration(line))
        except FilterProtocolError as error:
            self._give_up(str(error))

    def _register(self, said: Register) -> None:
        known = self._registering
        self._registering = Register(
            known.phases | said.phases, known.events | said.events, outgoing=known.outgoing | said.outgoing
        )
        if not said.ready:
            return
        self.phases, self.events = self._registering.phases, self._registering.events
        self.outgoing = self._registering.outgoing
        self.known = self.ready = True
        self._stop_timer()
        early, self._early = self._early, []
        for do in early:
            do()

    def _take(self, line: bytes) -> None:
        """Raises FilterProtocolError."""
        said = protocol.parse(line)
        match said:
            case DataLine():
                entry = self._passages.get(said.session)
                if entry is None:
                    return  # of a message that is over
                if entry[0] != said.token:
                    raise FilterProtocolError(f"a token that it was not given: {protocol.quoted(line)}")
                entry[1].came_out(said.line)
            case Result():
                asked = self._asked.get(said.session)
                if asked is not None and asked[0] == said.token:
                    del self._asked[said.session]
                    asked[2].cancel()
                    self._latencies_secs.append(self._loop.now() - asked[3])
                    asked[1](said)
                elif asked is not None or said.session in self.present:
                    raise FilterProtocolError(f"an answer that nobody waits for: {protocol.quoted(line)}")
            case Told():
                self._told(said.session, self.name, said.text)

    def gone(self, why: str) -> None:
        """The run is over."""
        del why
        self._pipe = None
        self.ready = False
        self._stop_timer()
        self._pausing.clear()
        asked, self._asked = self._asked, {}
        passages, self._passages = self._passages, {}
        early, self._early = self._early, []
        self._failed += len(asked) + len(passages)
        for _token, done, timer, _since in asked.values():
            timer.cancel()
            done(None)
        for _token, passage in passages.values():
            passage.lost()
        for do in early:
            do()  # which fails, now that there is no run

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self, why: str) -> None:
        if self._pipe is not None:
            self._pipe.fail(why)
