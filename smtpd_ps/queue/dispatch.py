"""Hands what is due to delivery, in batches, and takes the outcomes.

Runs in queue. Outcome text quotes remote servers; it is bounded by the contract and escaped where it
is logged or quoted (runtime/log, pure/bounce).
"""

from collections.abc import Callable

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Job, Line, Notify, Recipient, Result, Status, envelope_id_text, message_id_text
from smtpd_ps.pure.scheduler import Ticket
from smtpd_ps.pure.scheduler_times import warnings_due
from smtpd_ps.queue.group import Committer
from smtpd_ps.queue.notices import Notices
from smtpd_ps.queue.reserve import NO_ROOM
from smtpd_ps.queue.shared import ACTION_GONE, Sender, Shared, Violation
from smtpd_ps.queue.store.protocol import StoreError
from smtpd_ps.queue.store.records import DamagedRecord, EnvelopeState, StoredEnvelope
from smtpd_ps.queue.window import Held, Window
from smtpd_ps.runtime import tracing

FRAME_JOBS = 64
TURN_JOBS = 256
_SUCCESS = int(Notify.SUCCESS)  # the operators of IntFlag are slow
FRAME_BYTES = 768 * 1024
RECIPIENT_BYTES = 300  # of a frame, roughly
BACKLOG_BYTES = 4 * 1024 * 1024  # unsent to delivery: dispatch waits
POSTPONE_MS = 5000  # where a fault of ours kept a body from being read
MAX_TEXT = 2000


class _Frame:
    """Jobs that are collected for one delivery process."""

    __slots__ = ("_channel", "jobs", "size_bytes")

    def __init__(self, channel: Sender) -> None:
        self._channel = channel
        self.jobs: list[Job] = []
        self.size_bytes = 0

    def flush(self) -> None:
        """Send them."""
        if self.jobs:
            self._channel.send(m.Deliver(tuple(self.jobs)))
            self.jobs.clear()
            self.size_bytes = 0


class Dispatcher:
    """Between the scheduler and the channel to delivery. `wake` asks for another `run`."""

    def __init__(
        self, shared: Shared, window: Window, committer: Committer, notices: Notices, wake: Callable[[], None]
    ) -> None:
        self._s = shared
        self._window = window
        self._committer = committer
        self._notices = notices
        self._wake = wake
        self._frames: dict[int, _Frame] = {}  # by the seat of the delivery process that they are for
        self.stopped = False  # draining

    # Out.

    @property
    def blocked(self) -> bool:
        """Whether a delivery process has not yet taken what was sent."""
        return any(channel.pending_bytes > BACKLOG_BYTES for _seat, channel in self._s.peers.deliveries)

    def run(self) -> None:
        """Send all that is due and within the limits."""
        if self.stopped or self.blocked:
            return
        now_ms = self._s.now_ms()
        tickets = self._s.scheduler.take(now_ms, TURN_JOBS)
        if len(tickets) >= TURN_JOBS:
            self._s.timers.call_later(0, self._wake)  # other work has its turn
        for ticket in tickets:
            held = self._window.held[ticket.msgid]
            held.tickets.remove(ticket)
            if tracing.mask & tracing.SCHEDULER:
                tracing.write("scheduler", f"try msgid={message_id_text(ticket.msgid)} route={'/'.join(ticket.key)}"
                              f" envelopes={len(ticket.evpids)}")  # fmt: skip
            if self._may_try(held, ticket, now_ms):
                self._send(held, ticket, now_ms)
        self._flush()
        self._s.counters.inflight = len(self._window.flights)

    def _may_try(self, held: Held, ticket: Ticket, now_ms: int) -> bool:
        """Answer for envelopes that are too old or that no action delivers any more."""
        envelopes, created_ms = held.message.envelopes, held.message.created_ms
        for evpid in list(ticket.evpids):
            stored = envelopes[evpid]
            if now_ms >= self._s.expires_ms(stored, created_ms):
                self._s.counters.expired += 1
                self._s.log.info(f"expired evpid={envelope_id_text(evpid)} tries={stored.tries}")
                reason = f": {stored.text}" if stored.text else ""
                self._give_up(held, evpid, f"4.4.7 Envelope expired{reason}")
            elif stored.envelope.action not in self._s.actions:
                self._s.log.warning(f"evpid={envelope_id_text(evpid)} names action {stored.envelope.action!r},"
                                    " which is configured no more")  # fmt: skip
                self._try_later(held, evpid, stored, ACTION_GONE, now_ms)
            else:
                continue
            ticket.evpids.remove(evpid)
            self._s.scheduler.answered(ticket)
        return bool(ticket.evpids)

    def _send(self, held: Held, ticket: Ticket, now_ms: int) -> None:
        message = held.message
        fd, body = -1, b""
        try:
            if message.in_file:
                fd = self._body_fd(held)
            else:
                body = self._window.body(held)
        except DamagedRecord as error:
            self._release(held, ticket)
            try:
                self._window.quarantine(message.msgid, str(error))
            except StoreError as second:
                self._s.log.error(str(second))
            return
        except (OSError, StoreError) as error:
            self._s.log.error(f"cannot read a body: {error}")
            self._release(held, ticket)
            for evpid in ticket.evpids:
                message.envelopes[evpid].due_ms = now_ms + POSTPONE_MS
            self._committer.touch(held)
            return
        envelopes, flights, (seat, channel) = message.envelopes, self._window.flights, self._process_for(ticket)
        recipients = []
        for evpid in ticket.evpids:
            envelope = envelopes[evpid].envelope
            recipients.append(
                Recipient(
                    evpid, envelope.rcpt, envelope.dest, envelope.user, envelope.dsn,
                    envelope.target, envelope.target_source, envelope.forwarded, envelope.extension,
                )
            )  # fmt: skip
            flights[evpid] = (held, ticket, seat)
        job = Job(
            message.msgid, envelope.action, envelope.sender, tuple(recipients), message.created_ms // 1000,
            message.size_bytes, message.eight_bit, body,
        )  # fmt: skip
        if message.in_file:
            channel.send(m.DeliverFile(job), fd)
            return
        frame = self._frames.get(seat) or self._frames.setdefault(seat, _Frame(channel))
        frame.jobs.append(job)
        frame.size_bytes += len(body) + RECIPIENT_BYTES * len(recipients)
        if len(frame.jobs) >= FRAME_JOBS or frame.size_bytes >= FRAME_BYTES:
            frame.flush()

    def _body_fd(self, held: Held) -> int:
        try:
            return self._window.body_fd(held)
        except OSError as error:
            reserve = self._s.reserve
            if error.errno not in NO_ROOM or reserve is None or not reserve.release():
                raise
        self._s.log.warning("the room kept back is used to decrypt a body")
        return self._window.body_fd(held)

    def _process_for(self, ticket: Ticket) -> tuple[int, Sender]:
        """One route's mail goes to one delivery process, which shares connections and agents."""
        deliveries = self._s.peers.deliveries
        return deliveries[hash(ticket.key) % len(deliveries)] if len(deliveries) > 1 else deliveries[0]

    def _release(self, held: Held, ticket: Ticket) -> None:
        for _ in ticket.evpids:
            self._s.scheduler.answered(ticket)
        held.live.difference_update(ticket.evpids)

    def _flush(self) -> None:
        for frame in self._frames.values():
            frame.flush()
        self._frames.clear()

    # In.

    def outcome(self, seat: int, message: m.Outcome) -> None:
        """Answers of the delivery process at `seat`."""
        now_ms = self._s.now_ms()
        for result in message.results:
            flight = self._window.flights.pop(result.evpid, None)
            if flight is None or flight[2] != seat:
                raise Violation(f"delivery: Outcome of an envelope it does not have: {result.evpid:016x}")
            held, ticket, _seat = flight
            self._s.scheduler.answered(ticket)
            self._s.counters.delivery(result.status)
            stored = held.message.envelopes.get(result.evpid)
            if stored is None or held.gone:
                continue  # removed or quarantined meanwhile
            self._apply(held, stored, result, now_ms)
        self._s.counters.inflight = len(self._window.flights)

    def take_back(self, seat: int) -> None:
        """A delivery process of an old generation has left: what it had and did not answer, it did not begin."""
        flights = self._window.flights
        for evpid in [evpid for evpid, flight in flights.items() if flight[2] == seat]:
            held, ticket, _seat = flights.pop(evpid)
            self._s.scheduler.answered(ticket)
            if not held.gone:
                held.live.discard(evpid)
                self._committer.touch(held)  # which plans it anew
        self._s.counters.inflight = len(flights)

    def _apply(self, held: Held, stored: StoredEnvelope, result: Result, now_ms: int) -> None:
        evpid = result.evpid
        match result.status:
            case Status.OK:
                if stored.envelope.dsn.notify & _SUCCESS and not result.dsn_passed and stored.envelope.sender:
                    relayed = self._s.key_of(stored)[0] == "mta"
                    stored.state = EnvelopeState.RELAYED if relayed else EnvelopeState.DELIVERED
                    stored.text, stored.relay = result.text, result.relay
                    stored.last_try_ms = now_ms
                    self._notices.add(held, evpid)
                else:
                    self._window.finish(held, evpid)
                self._committer.touch(held)
            case Status.TEMPFAIL:
                stored.relay = result.relay
                self._try_later(held, evpid, stored, result.text, now_ms)
            case Status.PERMFAIL | Status.LOOP:
                stored.relay = result.relay
                stored.tries += 1
                stored.last_try_ms = now_ms
                self._give_up(held, evpid, result.text or "5.0.0 Permanent failure")

    def _try_later(self, held: Held, evpid: int, stored: StoredEnvelope, text: Line, now_ms: int) -> None:
        created_ms = held.message.created_ms
        stored.tries += 1
        stored.last_try_ms = now_ms
        stored.text = text
        next_ms = self._s.curve_of(stored).next_try_ms(created_ms, stored.tries, now_ms)
        paused = stored.paused  # while it was under way
        stored.due_ms = max(now_ms + 1, min(next_ms, self._s.expires_ms(stored, created_ms)))
        held.live.discard(evpid)
        if warnings_due(self._s.settings.warn_secs, created_ms, stored.due_ms) > stored.warnings:
            self._notices.delayed(held, evpid)
        if tracing.mask & tracing.SCHEDULER:
            wait_ms = stored.due_ms - now_ms
            tracing.write(
                "scheduler", f"again evpid={envelope_id_text(evpid)} tries={stored.tries} in={wait_ms / 1000:.1f}s"
            )
        if paused:
            stored.pause()
        self._committer.touch(held)

    def _give_up(self, held: Held, evpid: int, text: Line) -> None:
        stored = held.message.envelopes[evpid]
        held.live.discard(evpid)
        stored.text = text[:MAX_TEXT]
        stored.state = EnvelopeState.FAILED
        stored.due_ms = self._s.now_ms()
        self._notices.add(held, evpid)
        self._committer.touch(held)
