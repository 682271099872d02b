"""The embedded store: SQLite in WAL mode, one connection, one sync a group.

Runs in queue; parses its own database, which may have rotted. Two tables, because a retry then
rewrites a record of some hundred bytes and not the body with it, and because a walk over all
envelopes does not read bodies. Bodies above INLINE_BODY_BYTES are files (queue/bodies).

The figures behind the choices (2 cores, ext4): pages of 4 KiB write the least WAL (5 KiB a message
of 1 KiB in groups of 20, 8 KiB pages 7, 16 KiB pages 10) and cost the least CPU (17 us a message,
against 31). Exclusive locking spares the shared-memory file and a few system calls a transaction.
The WAL is checkpointed here when idle or large, never inside a commit.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from smtpd_ps.pure.sqlite_pages import (
    FILE_HEADER_BYTES,
    FRAME_BYTES,
    FRAME_HEADER_BYTES,
    WAL_HEADER_BYTES,
    committed_frames,
)
from smtpd_ps.queue.store.coding import Coder
from smtpd_ps.queue.store.protocol import Damaged, Due, Group, Loaded, StoreError, StoreFull
from smtpd_ps.queue.store.records import (
    PAUSED_MS,
    DamagedRecord,
    NoKey,
    StoredMessage,
    checksum,
    decode_record,
    encode_record,
)  # fmt: skip

SCHEMA_VERSION = 1
APPLICATION_ID = 0x736D7470  # "smtp"
PAGE_BYTES = 4096
CACHE_KIB = 8192
CHECK_ALL_BYTES = 256 * 1024 * 1024  # a larger database is not read as a whole at the start
LOOK_AGAIN_SECS = 0.02
WAL_BOUND_BYTES = 32 * 1024 * 1024  # checkpointed above this even when busy

_SCHEMA = (
    # due_ms is NULL where damage says why the message cannot be read.
    "CREATE TABLE message (msgid INTEGER PRIMARY KEY, due_ms INTEGER, envelopes INTEGER NOT NULL,"
    " crc INTEGER NOT NULL, record BLOB NOT NULL, damage TEXT) STRICT",
    "CREATE INDEX message_due ON message (due_ms, msgid, envelopes)",
    "CREATE TABLE body (msgid INTEGER PRIMARY KEY, data BLOB NOT NULL) STRICT",
)
_INSERT = "INSERT INTO message (msgid, due_ms, envelopes, crc, record) VALUES (?, ?, ?, ?, ?)"
_INSERT_BODY = "INSERT INTO body VALUES (?, ?)"
_UPDATE = "UPDATE message SET due_ms = ?, envelopes = ?, crc = ?, record = ? WHERE msgid = ?"
_DELETE = "DELETE FROM message WHERE msgid = ?"
_DELETE_BODY = "DELETE FROM body WHERE msgid = ?"
# A million messages are read and compared with their index in a second so, and in six by integrity_check.
_SUMS = "SELECT count(*), sum(msgid), sum(coalesce(due_ms, 0) & 0xffffffff), sum(envelopes) FROM message "
_WAYS = ("INDEXED BY message_due", "NOT INDEXED")
_WAL_VERSION = b"\x02"  # of writing, in the file's header
_FULL = frozenset({sqlite3.SQLITE_FULL})
_IN_USE = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_NOT_A_DATABASE = frozenset({sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT})
_STRANGE = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_INTERNAL})


class InUse(StoreError):
    """Another process has the database open."""


class NotOurs(StoreError):
    """A database of another program or of a later version."""


class NotADatabase(StoreError):
    """The file is no database, or is damaged where it says what it holds."""


def warm_up() -> None:
    """Use SQLite once before confinement: it seeds its random numbers from /dev/urandom."""
    db = sqlite3.connect(":memory:")
    db.execute("SELECT randomblob(1)").fetchone()
    db.close()


class EmbeddedStore:
    """See protocol.Store. `path` is the database file, made with mode 0600 where it is missing.

    `patience_secs` is how long another process may still have it open. `repair` is called once, with the
    reason, when pages turn out to be malformed: it puts another database in the place of this one.
    `coder` compresses and encrypts.
    """

    def __init__(
        self, path: Path, patience_secs: float = 0.0, repair: Callable[[str], None] | None = None,
        coder: Coder | None = None,
    ) -> None:  # fmt: skip
        self._path = path
        self._coder = coder if coder is not None else Coder()
        self._wal = Path(f"{path}-wal")
        self._db: sqlite3.Connection | None = None
        self._since_checkpoint = 0  # bytes written, roughly
        self._repair = repair
        deadline = time.monotonic() + patience_secs
        while self._db is None:
            try:
                self._connect()
            except InUse:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(LOOK_AGAIN_SECS)

    # Opening.

    def _connect(self) -> sqlite3.Connection:
        try:
            # Not while SQLite has it open: the close would drop its locks.
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                header = os.read(fd, FILE_HEADER_BYTES)
            finally:
                os.close(fd)
        except OSError as error:  # a read-only file system, or no descriptor left
            raise StoreError(f"{self._path}: {os.strerror(error.errno or 0)}") from None
        db: sqlite3.Connection | None = None
        try:
            db = sqlite3.connect(self._path, isolation_level=None, cached_statements=64, timeout=0)
            for pragma in (
                f"page_size = {PAGE_BYTES}", "locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL",
                "temp_store = MEMORY", f"cache_size = -{CACHE_KIB}", "wal_autocheckpoint = 0",
                f"journal_size_limit = {WAL_BOUND_BYTES}",
            ):  # fmt: skip
                db.execute(f"PRAGMA {pragma}").fetchone()
            self._check_schema(db)
            if header[18:19] > _WAL_VERSION:
                db.close()
                raise NotADatabase(f"{self._path}: its header is damaged")  # SQLite says so at the first write
        except sqlite3.Error as error:
            if db is not None:
                db.close()
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in _NOT_A_DATABASE | _STRANGE:
                raise NotADatabase(f"{self._path}: {error}") from None
            if code in _IN_USE:
                raise InUse(f"{self._path}: {error}") from None
            raise StoreError(f"{self._path}: {error}") from None
        self._db = db
        return db

    def _check_schema(self, db: sqlite3.Connection) -> None:
        version: int = db.execute("PRAGMA user_version").fetchone()[0]
        ours = db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
        schema = {row[0] for row in db.execute("SELECT sql FROM sqlite_schema")}
        if version == 0 and not schema:
            db.execute("BEGIN IMMEDIATE")
            for statement in _SCHEMA:
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            db.execute("COMMIT")
            return
        known = schema == set(_SCHEMA)
        if version == SCHEMA_VERSION and ours and known:
            return
        db.close()
        if (version == SCHEMA_VERSION and (ours or known)) or (version == 0 and ours):
            raise NotADatabase(f"{self._path}: what it says of itself is damaged")
        raise NotOurs(f"{self._path}: a database of another program or version ({version})")

    def check(self) -> str:
        """What is malformed, "" where nothing is. Raises StoreError where that cannot be said."""
        db = self._open
        try:
            small = self._path.stat().st_size <= CHECK_ALL_BYTES
            for pragma in ("integrity_check(message)", "quick_check(1)") if small else ():
                for (text,) in db.execute(f"PRAGMA {pragma}").fetchmany(1):
                    if text != "ok":
                        return str(text).partition("\n")[0]
            if not small and len({db.execute(_SUMS + way).fetchone() for way in _WAYS}) > 1:
                return "its index is not that of its messages"
            read_frames: int = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1]
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NOT_A_DATABASE:
                return str(error)
            self._failed(error)
        # SQLite takes a frame that has rotted for the end of its log, whatever was committed behind it.
        written_frames = self._written_frames()
        return f"its log ends after {read_frames} of {written_frames} pages" if read_frames < written_frames else ""

    def _written_frames(self) -> int:
        try:
            fd = os.open(self._wal, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return 0
        try:
            return max((at + 1 for _page, at in wal_frames(fd)), default=0)
        finally:
            os.close(fd)

    def mend(self, why: object) -> bool:
        """Have the database repaired; False where that was done before. Raises StoreError."""
        repair, self._repair = self._repair, None
        if repair is None:
            return False
        try:
            repair(str(why))
        except OSError as error:
            raise StoreError(f"{self._path}: not repaired: {error}") from None
        finally:
            # Only now: closing it earlier would have emptied its log.
            db, self._db = self._db, None
            if db is not None:
                with suppress(sqlite3.Error):
                    db.close()
        return True

    @property
    def _open(self) -> sqlite3.Connection:
        return self._db or self._connect()

    def _failed(self, error: sqlite3.Error) -> NoReturn:
        """Roll back, and reopen next time: after an I/O error a connection is not to be trusted."""
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NOT_A_DATABASE and self.mend(error):
            raise StoreError(f"{self._path}: {error}; repaired") from None
        db, self._db = self._db, None
        if db is not None:
            try:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                db.close()
            except sqlite3.Error as second:
                raise StoreError(f"{self._path}: {error}; {second}") from None
        kind = StoreFull if getattr(error, "sqlite_errorcode", 0) & 0xFF in _FULL else StoreError
        raise kind(f"{self._path}: {error}") from None

    # Writing.

    def write(self, group: Group) -> None:
        """See Store."""
        db = self._open
        execute = db.execute
        written = 0
        try:
            execute("BEGIN IMMEDIATE")
            for message, body in group.inserts:
                if body is not None:
                    body = self._coded_body(message, body)
                record = self._record(message)
                row = (message.msgid, message.due_ms, len(message.envelopes), checksum(record), record)
                execute(_INSERT, row)
                written += len(record)
                if body is not None:
                    execute(_INSERT_BODY, (message.msgid, body))
                    written += len(body)
            for message in group.updates:
                record = self._record(message)
                execute(_UPDATE, (message.due_ms, len(message.envelopes), checksum(record), record, message.msgid))
                written += len(record)
            if group.removals:
                ids = [(msgid,) for msgid in group.removals]
                db.executemany(_DELETE, ids)
                db.executemany(_DELETE_BODY, ids)
            execute("COMMIT")
        except sqlite3.Error as error:
            self._failed(error)
        self._since_checkpoint += written + PAGE_BYTES * (4 + len(group.removals) // 4)

    def _record(self, message: StoredMessage) -> bytes:
        record = encode_record(message)
        if not self._coder.active:
            return record
        return self._coder.encode("record", message.msgid, record) or record

    def _coded_body(self, message: StoredMessage, body: bytes) -> bytes:
        coded = self._coder.encode("body", message.msgid, body) if self._coder.active else None
        message.coded = coded is not None
        return body if coded is None else coded

    def mark_damaged(self, msgid: int, reason: str) -> None:
        """See Store."""
        self._run("UPDATE message SET due_ms = NULL, damage = ? WHERE msgid = ?", (reason, msgid))

    def keep_damaged(self, msgid: int, reason: str) -> None:
        """As `mark_damaged`, also where nothing is left of the message but its id."""
        self._run(
            "INSERT INTO message (msgid, envelopes, crc, record, damage) VALUES (?, 0, 0, x'', ?)"
            " ON CONFLICT (msgid) DO UPDATE SET due_ms = NULL, damage = excluded.damage",
            (msgid, reason),
        )

    def hurry(self, after_msgid: int, limit: int, due_ms: int) -> tuple[int, int]:
        """See Store."""
        found = self._all("SELECT msgid FROM message WHERE msgid > ? ORDER BY msgid LIMIT ?", (after_msgid, limit))
        if not found:
            return 0, 0
        last: int = found[-1][0]
        envelopes: int = self._all(
            "SELECT coalesce(sum(envelopes), 0) FROM message"
            " WHERE msgid > ? AND msgid <= ? AND due_ms > ? AND due_ms < ?",
            (after_msgid, last, due_ms, PAUSED_MS),
        )[0][0]
        if envelopes:
            self._run(
                "UPDATE message SET due_ms = ? WHERE msgid > ? AND msgid <= ? AND due_ms > ? AND due_ms < ?",
                (due_ms, after_msgid, last, due_ms, PAUSED_MS),
            )
        return envelopes, last if len(found) == limit else 0

    # Reading.

    def _all(self, statement: str, values: Sequence[int | str] = ()) -> list[tuple[int, ...]]:
        return self._rows(statement, values)

    def _rows(self, statement: str, values: Sequence[int | str] = ()) -> list[tuple[Any, ...]]:
        try:
            return self._open.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            self._failed(error)

    def _run(self, statement: str, values: Sequence[int | str]) -> None:
        try:
            self._open.execute(statement, values)
        except sqlite3.Error as error:
            self._failed(error)

    def due(self, before_ms: int, after: Due | None, limit: int) -> list[Due]:
        """See Store."""
        due_ms, msgid = after if after is not None else (-1, -1)
        rows = self._all(
            "SELECT due_ms, msgid FROM message WHERE due_ms <= ? AND due_ms >= ? AND (due_ms, msgid) > (?, ?)"
            " ORDER BY due_ms, msgid LIMIT ?",
            (before_ms, due_ms, due_ms, msgid, limit),
        )
        return [Due(*row) for row in rows]

    def next_due_ms(self, after_ms: int) -> int | None:
        """See Store."""
        rows = self._all("SELECT due_ms FROM message WHERE due_ms > ? ORDER BY due_ms LIMIT 1", (after_ms,))
        return rows[0][0] if rows else None

    def load(self, msgids: list[int]) -> list[Loaded]:
        """See Store."""
        out: list[Loaded] = []
        for msgid in msgids:
            loaded = self._load_one(msgid)
            if loaded is not None:
                out.append(loaded)
        return out

    def _load_one(self, msgid: int) -> Loaded | None:
        db = self._open
        try:
            row = db.execute("SELECT envelopes, crc, record, damage FROM message WHERE msgid = ?", (msgid,)).fetchone()
        except sqlite3.OperationalError as error:
            self._failed(error)
        except sqlite3.DatabaseError as error:  # this page is malformed; others may not be
            return self._load_one(msgid) if self.mend(error) else Damaged(msgid, str(error))
        return None if row is None else self._checked(msgid, *row)

    def _checked(self, msgid: int, envelopes: int, crc: int, record: bytes, damage: str | None) -> Loaded:
        if damage is not None:
            return Damaged(msgid, damage)
        try:
            return decode_record(msgid, record, crc, self._coder)
        except NoKey as error:
            return Damaged(msgid, str(error))
        except DamagedRecord as error:
            self.mark_damaged(msgid, str(error))
            return Damaged(msgid, str(error), envelopes)

    def damaged(self, after_msgid: int, limit: int) -> list[Damaged]:
        """See Store. Only they are never due, which the index tells."""
        rows = self._rows(
            "SELECT msgid, damage, envelopes FROM message WHERE due_ms IS NULL AND msgid > ? ORDER BY msgid LIMIT ?",
            (after_msgid, limit),
        )
        return [Damaged(msgid, damage or "", envelopes) for msgid, damage, envelopes in rows]

    def reread(self, msgid: int) -> StoredMessage | None:
        """See Store."""
        rows = self._rows("SELECT crc, record FROM message WHERE msgid = ? AND due_ms IS NULL", (msgid,))
        return decode_record(msgid, rows[0][1], rows[0][0], self._coder) if rows else None

    def heal(self, message: StoredMessage) -> None:
        """See Store."""
        self._run(
            "UPDATE message SET due_ms = ?, envelopes = ?, damage = NULL WHERE msgid = ?",
            (message.due_ms, len(message.envelopes), message.msgid),
        )

    def scan(self, after_msgid: int, limit: int) -> list[Loaded]:
        """See Store."""
        rows = self._all("SELECT msgid FROM message WHERE msgid > ? ORDER BY msgid LIMIT ?", (after_msgid, limit))
        return self.load([row[0] for row in rows])

    def body(self, message: StoredMessage) -> bytes:
        """See Store."""
        db = self._open
        try:
            row = db.execute("SELECT data FROM body WHERE msgid = ?", (message.msgid,)).fetchone()
        except sqlite3.OperationalError as error:
            self._failed(error)
        except sqlite3.DatabaseError as error:
            if self.mend(error):
                return self.body(message)
            raise DamagedRecord(str(error)) from None
        if row is None:
            raise DamagedRecord("no body")
        data: bytes = row[0]
        if message.coded:
            data = self._coder.decode("body", message.msgid, data)
        if checksum(data) != message.body_crc:
            raise DamagedRecord("body checksum")
        return data

    def any_in(self, first_msgid: int, last_msgid: int) -> bool:
        """See Store."""
        return bool(self._all("SELECT 1 FROM message WHERE msgid BETWEEN ? AND ? LIMIT 1", (first_msgid, last_msgid)))

    def has(self, msgid: int) -> bool:
        """See Store."""
        return self.any_in(msgid, msgid)

    def count_encrypted(self) -> int:
        """Messages whose record only the key can read. Looks at all of them."""
        return self._all("SELECT count(*) FROM message WHERE substr(record, 1, 2) IN (x'c102', x'c103')")[0][0]

    def any_encrypted(self) -> tuple[int, bytes] | None:
        """One of them: its id and its record."""
        rows = self._rows("SELECT msgid, record FROM message WHERE substr(record, 1, 2) IN (x'c102', x'c103') LIMIT 1")
        return (rows[0][0], rows[0][1]) if rows else None

    def count_envelopes(self) -> int:
        """See Store."""
        return self._all("SELECT coalesce(sum(envelopes), 0) FROM message WHERE due_ms IS NOT NULL")[0][0]

    # Housekeeping.

    def tidy(self, idle: bool) -> None:
        """Checkpoint when idle or when the WAL is large. A failure waits for the next time."""
        if not self._since_checkpoint or not (idle or self._since_checkpoint > WAL_BOUND_BYTES):
            return
        self._since_checkpoint = 0
        self._all("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        """See Store. SQLite checkpoints and removes the WAL."""
        db, self._db = self._db, None
        if db is None:
            return
        try:
            db.close()
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from None


def wal_frames(fd: int) -> list[tuple[int, int]]:
    """(page, position) of the committed frames of a write-ahead log, its checksums left aside."""
    header = os.pread(fd, WAL_HEADER_BYTES, 0)
    frames = max(0, os.fstat(fd).st_size - WAL_HEADER_BYTES) // FRAME_BYTES
    heads = [os.pread(fd, FRAME_HEADER_BYTES, WAL_HEADER_BYTES + at * FRAME_BYTES) for at in range(frames)]
    return committed_frames(header, heads)
