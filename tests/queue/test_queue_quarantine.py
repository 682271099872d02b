"""Damaged mail: listed, put back where it can be read after all, removed."""

import pytest
from queue_rig import BODY
from test_queue_desk import done, waiting

from smtpd_ps.contract import messages as m
from smtpd_ps.queue.store.embedded import EmbeddedStore
from smtpd_ps.queue.store.protocol import Damaged
from smtpd_ps.queue.store.ram import RamStore


@pytest.fixture(params=["embedded", "ram"])
def kept(request, tmp_path, rigs):
    """A rig with each store."""
    made = EmbeddedStore(tmp_path / "q.db") if request.param == "embedded" else RamStore()
    rig = rigs(tmp_path, store=made)
    yield rig
    rig.close()


def corrupt(rig):
    rig.say(m.ShowCorrupt(3))
    answer = done(rig)
    rows = rig.control.take(m.CorruptRow)
    assert answer.count == len(rows)
    return [(row.msgid, row.reason) for row in rows]


def large(rig):
    """A message in a file, which left memory."""
    rig.shared.scheduler.pause("mta")
    msgid = rig.accept_file(body=BODY * 5000)
    rig.queue.window.forget(rig.queue.window.held[msgid])
    rig.shared.scheduler.resume("mta")
    return msgid


def test_the_list(kept):
    """Message and reason, those that are damaged only."""
    waiting(kept)
    assert corrupt(kept) == []
    msgid = waiting(kept)
    kept.queue.window.quarantine(msgid, "body checksum")
    assert corrupt(kept) == [(msgid, "body checksum")]


def test_what_can_be_read_after_all_is_put_back(kept):
    """Its body file is there again: it is tried as any other."""
    msgid = large(kept)
    path = kept.directory / "bodies" / f"{msgid:08x}"
    data = path.read_bytes()
    path.unlink()
    kept.queue.window.look_again()
    kept.queue.wake()
    kept.timers.turn()
    assert corrupt(kept) == [(msgid, "no body file")]
    kept.say(m.Uncorrupt(1, msgid))
    answer = done(kept)
    assert not answer.ok and answer.text == f"message {msgid:08x} is damaged still: no body file"
    path.write_bytes(data)
    kept.say(m.Uncorrupt(1, msgid))
    assert done(kept).count == 1
    assert corrupt(kept) == []
    kept.timers.advance(1000)
    assert [job.msgid for job in kept.jobs()] == [msgid]
    assert kept.shared.counters.envelopes == kept.store.count_envelopes() == 1


def test_all_that_can_be_read(kept):
    """Those that cannot stay, and are named in the log."""
    good, bad = waiting(kept), large(kept)
    for msgid in (good, bad):
        kept.queue.window.quarantine(msgid, "body checksum")
    (kept.directory / "bodies" / f"{bad:08x}").unlink()
    kept.say(m.Uncorrupt(1))
    assert done(kept).count == 1
    assert [msgid for msgid, _reason in corrupt(kept)] == [bad]
    assert kept.log.has(f"msgid={bad:08x} is damaged still: no body file")


def test_nothing_to_put_back(kept):
    """A whole message, and one that is not there."""
    msgid = waiting(kept)
    for one in (msgid, 0x7777):
        kept.say(m.Uncorrupt(1, one))
        assert (done(kept).count, kept.log.has("put back")) == (0, False)


def test_a_damaged_message_is_removed_for_good(kept):
    """With its body; the answer says that it was one."""
    msgid = large(kept)
    kept.queue.window.quarantine(msgid, "body checksum")
    kept.say(m.Remove(1, 0, msgid))
    answer = done(kept)
    assert (answer.count, answer.text) == (0, "1 damaged message removed")
    assert corrupt(kept) == [] and not kept.store.has(msgid)
    assert list((kept.directory / "bodies").iterdir()) == []


def test_a_record_that_rotted_is_not_put_back(rigs, tmp_path):
    """Its own bytes do not check out."""
    rig = rigs(tmp_path)
    msgid = waiting(rig)
    rig.store._open.execute("UPDATE message SET record = x'00' WHERE msgid = ?", (msgid,))
    assert isinstance(rig.store.load([msgid])[0], Damaged)
    rig.say(m.Uncorrupt(1, msgid))
    assert "record checksum" in done(rig).text
    rig.close()
