"""One suite for every store, and what only the embedded one can get wrong."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from queue_rig import START_MS, envelope

from smtpd_ps.queue.store.embedded import EmbeddedStore, InUse, NotADatabase, NotOurs
from smtpd_ps.queue.store.protocol import Damaged, Due, Group, Insert, StoreError, StoreFull
from smtpd_ps.queue.store.ram import RamStore
from smtpd_ps.queue.store.records import (
    RECORD_VERSION,
    DamagedRecord,
    StoredEnvelope,
    StoredMessage,
    checksum,
    decode_record,
    encode_record,
)


def message(msgid: int, due_ms: int = START_MS, body: bytes = b"body", envelopes: int = 1) -> StoredMessage:
    made = {(msgid << 32) + n: StoredEnvelope(envelope(f"u{n}@example.org"), due_ms) for n in range(envelopes)}
    return StoredMessage(RECORD_VERSION, msgid, START_MS, len(body), False, False, checksum(body), made)


def put(store, *messages: StoredMessage, body: bytes = b"body") -> None:
    store.write(Group([Insert(one, body) for one in messages], [], []))


@pytest.fixture(params=["embedded", "ram"])
def store(request, tmp_path: Path):
    """Each backend in turn."""
    made = EmbeddedStore(tmp_path / "queue.db") if request.param == "embedded" else RamStore()
    yield made
    made.close()


def test_what_is_written_is_read_back(store):
    """Messages and bodies come back as they were."""
    one = message(5, envelopes=3)
    put(store, one)
    assert store.load([5]) == [one]
    assert store.body(one) == b"body"
    assert store.load([6]) == []
    assert store.count_envelopes() == 3


def test_due_is_in_order_and_can_be_continued(store):
    """Due messages come by time, then id; `after` continues behind a row."""
    put(store, message(9, 10), message(3, 20), message(4, 20), message(1, 30), message(2, 99))
    first = store.due(50, None, 2)
    assert first == [Due(10, 9), Due(20, 3)]
    assert store.due(50, first[-1], 10) == [Due(20, 4), Due(30, 1)]
    assert store.next_due_ms(50) == 99
    assert store.next_due_ms(99) is None


def test_one_group_inserts_updates_and_removes(store):
    """All parts of a group take effect together."""
    old, gone = message(1), message(2)
    put(store, old, gone)
    next(iter(old.envelopes.values())).due_ms = 77
    store.write(Group([Insert(message(3), b"new")], [old], [2]))
    assert [one.msgid for one in store.scan(0, 10)] == [1, 3]
    assert store.load([1])[0].due_ms == 77
    with pytest.raises(DamagedRecord):
        store.body(gone)


def test_removing_what_is_not_there_is_harmless(store):
    """A removal may be repeated after a failure."""
    store.write(Group([], [], [12345]))
    assert store.scan(0, 10) == []


def test_scan_goes_on_behind_an_id(store):
    """A walk in steps sees every message once, in order of id."""
    put(store, *[message(n) for n in (5, 1, 4, 2, 3)])
    assert [one.msgid for one in store.scan(2, 2)] == [3, 4]
    assert store.any_in(4, 10) and not store.any_in(6, 10)
    assert store.has(5) and not store.has(6)


def test_a_damaged_message_is_kept_and_never_due(store):
    """Marked: not due, not counted, still seen by a walk, removable."""
    put(store, message(1), message(2))
    store.mark_damaged(1, "reason")
    assert store.due(START_MS, None, 10) == [Due(START_MS, 2)]
    assert store.count_envelopes() == 1
    assert store.scan(0, 1) == [Damaged(1, "reason")]
    store.write(Group([], [], [1]))
    assert not store.has(1)


def test_hurry_makes_later_ones_due(store):
    """Only what was due later moves, and is counted in envelopes."""
    put(store, message(1, 50, envelopes=2), message(2, 500, envelopes=3), message(3, 600))
    assert store.hurry(0, 2, 100) == (3, 2)
    assert store.hurry(2, 2, 100) == (1, 0)
    assert store.due(100, None, 10) == [Due(50, 1), Due(100, 2), Due(100, 3)]


def test_a_body_of_another_checksum_is_damaged(store):
    """A body is compared with the checksum in its message's record."""
    one = message(1)
    put(store, one, body=b"rot!")
    with pytest.raises(DamagedRecord, match="checksum"):
        store.body(one)


def test_records_refuse_what_was_not_stored():
    """A flipped bit, another message's record, a later version: each is told apart."""
    one = message(7)
    record = encode_record(one)
    crc = checksum(record)
    assert decode_record(7, record, crc) == one
    for bad, says in (
        ((7, record[:-1] + b"\0", crc), "checksum"),
        ((8, record, crc), "another message"),
        ((7, b"\x99", checksum(b"\x99")), "record"),
        ((7, "text", crc), "checksum"),
    ):
        with pytest.raises(DamagedRecord, match=says):
            decode_record(*bad)
    one.version = 2
    record = encode_record(one)
    with pytest.raises(DamagedRecord, match="version 2"):
        decode_record(7, record, checksum(record))


def test_records_of_an_earlier_version_read():
    """An envelope stored before fields were added at its end has their defaults."""
    one = message(7)
    record = msgspec.msgpack.decode(encode_record(one))
    del record[8:]  # coded
    for stored in record[-1].values():
        del stored[0][8:]  # target, target_source, forwarded
    old = msgspec.msgpack.encode(record)
    assert len(old) < len(encode_record(one))
    assert decode_record(7, old, checksum(old)) == one


# The embedded store alone.


def corrupt(path: Path, statement: str, *values: object) -> None:
    db = sqlite3.connect(path)
    with db:
        db.execute(statement, values)
    db.close()


def test_a_closed_store_opens_with_its_content(tmp_path):
    """The schema is made once, the content stays, the file is private."""
    path = tmp_path / "queue.db"
    first = EmbeddedStore(path)
    put(first, message(1))
    first.close()
    assert path.stat().st_mode & 0o777 == 0o600
    second = EmbeddedStore(path)
    assert [one.msgid for one in second.scan(0, 10)] == [1]
    second.close()


def test_a_rotten_record_is_marked_when_met_and_the_rest_is_served(tmp_path):
    """Quarantine of the one entry."""
    path = tmp_path / "queue.db"
    store = EmbeddedStore(path)
    put(store, message(1), message(2))
    store.close()
    corrupt(path, "UPDATE message SET record = ? WHERE msgid = 1", b"rot")
    store = EmbeddedStore(path)
    assert store.load([1, 2]) == [Damaged(1, "record checksum", 1), message(2)]
    assert [due.msgid for due in store.due(START_MS, None, 10)] == [2]
    store.close()


def test_a_failing_transaction_stores_nothing_of_its_group(tmp_path):
    """One bad row takes the group back, and the store goes on."""
    store = EmbeddedStore(tmp_path / "queue.db")
    put(store, message(1))
    with pytest.raises(StoreError):
        put(store, message(2), message(1))
    assert [one.msgid for one in store.scan(0, 10)] == [1]
    put(store, message(2))
    assert store.has(2)
    store.close()


def test_a_full_disk_is_told_apart(tmp_path):
    """Lack of room raises StoreFull, and room that comes back is used without a restart."""
    store = EmbeddedStore(tmp_path / "queue.db")
    put(store, message(1))
    db = store._open
    pages = db.execute("PRAGMA page_count").fetchone()[0]
    db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreFull):
        put(store, message(2), body=b"x" * 60_000)
    put(store, message(3))  # reopened, without the limit
    assert [one.msgid for one in store.scan(0, 10)] == [1, 3]
    store.close()


def test_what_is_no_database_of_ours_is_refused(tmp_path):
    """Rubbish, another program's database and a later version are told apart from an empty file."""
    (tmp_path / "a").write_bytes(b"rubbish" * 1000)
    with pytest.raises(NotADatabase):
        EmbeddedStore(tmp_path / "a")
    corrupt(tmp_path / "b", "CREATE TABLE other (x)")
    with pytest.raises(NotOurs):
        EmbeddedStore(tmp_path / "b")
    store = EmbeddedStore(tmp_path / "c")
    store.close()
    corrupt(tmp_path / "c", "PRAGMA user_version = 99")
    with pytest.raises(NotOurs, match="99"):
        EmbeddedStore(tmp_path / "c")


def test_committed_groups_survive_a_kill(tmp_path):
    """A child writes groups and says so; killed in the middle, all that it said is there."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            store = EmbeddedStore(tmp_path / "queue.db")
            for first in range(1, 100_000, 5):
                put(store, *[message(first + n) for n in range(5)])
                os.write(writer, f"{first}\n".encode())
        finally:
            os._exit(1)
    os.close(writer)
    said = b""
    while said.count(b"\n") < 20:
        said += os.read(reader, 4096)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    while more := os.read(reader, 65536):
        said += more
    os.close(reader)
    store = EmbeddedStore(tmp_path / "queue.db")
    have = {one.msgid for one in store.scan(0, 1_000_000)}
    for line in said.split():
        assert {int(line) + n for n in range(5)} <= have
    store.close()


def test_the_wal_is_checkpointed_when_idle(tmp_path):
    """After `tidy(idle)` the content is in the database file itself."""
    path = tmp_path / "queue.db"
    store = EmbeddedStore(path)
    put(store, message(1), body=b"needle in the file")
    assert b"needle in the file" not in path.read_bytes()
    store.tidy(False)
    assert b"needle in the file" not in path.read_bytes()
    store.tidy(True)
    assert b"needle in the file" in path.read_bytes()
    store.close()


def test_the_store_waits_for_the_process_that_has_it(tmp_path):
    """A killed daemon's queue may still be dying when the next one starts; without patience it is an error."""
    old = EmbeddedStore(tmp_path / "queue.db")
    with pytest.raises(InUse):
        EmbeddedStore(tmp_path / "queue.db", patience_secs=0.05)
    waited = []

    def look_again(_secs):
        waited.append(1)
        if len(waited) == 3:
            old.close()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("smtpd_ps.queue.store.embedded.time.sleep", look_again)
        new = EmbeddedStore(tmp_path / "queue.db", patience_secs=60)
    assert len(waited) == 3
    new.close()


def test_the_lock_outlives_a_check(tmp_path):
    """Closing a descriptor of the file would drop the lock of the process: nothing here may do that."""
    store = EmbeddedStore(tmp_path / "queue.db")
    assert store.check() == ""
    program = (
        "import sqlite3, sys; db = sqlite3.connect(sys.argv[1], timeout=0);"
        " db.execute('PRAGMA locking_mode = EXCLUSIVE'); db.execute('SELECT * FROM message')"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "queue.db")], capture_output=True, text=True)
    assert "database is locked" in done.stderr
    store.close()


def test_a_database_killed_before_its_first_checkpoint_opens(tmp_path):
    """All of it is in the log then."""
    store = EmbeddedStore(tmp_path / "queue.db")
    for name in os.listdir(tmp_path):
        shutil.copy(tmp_path / name, tmp_path / name.replace("queue", "killed"))
    store.close()
    again = EmbeddedStore(tmp_path / "killed.db")
    assert again.check() == ""
    again.close()
