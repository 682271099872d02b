"""A damaged database becomes a new one with everything in it that can still be read.

Runs in queue, when SQLite finds its file malformed; parses that file (pure/sqlite_pages). A message
counts when its record has its checksum, wherever in the file it lies. What is known to have been there
and cannot be read is kept as damaged. The old file stays beside, for a rescue by hand.
"""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from smtpd_ps.contract.values import message_id_text
from smtpd_ps.pure import sqlite_pages
from smtpd_ps.pure.sqlite_pages import FRAME_BYTES, FRAME_HEADER_BYTES, PAGE_BYTES, WAL_HEADER_BYTES, Row
from smtpd_ps.queue.store.coding import Coder
from smtpd_ps.queue.store.embedded import EmbeddedStore, wal_frames
from smtpd_ps.queue.store.protocol import Group, Insert
from smtpd_ps.queue.store.records import DamagedRecord, StoredMessage, checksum, decode_record

GROUP_MESSAGES = 500
COLUMNS = 6  # of a row of the table message
INDEX_COLUMNS = 4  # due_ms, msgid, envelopes and the rowid, which is the msgid again
BODY_COLUMNS = 2
UNREADABLE = "lost its envelopes in a damaged database"

Report = Callable[[str], None]


class Pages:
    """The pages of a database as they are after the last transaction of its log."""

    def __init__(self, path: Path) -> None:
        self._db = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._wal = -1
        self._newer: dict[int, int] = {}  # page number -> place in the log
        try:
            self._wal = os.open(f"{path}-wal", os.O_RDONLY | os.O_CLOEXEC)
            self._newer = dict(wal_frames(self._wal))
        except FileNotFoundError:
            self._wal = -1
        size_pages = os.fstat(self._db).st_size // PAGE_BYTES
        self.count = max([size_pages, *(page for page in self._newer if page <= size_pages + len(self._newer))])

    def fetch(self, number: int) -> bytes:
        """A page, from 1; b"" where there is none."""
        at = self._newer.get(number)
        if at is not None:
            return os.pread(self._wal, PAGE_BYTES, WAL_HEADER_BYTES + at * FRAME_BYTES + FRAME_HEADER_BYTES)
        return os.pread(self._db, PAGE_BYTES, (number - 1) * PAGE_BYTES) if number > 0 else b""

    def rows(self) -> Iterator[Row]:
        """Everything that can be read as a row."""
        free = sqlite_pages.free_pages(self.fetch, self.count)
        for number in range(1, self.count + 1):
            if number not in free:
                yield from sqlite_pages.rows(number, self.fetch)

    def close(self) -> None:
        """Close both files."""
        os.close(self._db)
        if self._wal >= 0:
            os.close(self._wal)


class _Found:
    """What the first look at all rows gives."""

    def __init__(self, pages: Pages, coder: Coder) -> None:
        self._coder = coder
        self.messages: dict[int, StoredMessage] = {}
        self.damaged: dict[int, str] = {}
        left_over: dict[int, StoredMessage] = {}
        known: set[int] = set()
        for row in pages.rows():
            if row.of_index:
                if row.live and len(row.values) == INDEX_COLUMNS and row.values[1] == row.values[3]:
                    known |= {value for value in row.values[1:2] if isinstance(value, int)}
            elif len(row.values) == COLUMNS:
                self._message(row, left_over)
        for msgid in (known & left_over.keys()) - self.messages.keys():
            self.messages[msgid] = left_over[msgid]
        for msgid in known - self.messages.keys():
            if 0 < msgid < 1 << 31:
                self.damaged.setdefault(msgid, UNREADABLE)
        for msgid in self.messages:
            self.damaged.pop(msgid, None)

    def _message(self, row: Row, left_over: dict[int, StoredMessage]) -> None:
        _alias, _due_ms, _envelopes, crc, record, damage = row.values
        try:
            message = decode_record(row.rowid, record, crc, self._coder)
        except DamagedRecord as error:
            if row.live and 0 < row.rowid < 1 << 31:
                self.damaged[row.rowid] = str(error)
            return
        into = self.messages if row.live else left_over
        other = into.get(row.rowid)
        if isinstance(damage, str):
            self.damaged[row.rowid] = damage
        elif other is None or _tries(other) < _tries(message):
            into[row.rowid] = message


def _tries(message: StoredMessage) -> int:
    return sum(one.tries for one in message.envelopes.values())


def salvage(path: Path, bodies: Path, why: str, report: Report, coder: Coder | None = None) -> None:
    """Put a new database in the place of the one at `path`. Raises StoreError, OSError.

    `bodies` is the directory of body files. A crash in between is made good by `finish`.
    """
    report(f"{path}: {why}: salvaging what can be read")
    fresh = Path(f"{path}.new")
    for leftover in (fresh, Path(f"{fresh}-wal")):
        leftover.unlink(missing_ok=True)
    pages = Pages(path)
    coder = coder if coder is not None else Coder()
    store = EmbeddedStore(fresh, coder=coder)
    try:
        kept, damaged = _copy(pages, store, bodies, coder)
    finally:
        pages.close()
        store.close()
    for msgid, reason in damaged.items():
        report(f"quarantine msgid={message_id_text(msgid)} reason={reason}")
    _sync(fresh)
    fresh.rename(f"{path}.salvaged")
    _sync(path.parent)
    finish(path, report)
    report(f"{path}: {kept} messages salvaged, {len(damaged)} damaged")


def finish(path: Path, report: Report) -> None:
    """Put a complete salvaged database into place; harmless where there is none."""
    salvaged = Path(f"{path}.salvaged")
    if not salvaged.exists():
        return
    aside = f"{path}.damaged-{int(time.time())}"
    for suffix in ("-wal", ""):
        old = Path(f"{path}{suffix}")
        if old.exists():
            old.rename(f"{aside}{suffix}")
    salvaged.rename(path)
    _sync(path.parent)
    report(f"{path}: the damaged database is kept as {Path(aside).name}")


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _plain(message: StoredMessage, data: object, coder: Coder) -> bytes | None:
    """The body, where these bytes are what is stored of it."""
    if not isinstance(data, bytes):
        return None
    try:
        plain = coder.decode("body", message.msgid, data) if message.coded else data
    except DamagedRecord:
        return None
    return plain if len(plain) == message.size_bytes and checksum(plain) == message.body_crc else None


def _copy(pages: Pages, store: EmbeddedStore, bodies: Path, coder: Coder) -> tuple[int, dict[int, str]]:
    """Returns how many messages were stored, and the damaged ones with the reason."""
    found = _Found(pages, coder)
    waiting = dict(found.messages)
    group: list[Insert] = []

    def flush() -> None:
        if group:
            store.write(Group(list(group), [], []))
            group.clear()

    orphans: set[int] = set()
    for row in pages.rows():
        if row.of_index or len(row.values) != BODY_COLUMNS:
            continue
        message, data = waiting.get(row.rowid), row.values[1]
        if message is None:
            if row.live and row.rowid not in found.messages and 0 < row.rowid < 1 << 31:
                orphans.add(row.rowid)
        elif (body := _plain(message, data, coder)) is not None:
            group.append(Insert(waiting.pop(row.rowid), body))
            if len(group) >= GROUP_MESSAGES:
                flush()
    damaged = dict(found.damaged)
    for message in waiting.values():
        if not message.in_file:
            damaged[message.msgid] = "no body that has its checksum"
        group.append(Insert(message, None))
    flush()
    for msgid in orphans | _body_files(bodies):
        if msgid not in found.messages:
            damaged.setdefault(msgid, UNREADABLE)
    for msgid, reason in damaged.items():
        store.keep_damaged(msgid, reason)
    return len(found.messages), damaged


def _body_files(bodies: Path) -> set[int]:
    try:
        names = os.listdir(bodies)
    except FileNotFoundError:
        return set()
    return {int(name, 16) for name in names if len(name) == 8 and all(c in "0123456789abcdef" for c in name)}
