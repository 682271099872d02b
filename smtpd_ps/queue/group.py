"""Group commit: all that a loop turn brought becomes durable with one transaction and one sync.

Runs in queue. New mail is committed at the end of the turn that brought it, or COMPANY_SECS later where
several other transactions are under way; changes of stored mail alone wait up to JOIN_MS for company.
While the sync blocks, the next group gathers in the channels' buffers. A 250 is said after the sync, here
and nowhere else.
"""

from collections.abc import Callable
from typing import NamedTuple

from smtpd_ps.contract.values import message_id_text
from smtpd_ps.queue.reserve import NO_ROOM
from smtpd_ps.queue.shared import Shared
from smtpd_ps.queue.store.protocol import Group, Insert, StoreError, StoreFull
from smtpd_ps.queue.store.records import StoredMessage
from smtpd_ps.queue.window import Held, Window
from smtpd_ps.runtime import tracing

JOIN_MS = 50
COMPANY_SECS = 0.001
COMPANY = 4  # transactions under way that are worth waiting for: a message that comes alone never waits
RETRY_SECS = 1.0
IDLE_SECS = 2.0
MAX_DIRTY = 256  # changes do not wait longer than it takes to gather these
FAILING_CHANGES = 32  # at a time after a failure: what the reserve has room for

FULL = (452, "4.3.1 Insufficient system storage")
FAILED = (451, "4.3.0 Temporary failure")


class Reply(NamedTuple):
    """An SMTP reply for the sender."""

    code: int
    text: str


Done = Callable[[Reply], None]


class _New(NamedTuple):
    message: StoredMessage
    body: bytes | None
    done: Done | None  # None: ours, kept until it is stored


class Committer:
    """Collects, and writes when `run` is called at a turn's end. `wake` asks for such a call."""

    def __init__(self, shared: Shared, window: Window, wake: Callable[[], None]) -> None:
        self._s = shared
        self._window = window
        self._wake = wake
        self._new: list[_New] = []
        self._ours: list[_New] = []  # go with the changes they belong to, and so are kept with them
        self._dirty: dict[int, Held] = {}
        self._discarded: list[int] = []
        self._after: list[Callable[[], None]] = []
        self._waiting = False  # a timer will make it due
        self._due = False
        self._dirty_since_ms = 0
        self._idle_armed = False
        self._idle_from = 0
        self._failing = False
        self._waits_for_company = False
        self.under_way: Callable[[], int] = lambda: 0  # transactions with envelopes and, so far, no body

    # Collecting.

    def insert(self, message: StoredMessage, body: bytes | None, done: Done | None) -> None:
        """Store a message; `done` hears the reply for its sender. Without `done` it is a message of
        ours, which is kept here, with all changes made so far, until the store takes them together.
        """
        if done is None:
            self._ours.append(_New(message, body, None))
            self._due = True
        else:
            self._new.append(_New(message, body, done))
        self._wake()

    def touch(self, held: Held) -> None:
        """The message changed; one without envelopes is removed."""
        if held.gone:
            return
        if not self._dirty:
            self._dirty_since_ms = self._s.now_ms()
        self._dirty[held.message.msgid] = held
        self._ripen_later(JOIN_MS / 1000)

    def discard(self, msgid: int) -> None:
        """Remove a damaged message."""
        self._discarded.append(msgid)

    def after(self, callback: Callable[[], None]) -> None:
        """Call once what is collected now is durable, and do not wait for company."""
        self._after.append(callback)
        self._due = True
        self._wake()

    def _ripen_later(self, secs: float) -> None:
        if not self._waiting:
            self._waiting = True
            self._s.timers.call_later(secs, self._ripen)

    def _ripen(self) -> None:
        self._waiting = False
        if self._dirty:
            left_ms = JOIN_MS - (self._s.now_ms() - self._dirty_since_ms)
            if 0 < left_ms <= JOIN_MS and not self._failing:  # the older changes found company
                self._ripen_later(left_ms / 1000)
                return
        self._due = True
        self._wake()

    @property
    def empty(self) -> bool:
        """Whether nothing is waiting to be written."""
        return not (self._new or self._ours or self._dirty or self._discarded or self._after)

    # Writing.

    def _expects_company(self) -> bool:
        """Whether new mail shall wait a moment. Under load a sync is shared by half as many again for it."""
        under_way = self.under_way()
        if self._due or under_way < COMPANY or under_way <= len(self._new):
            return False
        if not self._waits_for_company:
            self._waits_for_company = True
            self._s.timers.call_later(COMPANY_SECS, self._company_is_late)
        return True

    def _company_is_late(self) -> None:
        self._waits_for_company = False
        self._due = self._due or bool(self._new)
        self._wake()

    def run(self) -> None:
        """Write the group if it is due."""
        if self._new and self._expects_company():
            return
        if not (self._new or self._due or (len(self._dirty) >= MAX_DIRTY and not self._failing)):
            return
        self._due = False
        dirty, self._dirty = self._dirty, {}
        if self._failing and not self._ours and len(dirty) > FAILING_CHANGES:
            some = list(dirty)[:FAILING_CHANGES]
            dirty, self._dirty = {msgid: dirty.pop(msgid) for msgid in some}, dirty
            self._ripen_later(0)
        new, self._new, self._ours = self._ours + self._new, [], []
        if any(one.message.in_file for one in new):
            new = self._seal(new)
        updates = [held.message for held in dirty.values() if held.message.envelopes]
        removed = [held.message for held in dirty.values() if not held.message.envelopes]
        removals = [message.msgid for message in removed] + self._discarded
        try:
            if new or dirty or removals:
                begun = tracing.clock() if tracing.mask else 0.0
                self._s.store.write(Group([Insert(o.message, o.body) for o in new], updates, removals))
                if tracing.mask & (tracing.QUEUE | tracing.PROFILE_QUEUE):
                    counts = f"{len(new)} new, {len(updates)} changed, {len(removals)} removed"
                    tracing.write("queue", f"commit: {counts}, {(tracing.clock() - begun) * 1000:.3f} ms")
                self._s.counters.syncs += 1
        except StoreError as error:
            self._failed(error, new, dirty)
            return
        self._succeeded(new, dirty, removed)

    def _seal(self, new: list[_New]) -> list[_New]:
        """Sync the body files (ours are: queue/notices); those that fail are answered and left out."""
        failed = self._s.bodies.seal([
            (one.message.msgid, one.message.size_bytes)
            for one in new if one.message.in_file and one.done is not None
        ])  # fmt: skip
        sealed = []
        for one in new:
            if error := failed.get(one.message.msgid):
                self._refuse(one, error)
            else:
                if one.message.in_file and one.done is not None:
                    one.message.coded = self._s.bodies.coder.active
                sealed.append(one)
        try:
            self._s.bodies.sync_names()
        except OSError as error:
            for one in sealed:
                if one.message.in_file and one.done is not None:
                    self._refuse(one, error)
            return [one for one in sealed if one.done is None or not one.message.in_file]
        return sealed

    def _refuse(self, one: _New, error: Exception) -> None:
        msgid = one.message.msgid
        self._s.log.error(f"body msgid={message_id_text(msgid)} failed: {error}")
        full = isinstance(error, OSError) and error.errno in NO_ROOM
        self._answer(one, Reply(*(FULL if full else FAILED)))
        self._remove_file(msgid)

    def _answer(self, one: _New, reply: Reply) -> None:
        if one.done is not None:
            if reply.code == 250:
                self._s.counters.commits += 1
            else:
                self._s.counters.commit_failures += 1
            one.done(reply)

    def _succeeded(self, new: list[_New], dirty: dict[int, Held], removed: list[StoredMessage]) -> None:
        if self._failing and not self._dirty:
            self._failing = False
            self._tidy_store(idle=True)  # what became free is used before the file grows further
        counters = self._s.counters
        for one in new:
            message = one.message
            count = len(message.envelopes)
            counters.envelopes += count
            counters.incoming += count
            self._answer(one, Reply(250, f"2.0.0 {message_id_text(message.msgid)} Message accepted for delivery"))
        for channel in self._s.peers.smtp.values():
            channel.flush()  # the senders wait for this and for nothing that follows
        for one in new:
            self._window.admit(one.message, one.body)
        for message in removed:
            if message.in_file:
                self._remove_file(message.msgid)
        while self._discarded:
            self._remove_file(self._discarded.pop())
        for held in dirty.values():
            if not held.gone:
                self._window.settle(held)
        if not self._dirty:
            after, self._after = self._after, []
            for callback in after:
                callback()
        self._tidy()

    def _failed(self, error: StoreError, new: list[_New], dirty: dict[int, Held]) -> None:
        """New mail is refused for now; what is ours waits. Nothing is lost, no restart is needed."""
        self._s.log.error(f"commit of {len(new)} messages and {len(dirty)} changes failed: {error}")
        reply = Reply(*(FULL if isinstance(error, StoreFull) else FAILED))
        # A sync that failed may have stored the group all the same: look what is there.
        self._window.look_again()
        for one in new:
            if one.done is not None:
                self._answer(one, reply)
                self._clean_up(one.message)
            elif not self._is_stored(one.message):
                self._ours.append(one)
        self._dirty = dirty | self._dirty
        self._failing = True
        changes = bool(self._dirty or self._ours or self._discarded)
        reserve = self._s.reserve
        if changes and isinstance(error, StoreFull) and reserve is not None and reserve.release():
            self._s.log.warning("the room kept back is used to write down what was delivered")
            self._due = True
            self._wake()
        self._ripen_later(RETRY_SECS)

    def _clean_up(self, message: StoredMessage) -> None:
        if message.in_file and not self._is_stored(message, doubt=True):
            self._remove_file(message.msgid)

    def _is_stored(self, message: StoredMessage, doubt: bool = False) -> bool:
        try:
            return self._s.store.has(message.msgid)
        except StoreError:
            return doubt

    def _remove_file(self, msgid: int) -> None:
        try:
            self._s.bodies.remove(msgid)
        except OSError as error:  # swept at the next start
            self._s.log.warning(f"body msgid={message_id_text(msgid)} not removed: {error}")

    # Checkpoints.

    def _tidy(self) -> None:
        self._tidy_store(idle=False)
        if not self._idle_armed:
            self._idle_armed = True
            self._idle_from = self._s.counters.syncs
            self._s.timers.call_later(IDLE_SECS, self._maybe_idle)

    def _maybe_idle(self) -> None:
        if self._s.counters.syncs != self._idle_from:
            self._idle_from = self._s.counters.syncs
            self._s.timers.call_later(IDLE_SECS, self._maybe_idle)
            return
        self._idle_armed = False
        self._tidy_store(idle=True)
        if self._s.reserve is not None:
            self._s.reserve.keep()

    def _tidy_store(self, idle: bool) -> None:
        try:
            self._s.store.tidy(idle)
        except StoreError as error:
            self._s.log.warning(f"checkpoint failed: {error}")
