"""A store in memory: for tests, and for mail that may be lost.

Runs in queue. It keeps records encoded, so that nothing stored is shared with the caller.
"""

from smtpd_ps.queue.store.protocol import Damaged, Due, Group, Loaded
from smtpd_ps.queue.store.records import (
    PAUSED_MS,
    DamagedRecord,
    StoredMessage,
    checksum,
    decode_record,
    encode_record,
)  # fmt: skip


class _Row:
    __slots__ = ("body", "crc", "damage", "due_ms", "envelopes", "record")

    def __init__(self, message: StoredMessage, body: bytes | None) -> None:
        self.body = body
        self.damage = ""
        self.put(message)

    def put(self, message: StoredMessage) -> None:
        self.record = encode_record(message)
        self.crc = checksum(self.record)
        self.due_ms = message.due_ms
        self.envelopes = len(message.envelopes)


class RamStore:
    """See protocol.Store. `close` forgets everything."""

    def __init__(self) -> None:
        self._rows: dict[int, _Row] = {}

    def write(self, group: Group) -> None:
        """See Store."""
        for message, body in group.inserts:
            self._rows[message.msgid] = _Row(message, body)
        for message in group.updates:
            self._rows[message.msgid].put(message)
        for msgid in group.removals:
            self._rows.pop(msgid, None)

    def due(self, before_ms: int, after: Due | None, limit: int) -> list[Due]:
        """See Store."""
        found = sorted(
            Due(row.due_ms, msgid)
            for msgid, row in self._rows.items()
            if not row.damage and row.due_ms <= before_ms and (after is None or (row.due_ms, msgid) > after)
        )
        return found[:limit]

    def next_due_ms(self, after_ms: int) -> int | None:
        """See Store."""
        return min((r.due_ms for r in self._rows.values() if not r.damage and r.due_ms > after_ms), default=None)

    def load(self, msgids: list[int]) -> list[Loaded]:
        """See Store."""
        return [self._load(msgid) for msgid in msgids if msgid in self._rows]

    def _load(self, msgid: int) -> Loaded:
        row = self._rows[msgid]
        if row.damage:
            return Damaged(msgid, row.damage)
        try:
            return decode_record(msgid, row.record, row.crc)
        except DamagedRecord as error:
            row.damage = str(error)
            return Damaged(msgid, row.damage, row.envelopes)

    def scan(self, after_msgid: int, limit: int) -> list[Loaded]:
        """See Store."""
        return [self._load(msgid) for msgid in sorted(m for m in self._rows if m > after_msgid)[:limit]]

    def body(self, message: StoredMessage) -> bytes:
        """See Store."""
        row = self._rows.get(message.msgid)
        if row is None or row.body is None:
            raise DamagedRecord("no body")
        if checksum(row.body) != message.body_crc:
            raise DamagedRecord("body checksum")
        return row.body

    def mark_damaged(self, msgid: int, reason: str) -> None:
        """See Store."""
        if msgid in self._rows:
            self._rows[msgid].damage = reason

    def damaged(self, after_msgid: int, limit: int) -> list[Damaged]:
        """See Store."""
        found = sorted(m for m, row in self._rows.items() if row.damage and m > after_msgid)[:limit]
        return [Damaged(msgid, self._rows[msgid].damage, self._rows[msgid].envelopes) for msgid in found]

    def reread(self, msgid: int) -> StoredMessage | None:
        """See Store."""
        row = self._rows.get(msgid)
        return decode_record(msgid, row.record, row.crc) if row is not None and row.damage else None

    def heal(self, message: StoredMessage) -> None:
        """See Store."""
        row = self._rows[message.msgid]
        row.damage, row.due_ms = "", message.due_ms

    def hurry(self, after_msgid: int, limit: int, due_ms: int) -> tuple[int, int]:
        """See Store."""
        msgids = sorted(m for m in self._rows if m > after_msgid)[:limit]
        envelopes = 0
        for msgid in msgids:
            row = self._rows[msgid]
            if not row.damage and due_ms < row.due_ms < PAUSED_MS:
                row.due_ms = due_ms
                envelopes += row.envelopes
        return envelopes, msgids[-1] if len(msgids) == limit else 0

    def any_in(self, first_msgid: int, last_msgid: int) -> bool:
        """See Store."""
        return any(first_msgid <= msgid <= last_msgid for msgid in self._rows)

    def has(self, msgid: int) -> bool:
        """See Store."""
        return msgid in self._rows

    def count_envelopes(self) -> int:
        """See Store."""
        return sum(row.envelopes for row in self._rows.values() if not row.damage)

    def tidy(self, idle: bool) -> None:
        """See Store. There is nothing to tidy."""

    def close(self) -> None:
        """See Store."""
        self._rows.clear()


class NullStore(RamStore):
    """Takes everything and keeps nothing: what the queue costs without a store. For measuring, and for tests."""

    def write(self, group: Group) -> None:
        """Forget it at once."""
