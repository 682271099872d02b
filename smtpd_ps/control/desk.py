"""Requests of operators: sent on to the processes that know, answers streamed back.

Runs in control; parses nothing: it moves checked messages between checked channels. It gives each
requester a number, so that one can never receive another's answer.
"""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.routes import GENERATION
from smtpd_ps.contract.values import Process, generation_of, seat_of
from smtpd_ps.runtime import tracing
from smtpd_ps.runtime.log import Log

MAX_BLOCKED = 1000


class Sender(Protocol):
    """Whatever messages can be sent to."""

    def send(self, message: m.Message, *fds: int) -> None:
        """Send a message."""


_ANSWERERS: dict[type[m.Message], tuple[Process, ...]] = {
    m.Explain: (Process.LOOKUP,),
    m.ShowPrograms: (Process.LOOKUP,),
    m.ShowQueue: (Process.QUEUE,),
    m.ShowEnvelope: (Process.QUEUE,),
    m.ShowMessage: (Process.QUEUE,),
    m.Schedule: (Process.QUEUE,),
    m.Remove: (Process.QUEUE,),
    m.PauseEnvelope: (Process.QUEUE,),
    m.Discover: (Process.QUEUE,),
    m.ShowCorrupt: (Process.QUEUE,),
    m.Uncorrupt: (Process.QUEUE,),
    m.ShowStats: (Process.QUEUE, Process.SMTP, Process.DELIVERY),
    m.ShowStatus: (Process.QUEUE, Process.SMTP),
    m.Follow: (Process.QUEUE, Process.SMTP, Process.LOOKUP, Process.DELIVERY),
    m.ShowProcesses: (Process.PARENT,),
    m.SetLog: (Process.PARENT,),
    m.Trace: (Process.PARENT,),
    m.Reload: (Process.PARENT,),
    m.Stop: (Process.PARENT,),
    m.UpdateTable: (Process.PARENT,),
    m.ShowNetwork: (Process.DELIVERY,),
    m.ResumeRoute: (Process.DELIVERY,),
    m.BlockRelay: (Process.DELIVERY,),
}
"""Who answers what; Pause depends on its part."""


def answerers(request: m.Message) -> tuple[Process, ...]:
    """The processes that must each send Done before the request is answered."""
    if isinstance(request, m.Pause):
        return (Process.SMTP,) if request.part == "smtp" else (Process.QUEUE,)
    return _ANSWERERS[type(request)]


_NETWORK_ROWS = (m.HostRow, m.RouteRow, m.RelayRow, m.HostStatRow, m.BlockRow)
_Part = (
    m.TextPart | m.BytesPart | m.QueueRow | m.CorruptRow | m.ProcessRow | m.ProgramRow | m.ProgramState
    | m.ExplainStep | m.FollowedLine
    | m.HostRow | m.RouteRow | m.RelayRow | m.HostStatRow | m.BlockRow
)  # fmt: skip
Peer = tuple[Process, int]  # with its seat; 0 for those that last


@dataclass(slots=True)
class _Case:
    client: Sender
    waiting: set[Peer]
    counters: dict[str, int] = field(default_factory=dict)
    gathers: bool = False
    follows: bool = False
    ok: bool = True
    texts: list[str] = field(default_factory=list)
    count: int = 0


class Desk:
    """The requests under way."""

    def __init__(self, log: Log, started: float, smtp_paused: bool = False) -> None:
        self._log = log
        self._started = started
        self._peers: dict[Peer, Sender] = {}
        self._serving = 0  # the generation
        self._smtp_paused = smtp_paused
        self._blocked: set[tuple[str, str]] = set()  # source and domain, for the next delivery too
        self._cases: dict[int, _Case] = {}
        self._numbers = itertools.count(1)
        self.sessions = 0

    def attach(self, peer: Process, channel: Sender, seat: int = 0) -> None:
        """Tell the desk how to reach `peer`."""
        self._peers[peer, seat] = channel
        if peer is Process.SMTP:  # which accepts nobody before
            channel.send(m.Pause(0, "smtp", self._smtp_paused))  # nobody waits for the answer
        if peer in answerers(m.Follow(0, True)):
            for number, case in self._cases.items():
                if case.follows:
                    channel.send(m.Follow(number, True))
        if peer is Process.DELIVERY:
            for source, domain in self._blocked:
                channel.send(m.BlockRelay(0, source, domain, True))

    def serve(self, generation: int) -> None:
        """This generation serves from now on."""
        self._serving = generation

    def detach(self, peer: Process, seat: int) -> bool:
        """A process of an old generation has left: it answers no more. False when it may not leave."""
        if generation_of(seat) == self._serving:
            return False
        self._peers.pop((peer, seat), None)
        for number, case in list(self._cases.items()):
            if (peer, seat) in case.waiting:
                self._answered((peer, seat), m.Done(number, True))
        return True

    def _reachable(self, request: m.Message) -> list[Peer]:
        """Counters come from all generations, everything else from the one that serves; an order goes to
        all processes of a kind, a question to the first of them.
        """
        asked = answerers(request)
        if isinstance(request, m.ShowStats | m.Follow):
            return [peer for peer in self._peers if peer[0] in asked]
        if isinstance(request, m.Pause | m.ShowNetwork | m.ResumeRoute | m.BlockRelay):
            return [peer for peer in self._peers if peer[0] in asked and self._serves(peer)]
        return [(process, seat_of(self._serving, 0) if process in GENERATION else 0) for process in asked]

    def _serves(self, peer: Peer) -> bool:
        return peer[0] not in GENERATION or generation_of(peer[1]) == self._serving

    def handlers(self, peer: Process, seat: int = 0) -> dict[type[m.Message], Callable[..., None]]:
        """What `peer` may answer."""
        if peer is Process.LOOKUP:
            return {
                m.ExplainStep: self._on_part,
                m.ProgramState: self._on_part,
                m.FollowedLine: self._on_part,
                m.Done: lambda done: self._answered((peer, seat), done),
            }
        rows: dict[type[m.Message], Callable[..., None]] = {}
        if peer is Process.PARENT:
            rows[m.ProgramRow] = self._on_part
        if peer is Process.QUEUE:
            rows[m.CorruptRow] = self._on_part
        if peer is not Process.PARENT:
            rows[m.FollowedLine] = self._on_part
        if peer is Process.DELIVERY:
            rows |= dict.fromkeys(_NETWORK_ROWS, self._on_part)
        return rows | {
            m.Counters: self._on_counters,
            m.TextPart: self._on_part,
            m.BytesPart: self._on_part,
            m.QueueRow: self._on_part,
            m.ProcessRow: self._on_part,
            m.Done: lambda done: self._answered((peer, seat), done),
        }

    def ask(self, client: Sender, request: m.Message) -> int:
        """Send `request` on; its answers go to `client`. The case's number."""
        number = next(self._numbers) & 0xFFFFFFFF
        peers = self._reachable(request)
        if isinstance(request, m.Pause) and request.part == "smtp":
            self._smtp_paused = request.paused
        if isinstance(request, m.BlockRelay):
            pair = (request.source, request.domain)
            if request.blocked and len(self._blocked) < MAX_BLOCKED:
                self._blocked.add(pair)
            elif not request.blocked:
                self._blocked.discard(pair)
        self._cases[number] = _Case(
            client, set(peers), gathers=isinstance(request, m.ShowStats), follows=isinstance(request, m.Follow)
        )
        numbered = msgspec.structs.replace(request, client=number)
        for peer in peers:
            self._peers[peer].send(numbered)
        return number

    def forget(self, number: int) -> None:
        """The client is gone: drop what still comes for it."""
        case = self._cases.pop(number, None)
        if case is not None and case.follows:
            for (process, _seat), channel in self._peers.items():
                if process in answerers(m.Follow(0, False)):
                    channel.send(m.Follow(number, False))

    def _on_part(self, part: _Part) -> None:
        case = self._cases.get(part.client)
        if case is not None:
            case.client.send(part)

    def _on_counters(self, counters: m.Counters) -> None:
        if tracing.mask & tracing.STAT:
            tracing.write("stat", " ".join(f"{name}={value}" for name, value in counters.values))
        case = self._cases.get(counters.client)
        if case is not None:
            for name, value in counters.values:
                case.counters[name] = case.counters.get(name, 0) + value

    def _answered(self, peer: Peer, done: m.Done) -> None:
        case = self._cases.get(done.client)
        if case is None:
            return
        case.waiting.discard(peer)
        case.ok = case.ok and done.ok
        case.count += done.count
        if done.text:
            case.texts.append(done.text)
        if case.waiting:
            return
        del self._cases[done.client]
        if case.gathers:
            case.counters |= {"control.session": self.sessions, "uptime": int(time.monotonic() - self._started)}
            case.client.send(m.Counters(0, tuple(sorted(case.counters.items()))))
        case.client.send(m.Done(0, case.ok, "; ".join(case.texts), case.count))
