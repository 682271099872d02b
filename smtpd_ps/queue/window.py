"""The messages that are in memory: fresh ones and those due soon. The store has them all.

Runs in queue. A message is here as a whole (`Held`) or not at all. It leaves when it is finished, or
when none of its envelopes is due within HORIZON_MS; then the store is asked for it again in time.
The number of envelopes here is bounded; where more are due, the rest waits in the store.
"""

from collections.abc import Callable

from smtpd_ps.contract.values import message_id_text
from smtpd_ps.pure.scheduler import RouteKey, Ticket
from smtpd_ps.queue.shared import Shared
from smtpd_ps.queue.store.protocol import Damaged, Due, StoreError
from smtpd_ps.queue.store.records import DamagedRecord, EnvelopeState, StoredEnvelope, StoredMessage
from smtpd_ps.runtime import tracing

HORIZON_MS = 30_000
CACHE_BYTES = 16 * 1024 * 1024  # of bodies
FILE_COST_BYTES = 160 * 1024  # what a job with a descriptor counts: 200 descriptors in flight at most
JOB_RECIPIENTS = 100
LOAD_STEP = 1000  # rows looked at in one turn

Notify = Callable[["Held", int], None]


class Held:
    """A message in memory. `live` are the evpids that a ticket or a notice under way is about."""

    __slots__ = ("checked", "gone", "live", "message", "tickets")

    def __init__(self, message: StoredMessage, checked: bool) -> None:
        self.message = message
        self.live: set[int] = set()
        self.tickets: list[Ticket] = []  # waiting or ready
        self.checked = checked  # the body file was compared with its checksum
        self.gone = False  # quarantined or removed under our hands


class Window:
    """`notify` is called with an envelope whose sender is to hear of it (queue/notices)."""

    def __init__(self, shared: Shared, notify: Notify) -> None:
        self._s = shared
        self._notify = notify
        self._bound = self._room_for(shared.settings.max_inflight)
        self._bodies: dict[int, bytes] = {}
        self._body_bytes = 0
        self.held: dict[int, Held] = {}
        self.flights: dict[int, tuple[Held, Ticket, int]] = {}  # with the seat of who has it
        self._envelopes = 0
        self._overflow = True  # more may be due in the store: at the start, all
        self._refilling = False
        self._after: Due | None = None  # where the refill under way has got to
        self._store_due_ms: int | None = None  # when the next message becomes due that is not here

    @staticmethod
    def _room_for(max_inflight: int) -> int:
        return max(2 * max_inflight, 1000)

    @property
    def full(self) -> bool:
        """Whether nothing more may come in."""
        return self._envelopes >= self._bound

    # In.

    def admit(self, message: StoredMessage, body: bytes | None) -> None:
        """A freshly stored message. Where there is no room, it waits in the store."""
        if self.full:
            self._overflow = True
            return
        if body is not None:
            self._keep_body(message.msgid, body)
        self.plan(self._hold(message, checked=True))

    def _hold(self, message: StoredMessage, checked: bool) -> Held:
        held = self.held[message.msgid] = Held(message, checked)
        self._envelopes += len(message.envelopes)
        return held

    def find(self, msgid: int) -> Held | None:
        """The message, read from the store where it is not here; None where there is none.

        Raises StoreError. The caller changes it and hands it to the group (Group.touch).
        """
        held = self.held.get(msgid)
        if held is not None:
            return held
        for loaded in self._s.store.load([msgid]):
            if isinstance(loaded, StoredMessage):
                return self._hold(loaded, checked=False)
        return None

    def plan(self, held: Held) -> None:
        """Make tickets (and notices) of envelopes that are due soon and not under way."""
        now_ms = self._s.now_ms()
        message = held.message
        groups: dict[tuple[RouteKey, int], list[int]] = {}
        for evpid, stored in message.envelopes.items():
            if evpid in held.live or stored.due_ms > now_ms + HORIZON_MS:
                continue
            held.live.add(evpid)
            if stored.state is EnvelopeState.PENDING:
                groups.setdefault((self._s.key_of(stored), stored.due_ms), []).append(evpid)
            else:
                self._notify(held, evpid)
        cost_bytes = FILE_COST_BYTES if message.in_file else message.size_bytes
        for (key, due_ms), evpids in groups.items():
            for at in range(0, len(evpids), JOB_RECIPIENTS):
                ticket = Ticket(message.msgid, key, evpids[at : at + JOB_RECIPIENTS], cost_bytes, due_ms)
                held.tickets.append(ticket)
                self._s.scheduler.offer(ticket, now_ms)

    def plan_anew(self) -> None:
        """The settings changed, and with them routes and limits: make the tickets of all that waits again."""
        self._bound = self._room_for(self._s.settings.max_inflight)
        for held in list(self.held.values()):
            self.unplan(held, lambda _evpid: True)
            if not held.gone:
                self.plan(held)

    # Out.

    def settle(self, held: Held) -> None:
        """The store has the message as it is here: let it go, or plan what comes next."""
        if not held.message.envelopes:
            self.forget(held)
            return
        self.plan(held)
        if not held.live:
            due_ms = held.message.due_ms
            if self._store_due_ms is None or due_ms < self._store_due_ms:
                self._store_due_ms = due_ms
            self.forget(held)

    def forget(self, held: Held) -> None:
        """Drop it from memory. What is in flight is answered to nobody."""
        held.gone = True
        msgid = held.message.msgid
        for ticket in held.tickets:
            self._s.scheduler.withdraw(ticket)
        held.tickets.clear()
        if self.held.pop(msgid, None) is not None:
            self._envelopes -= len(held.message.envelopes)
        body = self._bodies.pop(msgid, None)
        if body is not None:
            self._body_bytes -= len(body)

    def finish(self, held: Held, evpid: int) -> StoredEnvelope | None:
        """An envelope is done with. The caller hands the message to the group."""
        stored = held.message.envelopes.pop(evpid, None)
        held.live.discard(evpid)
        if stored is not None:
            self._envelopes -= 1
            self._s.counters.envelopes -= 1
        return stored

    def unplan(self, held: Held, wanted: Callable[[int], bool]) -> None:
        """Take back tickets with an envelope that is wanted; their envelopes can be planned anew."""
        for ticket in [t for t in held.tickets if any(wanted(evpid) for evpid in t.evpids)]:
            held.tickets.remove(ticket)
            self._s.scheduler.withdraw(ticket)
            held.live.difference_update(ticket.evpids)

    def quarantine(self, msgid: int, reason: str) -> None:
        """A damaged message: never tried again, kept for the operator, logged. May raise StoreError."""
        held = self.held.get(msgid)
        if held is not None:
            self._s.counters.envelopes -= len(held.message.envelopes)
            self.forget(held)
        self._s.counters.damaged += 1
        self._s.log.error(f"quarantine msgid={message_id_text(msgid)} reason={reason}")
        self._s.store.mark_damaged(msgid, reason)

    # Refilling.

    def wanting(self, now_ms: int) -> bool:
        """Whether `refill` has something to do."""
        if self._store_due_ms is not None and self._store_due_ms <= now_ms + HORIZON_MS:
            self._overflow = True
            self._store_due_ms = None
        return self._refilling or (self._overflow and self._envelopes < self._bound // 2)

    def wake_ms(self) -> int | None:
        """When the store has something due soon that is not here."""
        return None if self._store_due_ms is None else self._store_due_ms - HORIZON_MS

    def look_again(self) -> None:
        """The schedule in the store changed: look what is due."""
        self._overflow = True

    def refill(self, now_ms: int) -> None:
        """One step of reading due messages, until the window is full or none is left. Raises StoreError."""
        store = self._s.store
        horizon_ms = now_ms + HORIZON_MS
        if not self._refilling:
            self._refilling, self._after, self._overflow = True, None, False
        try:
            found = store.due(horizon_ms, self._after, LOAD_STEP)
            dues = {due.msgid: due.due_ms for due in found if due.msgid not in self.held}
            for loaded in store.load(list(dues)):
                if isinstance(loaded, Damaged):
                    self._s.counters.envelopes -= loaded.envelopes
                    self.quarantine(loaded.msgid, loaded.reason)
                else:
                    _hurried(loaded, dues[loaded.msgid])
                    self.plan(self._hold(loaded, checked=False))
            if tracing.mask & tracing.QUEUE:
                tracing.write("queue", f"read {len(dues)} messages that are due, {len(self.held)} in memory")
            if len(found) < LOAD_STEP:
                self._store_due_ms = store.next_due_ms(horizon_ms)
                self._refilling = False
            elif self.full:
                self._refilling, self._overflow = False, True
            else:
                self._after = found[-1]
        except StoreError:
            self._refilling, self._overflow = False, True
            raise

    # Bodies.

    def _keep_body(self, msgid: int, body: bytes) -> None:
        self._bodies[msgid] = body
        self._body_bytes += len(body)
        while self._body_bytes > CACHE_BYTES:
            oldest = next(iter(self._bodies))
            self._body_bytes -= len(self._bodies.pop(oldest))

    def body(self, held: Held) -> bytes:
        """A small body. Raises DamagedRecord, StoreError."""
        body = self._bodies.get(held.message.msgid)
        return self._s.store.body(held.message) if body is None else body

    def body_fd(self, held: Held) -> int:
        """A descriptor of a large body, compared with its checksum first where it was on disk over
        a restart or an eviction. Raises DamagedRecord, OSError.
        """
        if held.checked and not held.message.coded:
            try:
                return self._s.bodies.open(held.message.msgid)
            except FileNotFoundError:
                raise DamagedRecord("no body file") from None
        fd = self._s.bodies.open_checked(held.message)
        held.checked = True
        return fd


def _hurried(message: StoredMessage, due_ms: int) -> None:
    """The operator hurried a message in the store: its row is due before its envelopes are."""
    if due_ms < message.due_ms:
        for stored in message.envelopes.values():
            if not stored.paused:
                stored.due_ms = due_ms
