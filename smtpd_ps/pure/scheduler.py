"""Which envelopes are tried now: due times, routes, limits, fairness, pauses.

Pure; used in queue. The clock is handed in as Unix milliseconds. A `Ticket` is what one job will
be: envelopes of one message that share a route and a due time. What is here is only the window
that queue holds in memory; the store keeps the rest (queue/window).

    offer -> WAITING (due later) -> READY (due) -> take -> INFLIGHT -> answered ... -> GONE
"""

import heapq
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from smtpd_ps.contract.settings import RouteShape
from smtpd_ps.pure.scheduler_times import RELAY_SHAPES

# Part ("mta" or "mda"), action, and what the shape groups by.
RouteKey = tuple[str, str, str]

QUANTUM = 16  # tickets a route may take before the next route has its turn


def route_key(shape: RouteShape, action: str, user: str, dest: str) -> RouteKey:
    """How envelopes are grouped: agent by user, mx by destination domain, lmtp and host by action."""
    part = "mta" if shape in RELAY_SHAPES else "mda"
    match shape:
        case "agent":
            return (part, action, user)
        case "mx":
            return (part, action, dest.rpartition("@")[2].lower())
        case _:
            return (part, action, "")


@dataclass(frozen=True, slots=True)
class Limits:
    """What may be under way at once."""

    envelopes: int = 5000
    route_envelopes: int = 500
    total_bytes: int = 32 * 1024 * 1024


class State(IntEnum):
    """Of a ticket."""

    WAITING = 0
    READY = 1
    INFLIGHT = 2
    GONE = 3


class Ticket:
    """Envelopes of one message with one route, due together. `cost_bytes` is what it holds in memory.

    `began_ms` is when it was taken, once it is in flight.
    """

    __slots__ = ("began_ms", "cost_bytes", "due_ms", "evpids", "key", "msgid", "open", "state")

    def __init__(self, msgid: int, key: RouteKey, evpids: list[int], cost_bytes: int, due_ms: int) -> None:
        self.msgid = msgid
        self.key = key
        self.evpids = evpids
        self.cost_bytes = cost_bytes
        self.due_ms = due_ms
        self.began_ms = 0
        self.open = 0  # envelopes in flight and not answered yet
        self.state = State.WAITING


class Scheduler:
    """The window. Every method takes at most time proportional to what it returns."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waiting: list[tuple[int, int, Ticket]] = []
        self._order = 0
        self._ready: dict[RouteKey, deque[Ticket]] = {}
        self._turns: deque[RouteKey] = deque()  # routes that may be served, in turn
        self._full: set[RouteKey] = set()  # routes at their limit, not in _turns
        self._paused: dict[str, list[RouteKey]] = {}  # part -> routes set aside
        self._inflight_by_key: dict[RouteKey, int] = {}
        self.inflight_envelopes = 0
        self.inflight_bytes = 0
        self.ready_tickets = 0

    def limit(self, limits: Limits) -> None:
        """Other limits from now on; what is under way stays so."""
        self._limits = limits

    def offer(self, ticket: Ticket, now_ms: int) -> None:
        """Take a ticket into the window."""
        if ticket.due_ms > now_ms:
            ticket.state = State.WAITING
            self._order += 1
            heapq.heappush(self._waiting, (ticket.due_ms, self._order, ticket))
        else:
            self._make_ready(ticket)

    def _make_ready(self, ticket: Ticket) -> None:
        ticket.state = State.READY
        self.ready_tickets += 1
        line = self._ready.get(ticket.key)
        if line is None:
            self._ready[ticket.key] = deque((ticket,))
            self._serve(ticket.key)
        else:
            line.append(ticket)

    def _serve(self, key: RouteKey) -> None:
        aside = self._paused.get(key[0])
        if aside is not None:
            aside.append(key)
        elif self._inflight_by_key.get(key, 0) >= self._limits.route_envelopes:
            self._full.add(key)
        else:
            self._turns.append(key)

    def take(self, now_ms: int, most: int = 1_000_000) -> list[Ticket]:
        """Tickets to be tried now, routes in turn, within the limits. They are INFLIGHT from here.

        Where there are more than `most`, the rest comes with the next call (and a few may be over).
        """
        waiting = self._waiting
        while waiting and (waiting[0][0] <= now_ms or waiting[0][2].state is not State.WAITING):
            ticket = heapq.heappop(waiting)[2]
            if ticket.state is State.WAITING:
                self._make_ready(ticket)
        out: list[Ticket] = []
        turns = self._turns
        while turns and len(out) < most and not self._at_limit():
            key = turns.popleft()
            self._take_turn(key, out, now_ms)
            if not self._ready[key]:
                del self._ready[key]
            else:
                self._serve(key)
        return out

    def _take_turn(self, key: RouteKey, out: list[Ticket], now_ms: int) -> None:
        line = self._ready[key]
        inflight = self._inflight_by_key.get(key, 0)
        taken = 0
        while line and taken < QUANTUM and inflight < self._limits.route_envelopes and not self._at_limit():
            ticket = line.popleft()
            if ticket.state is not State.READY:
                continue  # withdrawn
            ticket.state = State.INFLIGHT
            ticket.began_ms = now_ms
            ticket.open = count = len(ticket.evpids)
            taken += 1
            inflight += count
            self.ready_tickets -= 1
            self.inflight_envelopes += count
            self.inflight_bytes += ticket.cost_bytes
            out.append(ticket)
        self._inflight_by_key[key] = inflight
        if not inflight:
            del self._inflight_by_key[key]

    def _at_limit(self) -> bool:
        return self.inflight_envelopes >= self._limits.envelopes or self.inflight_bytes >= self._limits.total_bytes

    def answered(self, ticket: Ticket) -> bool:
        """One more envelope of an INFLIGHT ticket is answered. True when it was the last."""
        assert ticket.state is State.INFLIGHT
        key = ticket.key
        ticket.open -= 1
        self.inflight_envelopes -= 1
        left = self._inflight_by_key[key] - 1
        if left:
            self._inflight_by_key[key] = left
        else:
            del self._inflight_by_key[key]
        if key in self._full and left < self._limits.route_envelopes:
            self._full.discard(key)
            self._serve(key)
        if ticket.open:
            return False
        self.inflight_bytes -= ticket.cost_bytes
        ticket.state = State.GONE
        return True

    def withdraw(self, ticket: Ticket) -> None:
        """Forget a ticket that is not in flight; harmless when it is gone."""
        assert ticket.state is not State.INFLIGHT
        if ticket.state is State.READY:
            self.ready_tickets -= 1
        ticket.state = State.GONE  # its place in heap or line is skipped when its turn comes

    def hurry(self, ticket: Ticket, now_ms: int) -> bool:
        """Make a WAITING ticket due. False where it is due, in flight or gone already."""
        if ticket.state is not State.WAITING:
            return False
        ticket.due_ms = now_ms
        self._make_ready(ticket)
        return True

    def on_hold(self, ticket: Ticket) -> bool:
        """Whether it is due and waits only for room on its route."""
        return ticket.state is State.READY and ticket.key in self._full

    def pause(self, part: str) -> None:
        """Take nothing of "mta" or "mda" until resumed. What is in flight ends as it will."""
        if part in self._paused:
            return
        self._paused[part] = [key for key in self._turns if key[0] == part]
        self._turns = deque(key for key in self._turns if key[0] != part)
        aside = [key for key in self._full if key[0] == part]
        self._full.difference_update(aside)
        self._paused[part] += aside

    def resume(self, part: str) -> None:
        """Take it again."""
        for key in self._paused.pop(part, ()):
            self._serve(key)

    @property
    def paused(self) -> Iterable[str]:
        """The parts that are paused."""
        return self._paused.keys()

    def next_due_ms(self) -> int | None:
        """When to call `take` again if nothing else happens; None when nothing waits for a time."""
        while self._waiting and self._waiting[0][2].state is not State.WAITING:
            heapq.heappop(self._waiting)
        return self._waiting[0][0] if self._waiting else None
