"""Room laid out for the write-ahead log: it is no part of the log, and nothing depends on it."""

import os
import shutil

import pytest
from queue_rig import START_MS, envelope

from smtpd_ps.queue.store import log_room
from smtpd_ps.queue.store.embedded import EmbeddedStore
from smtpd_ps.queue.store.log_room import ROOM_BYTES, lay_out
from smtpd_ps.queue.store.protocol import Group, Insert
from smtpd_ps.queue.store.records import RECORD_VERSION, StoredEnvelope, StoredMessage, checksum

BODY = b"Subject: x\r\n\r\n" + b"line\r\n" * 700


def put(store, msgid):
    """Store one small message."""
    envelopes = {msgid << 32 | 1: StoredEnvelope(envelope(), START_MS)}
    message = StoredMessage(RECORD_VERSION, msgid, START_MS, len(BODY), False, False, checksum(BODY), envelopes)
    store.write(Group([Insert(message, BODY)], [], []))


@pytest.mark.parametrize("before", [0, 5])
def test_what_a_kill_left_is_read_in_front_of_the_room(tmp_path, before):
    """Laid out before the log's first frame or behind some: all that was committed is there after a kill."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    store = EmbeddedStore(tmp_path / "a/queue.db")
    for msgid in range(1, before + 1):
        put(store, msgid)
    assert lay_out(tmp_path / "a/queue.db-wal")
    for msgid in range(before + 1, 31):
        put(store, msgid)
    for name in ("queue.db", "queue.db-wal"):
        shutil.copy(tmp_path / "a" / name, tmp_path / "b" / name)
    store.close()
    assert (tmp_path / "b/queue.db-wal").stat().st_size == ROOM_BYTES
    left = EmbeddedStore(tmp_path / "b/queue.db")
    assert left.check() == ""
    assert [one.msgid for one in left.scan(0, 100)] == list(range(1, 31))
    assert all(left.body(one) == BODY for one in left.scan(0, 100))
    left.close()


def test_the_log_goes_on_behind_the_room(tmp_path):
    """More than fits before a checkpoint is as safe."""
    store = EmbeddedStore(tmp_path / "queue.db")
    put(store, 1)
    lay_out(tmp_path / "queue.db-wal")
    for first in range(2, 4000, 500):
        store.write(
            Group([
                Insert(
                    StoredMessage(RECORD_VERSION, msgid, START_MS, len(BODY), False, False, checksum(BODY),
                                  {msgid << 32: StoredEnvelope(envelope(), START_MS)}), BODY,
                ) for msgid in range(first, first + 500)
            ], [], [])
        )  # fmt: skip
    assert (tmp_path / "queue.db-wal").stat().st_size > ROOM_BYTES
    assert store.count_envelopes() == 4001
    assert lay_out(tmp_path / "queue.db-wal")
    assert (tmp_path / "queue.db-wal").stat().st_size > ROOM_BYTES, "it never shortens the log"
    store.close()


def test_a_disk_that_fills_up_meanwhile(tmp_path, monkeypatch):
    """What was begun is given back."""
    log, writing, times = tmp_path / "queue.db-wal", os.pwrite, []
    log.write_bytes(b"frames")

    def pwrite(fd, data, at):
        times.append(at)
        if len(times) > 3:
            raise OSError(28, "No space left on device")
        return writing(fd, data, at)

    monkeypatch.setattr(os, "pwrite", pwrite)
    assert not lay_out(log)
    assert log.read_bytes() == b"frames"


def test_nothing_is_taken_where_room_is_short(tmp_path, monkeypatch):
    """A small file system, and a store without a log, stay as they are."""
    log = tmp_path / "queue.db-wal"
    assert not lay_out(log)
    assert not log.exists()
    log.touch()
    monkeypatch.setattr(log_room, "SPARE", 1 << 40)
    assert not lay_out(log)
    assert log.stat().st_size == 0
