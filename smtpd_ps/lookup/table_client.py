"""One table program: what it offers, the requests in flight, and what becomes of them.

Runs in lookup; takes lines that a program of the operator's wrote (pure/table_protocol). Many requests
are in flight at once, each with its own patience. A request is always answered, by the program or, as
an error, by us: when it is late, when the program has ended or does not keep to the protocol. Keys and
values are never logged: a key may be a password.
"""

import os
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from smtpd_ps.lookup.program_pipe import LinePipe
from smtpd_ps.lookup.programs import Figures, State
from smtpd_ps.pure.table_protocol import (
    KeyRefused,
    Operation,
    ProtocolError,
    Reply,
    Service,
    Status,
    answers,
    handshake,
    missing,
    parse_reply,
    registered,
    request,
)
from smtpd_ps.runtime.log import escape
from smtpd_ps.runtime.loop import Loop, Timer

PATIENCE_SECS = 20.0  # for one answer; SMTP's clients wait five minutes for theirs (RFC 5321 4.5.3.2.3)
SILENCE_SECS = 60.0  # requests late and no answer to anything: it hangs, and is started again
HANDSHAKE_SECS = 30.0
MAX_IN_FLIGHT = 4096
MAX_LATE = 4096  # ids that may still be answered, too late
LATENCIES = 1024  # the newest, for percentiles


@dataclass(frozen=True, slots=True)
class Answer:
    """`value` of a lookup or fetch that found something; `why` of an error is for the operator alone."""

    status: Status
    value: str = ""
    why: str = ""


Done = Callable[[Answer], None]


@dataclass(slots=True)
class _Request:
    operation: Operation
    service: Service | None
    sent_at: float
    done: Done
    timer: Timer


class TableClient:
    """Speaks to one table program (a User of lookup/programs). `needed` are the services that its uses
    need, one of each group; `version` is what it is told that we are.
    """

    def __init__(
        self,
        loop: Loop,
        name: str,
        needed: tuple[tuple[Service, ...], ...],
        version: str,
        warn: Callable[[str], None],
    ) -> None:
        self._loop, self.name, self._needed, self._version, self._warn = loop, name, needed, version, warn
        self._pipe: LinePipe | None = None
        self.services: frozenset[Service] = frozenset()
        self.ready = False  # it has registered
        self.lacks: tuple[str, ...] = ()  # services that are needed and not offered
        self._registering: set[Service] = set()
        self._handshake: Timer | None = None
        self._requests: dict[int, _Request] = {}
        self._late: deque[int] = deque(maxlen=MAX_LATE)
        self._last = int.from_bytes(os.urandom(4), "big")
        self._silent_since: float | None = None  # of the first request after the last answer
        self.latencies_secs: deque[float] = deque(maxlen=LATENCIES)
        self.asked = self.failed = 0

    @property
    def greeting(self) -> bool:
        """Whether it runs and has not registered yet."""
        return self._pipe is not None and not self.ready

    def figures(self) -> Figures:
        """For `show tables`."""
        state: State = "running" if self.ready else "registering" if self.running else "not running"
        return Figures(
            state, self.in_flight, self.asked, self.failed, tuple(self.latencies_secs), " ".join(sorted(self.services))
        )

    @property
    def in_flight(self) -> int:
        """Requests without an answer."""
        return len(self._requests)

    @property
    def running(self) -> bool:
        """Whether there is a program to speak to."""
        return self._pipe is not None

    # Asking.

    def check(self, service: Service, key: str, done: Done) -> None:
        """Is `key` in the table? `done` is called once, later."""
        self._ask("check", service, key, done)

    def lookup(self, service: Service, key: str, done: Done) -> None:
        """The value of `key`."""
        self._ask("lookup", service, key, done)

    def fetch(self, service: Service, done: Done) -> None:
        """The next value."""
        self._ask("fetch", service, "", done)

    def update(self, done: Done) -> None:
        """Have it read again what it reads."""
        self._ask("update", None, "", done)

    def _ask(self, operation: Operation, service: Service | None, key: str, done: Done) -> None:
        refusal = self._refusal(service)
        if refusal:
            self._refuse(done, refusal)
            return
        assert self._pipe is not None
        number = self._next_number()
        try:
            line = request(self.name, operation, number, time.time(), service, key)
        except KeyRefused:
            # Such a key is in no table. A check of a password with one fails like any other.
            self._loop.call_soon(lambda: done(Answer("not-found")))
            return
        if not self._pipe.send(line):
            self._refuse(done, "it does not read what it is asked")
            return
        now = self._loop.now()
        if self._silent_since is None:
            self._silent_since = now
        timer = self._loop.call_later(PATIENCE_SECS, lambda: self._too_late(number))
        self._requests[number] = _Request(operation, service, now, done, timer)
        self.asked += 1

    def _refusal(self, service: Service | None) -> str:
        if self._pipe is None or not self.ready:
            return "it does not run now"
        if service is not None and service not in self.services:
            return f"it does not offer service {service}"
        if len(self._requests) >= MAX_IN_FLIGHT:
            return f"{MAX_IN_FLIGHT} requests have no answer yet"
        if not self._pipe.writable:
            return "it does not read what it is asked"
        return ""

    def _refuse(self, done: Done, why: str) -> None:
        self.failed += 1
        self._loop.call_soon(lambda: done(Answer("error", "", f"table {self.name}: {why}")))

    def _next_number(self) -> int:
        while True:
            self._last = (self._last + 1) & 0xFFFFFFFF
            if self._last not in self._requests:
                return self._last

    # What comes.

    def opened(self, pipe: LinePipe) -> None:
        """A new run: say who we are."""
        self._pipe, self.ready = pipe, False
        self._registering = set()
        self._late.clear()
        self._silent_since = None
        for line in handshake(self.name, self._version):
            pipe.send(line)
        self._handshake = self._loop.call_later(
            HANDSHAKE_SECS, lambda: pipe.fail(f"it has not registered its services within {HANDSHAKE_SECS:.0f} s")
        )

    def line(self, line: bytes) -> None:
        """A line that it wrote."""
        assert self._pipe is not None
        try:
            if not self.ready:
                self._register(line)
            else:
                self._answered(parse_reply(line))
        except ProtocolError as error:
            self._pipe.fail(str(error))

    def gone(self, why: str) -> None:
        """That run is over: what was asked of it fails."""
        self._pipe, self.ready = None, False
        if self._handshake is not None:
            self._handshake.cancel()
        requests, self._requests = self._requests, {}
        for each in requests.values():
            each.timer.cancel()
            self._refuse(each.done, why)

    def _register(self, line: bytes) -> None:
        service = registered(line)
        if service is not None:
            self._registering.add(service)
            return
        if not self._registering:
            raise ProtocolError("it registers no service")
        if self._handshake is not None:
            self._handshake.cancel()
        self.services, self.ready = frozenset(self._registering), True
        self.lacks = missing(self._needed, self.services)
        for text in self.lacks:
            self._warn(f"table {self.name} does not offer service {text}")

    def _answered(self, reply: Reply) -> None:
        self._silent_since = None
        each = self._requests.get(reply.number)
        if each is None:
            if reply.number not in self._late:
                raise ProtocolError("an answer to nothing that was asked, or a second one")
            self._late.remove(reply.number)
            return
        if not answers(reply, each.operation):
            raise ProtocolError(f"{reply.operation}-result in answer to {each.operation}")
        del self._requests[reply.number]
        each.timer.cancel()
        self.latencies_secs.append(self._loop.now() - each.sent_at)
        if reply.status == "error":
            self.failed += 1
            # What it says of a password may have the password in it.
            text = escape(reply.text)[:500] if each.service != "auth" else ""
            why = f"table {self.name}: {text or 'it failed'}"
            each.done(Answer("error", "", why))
        else:
            each.done(Answer(reply.status, reply.text))

    def _too_late(self, number: int) -> None:
        each = self._requests.pop(number)
        self._late.append(number)
        now = self._loop.now()
        self.latencies_secs.append(now - each.sent_at)
        self._refuse(each.done, f"no answer within {PATIENCE_SECS:.0f} s")
        if self._silent_since is not None and now - self._silent_since >= SILENCE_SECS and self._pipe is not None:
            self._pipe.fail(f"it has answered nothing for {SILENCE_SECS:.0f} s")
