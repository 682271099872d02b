"""The operator's requests: list, show, schedule, remove, pause, count. Damaged mail: queue/quarantine.

Runs in queue; requests come from control, which takes them from root alone. Long answers are
streamed in steps, and wait while control has not taken what was sent.
"""

from collections.abc import Callable, Iterator

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import INLINE_BODY_BYTES, envelope_id_text, message_id_text
from smtpd_ps.queue.group import Committer
from smtpd_ps.queue.shared import Shared
from smtpd_ps.queue.show import envelope_text, queue_row, status_text
from smtpd_ps.queue.store.protocol import Damaged, Loaded, StoreError, StoreFull
from smtpd_ps.queue.store.records import DamagedRecord, EnvelopeState, StoredMessage
from smtpd_ps.queue.window import Held, Window

STEP = 200  # messages
BACKLOG_BYTES = 256 * 1024
WAIT_SECS = 0.01


class Desk:
    """`wake` asks for the queue's turn-end work."""

    def __init__(self, shared: Shared, window: Window, committer: Committer, wake: Callable[[], None]) -> None:
        self._s = shared
        self._window = window
        self._committer = committer
        self._wake = wake

    def done(self, client: int, count: int, text: str = "", ok: bool = True) -> None:
        """The end of an answer."""
        self._s.peers.control.send(m.Done(client, ok, text, count))

    def stream(self, client: int, steps: Iterator[int]) -> None:
        """Run `steps`, each giving how many envelopes it was about, while control keeps up."""
        total = 0

        def go() -> None:
            nonlocal total
            try:
                while self._s.peers.control.pending_bytes < BACKLOG_BYTES:
                    count = next(steps, None)
                    if count is None:
                        self.done(client, total)
                        return
                    total += count
                    if count:
                        break  # other work has its turn between two steps
            except StoreError as error:
                self.done(client, total, str(error), ok=False)
                return
            self._s.timers.call_later(WAIT_SECS if self._s.peers.control.pending_bytes >= BACKLOG_BYTES else 0, go)

        go()

    def _walk(self, msgid: int) -> Iterator[list[Loaded]]:
        """All messages, or one; what is in memory rather than what the store has of it."""
        after = 0
        while True:
            found = self._s.store.load([msgid]) if msgid else self._s.store.scan(after, STEP)
            yield [self._window.held[one.msgid].message if one.msgid in self._window.held else one
                   for one in found]  # fmt: skip
            if msgid or len(found) < STEP:
                return
            after = found[-1].msgid

    # Showing.

    def show_queue(self, message: m.ShowQueue) -> None:
        """A QueueRow an envelope."""
        self.stream(message.client, self._rows(message.client, message.msgid))

    def _rows(self, client: int, msgid: int) -> Iterator[int]:
        for found in self._walk(msgid):
            now_ms, count = self._s.now_ms(), 0
            for one in found:
                if isinstance(one, StoredMessage):
                    on_hold = self._on_hold(one.msgid)
                    for evpid, stored in list(one.envelopes.items()):
                        flight = self._window.flights.get(evpid)
                        since_ms = flight[1].began_ms if flight is not None else None
                        self._s.peers.control.send(
                            queue_row(self._s, client, one, evpid, stored, since_ms, evpid in on_hold, now_ms)
                        )
                        count += 1
            yield count

    def _on_hold(self, msgid: int) -> set[int]:
        held = self._window.held.get(msgid)
        if held is None:
            return set()
        return {evpid for ticket in held.tickets if self._s.scheduler.on_hold(ticket) for evpid in ticket.evpids}

    def show_envelope(self, message: m.ShowEnvelope) -> None:
        """One envelope as `key: value` lines."""
        client, evpid = message.client, message.evpid
        try:
            one = self._one(evpid >> 32)
        except StoreError as error:
            self.done(client, 0, str(error), ok=False)
            return
        stored = one.envelopes.get(evpid) if isinstance(one, StoredMessage) else None
        if isinstance(one, Damaged):
            self.done(client, 0, f"message {message_id_text(one.msgid)} is damaged: {one.reason}", ok=False)
        elif one is None or stored is None:
            self.done(client, 0, f"no envelope {envelope_id_text(evpid)}", ok=False)
        else:
            self._s.peers.control.send(m.TextPart(client, envelope_text(self._s, one, evpid, stored)))
            self.done(client, 1)

    def _one(self, msgid: int) -> Loaded | None:
        held = self._window.held.get(msgid)
        if held is not None:
            return held.message
        loaded = self._s.store.load([msgid])
        return loaded[0] if loaded else None

    def show_message(self, message: m.ShowMessage) -> None:
        """The stored body."""
        client, msgid = message.client, message.msgid
        try:
            one = self._one(msgid)
            if not isinstance(one, StoredMessage):
                reason = f"message {message_id_text(msgid)} is damaged: {one.reason}" if one else ""
                self.done(client, 0, reason or f"no message {message_id_text(msgid)}", ok=False)
                return
            if one.in_file:
                self.stream(client, self._parts(client, self._s.bodies.open_checked(one)))
                return
            body = self._s.store.body(one)
        except (DamagedRecord, StoreError, OSError) as error:
            self.done(client, 0, f"message {message_id_text(msgid)}: {error}", ok=False)
            return
        self._s.peers.control.send(m.BytesPart(client, body))
        self.done(client, len(one.envelopes))

    def _parts(self, client: int, fd: int) -> Iterator[int]:
        with open(fd, "rb", buffering=0) as file:
            while data := file.read(INLINE_BODY_BYTES):
                self._s.peers.control.send(m.BytesPart(client, data))
                yield 0

    def show_stats(self, message: m.ShowStats) -> None:
        """The counters."""
        self._s.counters.inflight = len(self._window.flights)
        self._s.peers.control.send(m.Counters(message.client, self._s.counters.pairs()))
        self.done(message.client, 0)

    def show_status(self, message: m.ShowStatus) -> None:
        """What is paused."""
        self._s.peers.control.send(m.TextPart(message.client, status_text(self._s)))
        self.done(message.client, 0)

    # Ordering.

    def pause(self, message: m.Pause) -> None:
        """Stop or go on taking mail of a part to delivery."""
        if message.part == "smtp":
            self.done(message.client, 0, "queue does not accept mail from clients", ok=False)
            return
        if message.paused:
            self._s.scheduler.pause(message.part)
        else:
            self._s.scheduler.resume(message.part)
        self._s.log.info(f"{message.part} {'paused' if message.paused else 'resumed'}")
        self.done(message.client, 0)
        self._wake()

    def pause_envelope(self, message: m.PauseEnvelope) -> None:
        """Keep envelopes from being tried, over a restart too, or let them be. Answered when it is durable."""
        client, msgid, paused = message.client, message.msgid or message.evpid >> 32, message.paused
        if not msgid:
            self.stream(client, self._pause_all(paused))
            return
        try:
            held = self._window.find(msgid)
        except StoreError as error:
            self.done(client, 0, str(error), ok=False)
            return
        count = self._pause(held, paused, message.evpid) if held is not None else 0
        self._committer.after(lambda: self.done(client, count))

    def _pause(self, held: Held, paused: bool, evpid: int = 0) -> int:
        """One that delivery has is paused when it comes back; one that is to be bounced is never paused."""
        changed = {
            one for one, stored in held.message.envelopes.items()
            if evpid in (0, one) and stored.paused != paused and stored.state is EnvelopeState.PENDING
        }  # fmt: skip
        for one in changed:
            stored = held.message.envelopes[one]
            if paused:
                stored.pause()
            else:
                stored.resume()
            self._s.log.info(f"{'paused' if paused else 'resumed'} evpid={envelope_id_text(one)}")
        if changed:
            self._window.unplan(held, changed.__contains__)
        self._committer.touch(held)  # which plans what is left, or lets it go
        return len(changed)

    def _pause_all(self, paused: bool) -> Iterator[int]:
        after = 0
        while True:
            found = self._s.store.scan(after, STEP)
            count = 0
            for one in found:
                after = one.msgid
                held = self._window.find(after)
                count += self._pause(held, paused) if held is not None else 0
            if len(found) < STEP:
                self._committer.after(lambda: None)  # do not wait for company
                yield count
                return
            yield count

    def discover(self, message: m.Discover) -> None:
        """Look at the store for what is due; how many envelopes of that id wait there."""
        client, msgid = message.client, message.msgid or message.evpid >> 32
        try:
            found = [one for one in self._s.store.load([msgid]) if isinstance(one, StoredMessage)]
        except StoreError as error:
            self.done(client, 0, str(error), ok=False)
            return
        evpids = [evpid for one in found for evpid in one.envelopes if message.evpid in (0, evpid)]
        self._window.look_again()
        self._wake()
        self.done(client, len(evpids) if msgid not in self._window.held else 0)

    def schedule(self, message: m.Schedule) -> None:
        """Make envelopes due now: one, those of a message, or all."""
        client = message.client
        if not (message.evpid or message.msgid):
            self.stream(client, self._hurry_all())
            return
        try:
            held = self._window.find(message.msgid or message.evpid >> 32)
        except StoreError as error:
            self.done(client, 0, str(error), ok=False)
            return
        if held is None:
            self.done(client, 0)
            return
        paused = sum(stored.paused for one, stored in held.message.envelopes.items() if message.evpid in (0, one))
        text = f"{paused} paused: resume envelope lets {'it' if paused == 1 else 'them'} be tried" if paused else ""
        self.done(client, self._hurry(held, message.evpid), text)

    def try_now(self, message: m.TryNow) -> None:
        """Make envelopes due that waited for a domain. Those that are elsewhere by now stay as they are."""
        for evpid in message.evpids:
            try:
                held = self._window.find(evpid >> 32)
            except StoreError:
                continue  # told where it is looked for in its own time
            if held is not None:
                self._hurry(held, evpid)

    def _hurry(self, held: Held, evpid: int = 0) -> int:
        """One envelope of a message in memory, or all of them; a paused one stays as it is."""
        flights, now_ms, count = self._window.flights, self._s.now_ms(), 0
        hurried = set()
        for one, stored in held.message.envelopes.items():
            if evpid not in (0, one) or stored.paused:
                continue
            if one not in flights and stored.due_ms > now_ms:
                stored.due_ms = now_ms
                hurried.add(one)
            count += 1
        if hurried:
            self._window.unplan(held, hurried.__contains__)
        self._committer.touch(held)  # which also lets it go
        self._window.plan(held)  # it may be tried before its new time is written, and where that cannot be
        self._wake()
        return count

    def _hurry_all(self) -> Iterator[int]:
        now_ms, after, more = self._s.now_ms(), 0, True
        for held in list(self._window.held.values()):
            if not held.gone:
                self._hurry(held)
        while more:
            try:
                count, after = self._s.store.hurry(after, STEP * 5, now_ms)
            except StoreFull:
                if self._s.reserve is not None and self._s.reserve.release():
                    continue  # the room kept back is for this too: what is delivered makes more
                yield from self._hurry_unwritten(after)
                return
            more = bool(after)
            self._window.look_again()
            self._wake()
            yield count

    def _hurry_unwritten(self, after: int) -> Iterator[int]:
        """No room to write new times down: read what memory has room for, and try that now."""
        while found := self._s.store.scan(after, STEP):
            count = 0
            for one in found:
                after = one.msgid
                if after in self._window.held:
                    continue
                if self._window.full:
                    yield count
                    raise StoreFull("no room to write down that more than these is to be tried now")
                held = self._window.find(after)
                count += self._hurry(held) if held is not None else 0
            yield count

    def remove(self, message: m.Remove) -> None:
        """Delete envelopes: one, those of a message, or all. Answered when it is durable."""
        client, msgid = message.client, message.msgid or message.evpid >> 32
        if message.everything:
            self.stream(client, self._remove_all())
            return
        count, text = 0, ""
        try:
            held = self._window.find(msgid) if msgid else None
            if held is not None:
                count = self._remove(held, message.evpid)
            elif msgid and not message.evpid and self._s.store.has(msgid):
                self._remove_damaged(msgid)
                text = "1 damaged message removed"
        except StoreError as error:
            self.done(client, 0, str(error), ok=False)
            return
        self._committer.after(lambda: self.done(client, count, text))

    def _remove(self, held: Held, evpid: int = 0) -> int:
        gone = [one for one in held.message.envelopes if evpid in (0, one)]
        self._window.unplan(held, set(gone).__contains__)
        for one in gone:
            self._window.finish(held, one)
            self._s.log.info(f"removed evpid={envelope_id_text(one)}")
        self._s.counters.removed += len(gone)
        self._committer.touch(held)  # which also plans what is left of it
        return len(gone)

    def _remove_damaged(self, msgid: int) -> None:
        self._committer.discard(msgid)
        self._s.log.info(f"removed msgid={message_id_text(msgid)}, which was damaged")

    def _remove_all(self) -> Iterator[int]:
        after = 0
        while True:
            found = self._s.store.scan(after, STEP)
            count = 0
            for one in found:
                after = one.msgid
                held = self._window.find(after)
                if held is None:
                    self._remove_damaged(after)
                else:
                    count += self._remove(held)
            if len(found) < STEP:
                self._committer.after(lambda: None)  # do not wait for company
                yield count
                return
            yield count
