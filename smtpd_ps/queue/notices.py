"""Bounces and the other notices to senders: gathered, routed, built, stored.

Runs in queue. A failed envelope stays on disk in its state until the very transaction that stores
its bounce; a crash in between repeats the notice at worst and loses it never. Notices of one kind
for one message that arise within COLLECT_SECS are one notice.
"""

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import INLINE_BODY_BYTES, Envelope, Notify, envelope_id_text, message_id_text
from smtpd_ps.pure.bounce import MAX_HEADER_BYTES, Notice, NoticeAction, NoticeRecipient, build_notice
from smtpd_ps.pure.scheduler_times import warnings_due
from smtpd_ps.queue.group import Committer
from smtpd_ps.queue.shared import Shared, Violation
from smtpd_ps.queue.store.protocol import StoreError
from smtpd_ps.queue.store.records import (
    RECORD_VERSION,
    DamagedRecord,
    EnvelopeState,
    StoredEnvelope,
    StoredMessage,
    checksum,
)  # fmt: skip
from smtpd_ps.queue.window import Held, Window
from smtpd_ps.runtime import tracing

COLLECT_SECS = 1.0
FULL_BYTES = 1024 * 1024  # above it RET=FULL returns the header: the notice is built in memory
NOTICE_RECIPIENTS = 100  # in one notice; more make more notices

_ACTIONS: dict[EnvelopeState, NoticeAction] = {
    EnvelopeState.FAILED: "failed",
    EnvelopeState.DELIVERED: "delivered",
    EnvelopeState.RELAYED: "relayed",
}
_Collected = tuple[int, NoticeAction]  # msgid


class Notices:
    """`connect` is called before anything else: window, group and notices know each other."""

    _window: Window
    _committer: Committer

    def __init__(self, shared: Shared) -> None:
        self._s = shared
        self._collecting: dict[_Collected, tuple[Held, list[int]]] = {}
        self._asked: dict[int, tuple[Held, NoticeAction, list[int], int]] = {}  # the last: lookup's generation
        self._query = 0

    def connect(self, window: Window, committer: Committer) -> None:
        """Where envelopes are and where changes go."""
        self._window = window
        self._committer = committer

    @property
    def idle(self) -> bool:
        """Whether no notice is under way."""
        return not (self._collecting or self._asked)

    # Gathering.

    def add(self, held: Held, evpid: int) -> None:
        """An envelope that is not PENDING: tell its sender, then remove it. Without a sender who
        wants to hear, only the latter. The caller touches the group.
        """
        stored = held.message.envelopes[evpid]
        envelope = stored.envelope
        action = _ACTIONS[stored.state]
        if not envelope.sender:
            self._s.log.warning(f"double bounce evpid={envelope_id_text(evpid)} dropped: {stored.text}")
            self._drop(held, evpid)
        elif envelope.dsn.notify & Notify.NEVER:
            self._s.log.info(f"bounce evpid={envelope_id_text(evpid)} not wanted: {stored.text}")
            self._drop(held, evpid)
        else:
            held.live.add(evpid)
            wait_secs = (stored.due_ms - self._s.now_ms()) / 1000
            self._collect(held, evpid, action, max(COLLECT_SECS, wait_secs))

    def delayed(self, held: Held, evpid: int) -> None:
        """A pending envelope is late: tell its sender, if that is wanted, and keep trying."""
        envelope = held.message.envelopes[evpid].envelope
        notify = envelope.dsn.notify
        if envelope.sender and (not notify or notify & Notify.DELAY):
            self._collect(held, evpid, "delayed", COLLECT_SECS)

    def _drop(self, held: Held, evpid: int) -> None:
        self._window.finish(held, evpid)
        self._committer.touch(held)

    def _collect(self, held: Held, evpid: int, action: NoticeAction, wait_secs: float) -> None:
        key = (held.message.msgid, action)
        collected = self._collecting.get(key)
        if collected is not None and collected[0] is held:
            if evpid not in collected[1]:
                collected[1].append(evpid)
            return
        self._collecting[key] = (held, [evpid])
        self._s.timers.call_later(wait_secs, lambda: self._ask(key))

    def _ask(self, key: _Collected) -> None:
        collected = self._collecting.pop(key, None)
        if collected is None:
            return
        held, evpids = collected
        here = [evpid for evpid in evpids if evpid in held.message.envelopes]
        if held.gone and key[1] != "delayed":
            return  # removed or quarantined meanwhile
        for at in range(0, len(here), NOTICE_RECIPIENTS):
            self._query = (self._query + 1) & 0xFFFFFFFF
            self._s.counters.bounce_queries += 1
            some = here[at : at + NOTICE_RECIPIENTS]
            self._asked[self._query] = (held, key[1], some, self._s.peers.generation)
            sender = held.message.envelopes[some[0]].envelope.sender
            if tracing.mask & tracing.BOUNCE:
                tracing.write(
                    "bounce", f"query {self._query} msgid={message_id_text(held.message.msgid)} to=<{sender}>"
                )
            self._s.peers.lookup.send(m.BounceQuery(self._query, sender))

    def ask_again(self, generation: int) -> None:
        """Lookup of an old generation has left: ask the one that serves what it did not answer."""
        for query in [query for query, asked in self._asked.items() if asked[3] == generation]:
            held, action, evpids, _generation = self._asked.pop(query)
            for evpid in evpids:
                if evpid in held.message.envelopes:
                    self._collect(held, evpid, action, 0)

    # Routed.

    def bounce_route(self, generation: int, message: m.BounceRoute) -> None:
        """The answer of lookup of a generation."""
        asked = self._asked.pop(message.query, None)
        if asked is None or asked[3] != generation:
            raise Violation(f"lookup: BounceRoute without a query ({message.query})")
        held, action, evpids, _generation = asked
        if action == "delayed" and held.gone:
            held = self._found(held.message.msgid) or held  # it left memory meanwhile
            self._committer.touch(held)
        here = [evpid for evpid in evpids if evpid in held.message.envelopes]
        if held.gone or not here:
            return
        if action == "delayed":
            here = [e for e in here if held.message.envelopes[e].state is EnvelopeState.PENDING]
        if message.envelopes:
            self._build(held, action, here, message.envelopes)
        elif message.temporary:
            self._later(held, action, here, message.text)
        else:
            self._unroutable(held, action, here, message.text)

    def _found(self, msgid: int) -> Held | None:
        try:
            return self._window.find(msgid)
        except StoreError as error:
            self._s.log.warning(f"no delay notice for msgid={message_id_text(msgid)}: {error}")
            return None

    def _later(self, held: Held, action: NoticeAction, evpids: list[int], text: str) -> None:
        if action == "delayed":
            return  # the next failed attempt asks again
        now_ms = self._s.now_ms()
        for evpid in evpids:
            stored = held.message.envelopes[evpid]
            give_up_ms = self._s.expires_ms(stored, held.message.created_ms)
            give_up_ms += self._s.settings.bounce_ttl_secs * 1000
            held.live.discard(evpid)
            if now_ms >= give_up_ms:
                self._s.log.error(f"bounce evpid={envelope_id_text(evpid)} expired: {text}")
                self._window.finish(held, evpid)
                continue
            stored.notice_tries += 1
            wait_ms = self._s.settings.retry_local_secs * 1000 * min(stored.notice_tries, 60) ** 2
            stored.due_ms = now_ms + max(wait_ms, 1000)
        self._committer.touch(held)

    def _unroutable(self, held: Held, action: NoticeAction, evpids: list[int], text: str) -> None:
        for evpid in evpids:
            sender = held.message.envelopes[evpid].envelope.sender
            self._s.log.error(f"bounce evpid={envelope_id_text(evpid)} to=<{sender}> dropped: {text}")
            if action == "delayed":
                held.message.envelopes[evpid].warnings = 255
            else:
                self._window.finish(held, evpid)
        self._committer.touch(held)

    # Built.

    def _build(self, held: Held, action: NoticeAction, evpids: list[int], envelopes: tuple[Envelope, ...]) -> None:
        msgid = self._s.own_ids.next()
        try:
            original, full = self._original(held, evpids[0])
        except DamagedRecord as error:
            self._quarantine(held, str(error))
            return
        except (OSError, StoreError) as error:
            self._later(held, action, evpids, str(error))
            return
        body, eight_bit = build_notice(self._notice(held, action, evpids, original, full, msgid))
        in_file = len(body) > INLINE_BODY_BYTES
        coded = in_file and self._s.bodies.coder.active
        if in_file:
            try:
                self._s.bodies.write(msgid, body)
            except OSError as error:
                self._later(held, action, evpids, str(error))
                return
        now_ms = self._s.now_ms()
        bounce = StoredMessage(
            RECORD_VERSION, msgid, now_ms, len(body), eight_bit, in_file, checksum(body),
            {
                evpid: StoredEnvelope(envelope, now_ms)
                for evpid, envelope in zip(self._s.ids.evpids(msgid, len(envelopes)), envelopes, strict=True)
            },
            coded,
        )  # fmt: skip
        for evpid in evpids:
            stored = held.message.envelopes[evpid]
            if action == "delayed":
                stored.warnings = min(
                    255, warnings_due(self._s.settings.warn_secs, held.message.created_ms, stored.due_ms)
                )
            else:
                self._window.finish(held, evpid)
            self._s.log.info(
                f"bounce evpid={envelope_id_text(evpid)} msgid={message_id_text(msgid)} kind={action}"
                f" to=<{stored.envelope.sender}> rcpt=<{stored.envelope.rcpt}> stat={stored.text!r}"
            )
        if tracing.mask & tracing.BOUNCE:
            tracing.write("bounce", f"built msgid={message_id_text(msgid)} of {message_id_text(held.message.msgid)}"
                          f" kind={action} recipients={len(evpids)} bytes={len(body)}")  # fmt: skip
        self._s.counters.bounces += 1
        self._s.counters.bounce_envelopes += len(evpids)
        self._committer.touch(held)
        self._committer.insert(bounce, None if in_file else body, None)

    def _quarantine(self, held: Held, reason: str) -> None:
        try:
            self._window.quarantine(held.message.msgid, reason)
        except StoreError as error:
            self._s.log.error(str(error))

    def _original(self, held: Held, evpid: int) -> tuple[bytes, bool]:
        """The message, or its first bytes, and whether all of it is to be returned."""
        message = held.message
        full = message.envelopes[evpid].envelope.dsn.ret == "FULL" and message.size_bytes <= FULL_BYTES
        if not message.in_file:
            return self._window.body(held), full
        fd = self._window.body_fd(held)
        with open(fd, "rb", buffering=0) as file:
            return file.read(message.size_bytes if full else MAX_HEADER_BYTES + 4), full

    def _notice(
        self, held: Held, action: NoticeAction, evpids: list[int], original: bytes, full: bool, msgid: int
    ) -> Notice:
        message = held.message
        recipients = []
        for evpid in evpids:
            stored = message.envelopes[evpid]
            recipients.append(
                NoticeRecipient(
                    stored.envelope.rcpt, stored.envelope.dest, stored.text, stored.relay, stored.envelope.dsn.orcpt,
                    stored.last_try_ms // 1000, self._s.expires_ms(stored, message.created_ms) // 1000,
                )
            )  # fmt: skip
        first = message.envelopes[evpids[0]].envelope
        now_secs = self._s.now_ms() // 1000
        return Notice(
            action, self._s.settings.hostname, first.sender, tuple(recipients), message.created_ms // 1000,
            now_secs, f"{message_id_text(msgid)}.{now_secs:x}", original, full, first.dsn.envid,
        )  # fmt: skip
