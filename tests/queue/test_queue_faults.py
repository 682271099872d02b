"""Faults: a failing store, a full disk, damaged entries, peers that break the contract."""

import os
import sqlite3

import pytest
from queue_rig import BODY, Failed, envelope

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Dsn, Status
from smtpd_ps.queue.reserve import RESERVE_BYTES, Reserve
from smtpd_ps.queue.spool import open_spool
from smtpd_ps.queue.store.protocol import StoreError, StoreFull


def breaking(monkeypatch, rig, error):
    def write(group):
        raise error

    monkeypatch.setattr(rig.store, "write", write)


def full(*_arguments):
    """In place of a method of the store that writes."""
    raise StoreFull("full")


@pytest.mark.parametrize(("error", "code"), [(StoreFull("full"), 452), (StoreError("I/O"), 451)])
def test_a_failing_commit_refuses_new_mail_for_now(rig, monkeypatch, error, code):
    """4xx for all of the group; when the store works again mail is taken, without a restart."""
    with monkeypatch.context() as patch:
        breaking(patch, rig, error)
        rig.accept()
        assert rig.smtp.take(m.Committed)[0].code == code
        assert not rig.jobs()
    rig.accept()
    assert rig.smtp.take(m.Committed)[0].code == 250


def test_a_database_that_cannot_be_opened_again_is_a_fault_for_now(rig, monkeypatch):
    """After an I/O error on a file system that is read-only now: 451, and no exception but StoreError."""
    opening = os.open

    def read_only(path, flags, *more, **named):
        if str(path).endswith("queue.db"):
            raise OSError(30, "Read-only file system")
        return opening(path, flags, *more, **named)

    with monkeypatch.context() as patch:
        with pytest.raises(StoreError):
            rig.store._failed(sqlite3.OperationalError("disk I/O error"))
        patch.setattr(os, "open", read_only)
        rig.accept()
        assert rig.smtp.take(m.Committed)[0].code == 451
        assert rig.log.has("Read-only file system")
    rig.accept()
    assert rig.smtp.take(m.Committed)[0].code == 250


def test_outcomes_are_kept_while_the_store_fails(rig, monkeypatch):
    """A delivered message is not delivered again because its removal had to wait."""
    rig.accept()
    jobs = rig.jobs()
    with monkeypatch.context() as patch:
        breaking(patch, rig, StoreError("I/O"))
        rig.answer(jobs, Status.OK)
        rig.timers.advance(5000)
        assert not rig.jobs()
    assert len(rig.stored()) == 1
    rig.timers.advance(1100)
    assert not rig.stored()


def test_the_reserve_lets_a_full_disk_drain(rig, monkeypatch):
    """Without room to write removals down, nothing would ever become free: the room kept back serves for that."""
    rig.shared.reserve = reserve = Reserve(rig.directory / "reserve")
    reserve.keep()
    assert (rig.directory / "reserve").stat().st_blocks * 512 >= RESERVE_BYTES
    for _ in range(100):
        rig.accept()
    jobs = rig.jobs()
    write, sizes = rig.store.write, []

    def full(group):
        if reserve.kept or group.inserts or len(group.removals) > 40:
            raise StoreFull("full")
        sizes.append(len(group.removals))
        write(group)

    with monkeypatch.context() as patch:
        patch.setattr(rig.store, "write", full)
        rig.answer(jobs, Status.OK)
        done = []
        rig.queue.committer.after(lambda: done.append(len(rig.stored())))
        rig.timers.advance(200)
        assert not rig.stored()
        assert sum(sizes) == 100
        assert done == [0], "said before all was durable"
        assert not (rig.directory / "reserve").exists()
    rig.accept()
    assert rig.smtp.take(m.Committed)[-1].code == 250
    rig.timers.advance(5000)
    assert reserve.kept and (rig.directory / "reserve").exists()


@pytest.mark.parametrize("how", ["evpid", "msgid", "all"])
def test_schedule_where_nothing_can_be_written(rig, monkeypatch, how):
    """Only deliveries make room: they are made without their new time on disk, and written down when that works."""
    msgid = rig.accept()
    rig.answer(rig.jobs(), Status.TEMPFAIL, "later")
    rig.timers.advance(60)
    assert not rig.queue.window.held
    (evpid,) = rig.stored()[0].envelopes
    with monkeypatch.context() as patch:
        for writer in ("write", "hurry"):
            patch.setattr(rig.store, writer, full)
        request = {"evpid": m.Schedule(3, evpid=evpid), "msgid": m.Schedule(3, msgid=msgid), "all": m.Schedule(3)}
        rig.say(request[how])
        rig.timers.advance(0)
        assert [(one.ok, one.count) for one in rig.control.take(m.Done)] == [(True, 1)]
        jobs = rig.jobs()
        assert [job.msgid for job in jobs] == [msgid]
        rig.answer(jobs, Status.OK)
        rig.timers.advance(3000)
        assert not rig.jobs()
    rig.timers.advance(1100)
    assert not rig.stored()


def test_schedule_all_where_nothing_can_be_written_is_bounded(rig, monkeypatch):
    """As many as memory may hold are tried, and the operator hears that these were not all."""
    rig.queue.window._bound = 7
    for _ in range(10):
        rig.accept()
        rig.answer(rig.jobs(), Status.TEMPFAIL, "later")
        rig.timers.advance(60)

    monkeypatch.setattr(rig.store, "hurry", full)
    rig.say(m.Schedule(3))
    rig.timers.advance(0)
    assert len(rig.jobs()) == 7
    (done,) = rig.control.take(m.Done)
    assert not done.ok and "to be tried now" in done.text


def test_the_reserve_lets_a_body_be_decrypted(rig, monkeypatch):
    """A large body that is stored encrypted needs room to be read: the room kept back serves for that as well."""
    rig.shared.reserve = reserve = Reserve(rig.directory / "reserve")
    reserve.keep()
    opening, tries = rig.queue.window.body_fd, []

    def body_fd(held):
        tries.append(reserve.kept)
        if reserve.kept or len(tries) > 2:
            raise OSError(28, "No space left on device")
        return opening(held)

    monkeypatch.setattr(rig.queue.window, "body_fd", body_fd)
    first = rig.accept_file(body=b"x" * 100_000)
    assert [job.msgid for job in rig.jobs()] == [first]
    assert tries == [True, False]
    rig.accept_file(body=b"x" * 100_000)
    assert not rig.jobs(), "there was no more room"
    assert rig.log.has("cannot read a body")
    monkeypatch.undo()
    rig.timers.advance(6000)
    assert len(rig.jobs()) == 1


def test_no_reserve_where_there_is_no_room(tmp_path, monkeypatch):
    """It is tried again later, and leaves no half of itself."""

    def full(*_arguments):
        raise OSError(28, "No space left on device")

    reserve = Reserve(tmp_path / "reserve")
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        reserve.keep()
        assert not reserve.kept and not reserve.release()
        assert os.listdir(tmp_path) == []
        patch.delattr(os, "posix_fallocate")
        reserve.keep()  # as on a system without it
        assert (tmp_path / "reserve").stat().st_size == RESERVE_BYTES
    assert reserve.release() and not reserve.release()


def test_a_large_body_of_a_refused_message_is_removed(rig, monkeypatch):
    """A refused message leaves no file."""
    breaking(monkeypatch, rig, StoreFull("full"))
    rig.accept_file(body=b"x" * 100_000)
    assert rig.smtp.take(m.Committed)[0].code == 452
    assert os.listdir(rig.directory / "bodies") == []


def test_without_room_mail_is_refused_early(rig, monkeypatch):
    """Below 5 % free: 452 at RCPT and BodyRefused; asked at most once a second."""
    asked = []
    monkeypatch.setattr(rig.bodies, "has_room", lambda: bool(asked.append(1)))
    rig.timers.advance(2000)
    for number in range(10):
        rig.say(m.RcptAccept(7, number, 1, (envelope(),)))
    assert {reply.code for reply in rig.smtp.take(m.RcptReply)} == {452}
    assert len(asked) == 1
    monkeypatch.undo()
    rig.timers.advance(2000)
    rig.say(m.RcptAccept(7, 99, 1, (envelope(),)))
    assert rig.smtp.take(m.RcptReply)[0].code == 250


@pytest.mark.parametrize("first", [17, 2**32 - 2])
def test_envelopes_get_the_ids_that_smtp_was_told(rig, monkeypatch, first):
    """RcptReply names the lower halves of their ids; with the message id they are those in the store."""
    monkeypatch.setattr(rig.shared.ids, "random32", lambda: first)
    rig.say(m.RcptAccept(7, 1, 1, (envelope("a@x.example"),)))
    rig.say(m.RcptAccept(7, 1, 2, (envelope("b@x.example"), envelope("c@x.example"))))
    replies = rig.smtp.take(m.RcptReply)
    assert [reply.envelopes for reply in replies] == [1, 2]
    told = [(reply.first + n) % 2**32 for reply in replies for n in range(reply.envelopes)]
    rig.say(m.Commit(7, 1, msgid := rig.ids.pop(0), False, BODY))
    (message,) = rig.stored()
    assert list(message.envelopes) == [msgid << 32 | low for low in told]


def test_a_damaged_body_is_quarantined_and_the_rest_delivered(rig):
    """The one entry is logged, kept and not tried again."""
    bad = rig.accept()
    rig.answer(rig.jobs(), Status.TEMPFAIL, "later")
    rig.timers.advance(60)
    rig.store._open.execute("UPDATE body SET data = ? WHERE msgid = ?", (b"rot", bad))
    good = rig.accept()
    rig.answer(rig.jobs(), Status.TEMPFAIL, "later")
    rig.timers.advance(500_000)
    assert [job.msgid for job in rig.jobs()] == [good]
    assert rig.log.has(f"quarantine msgid={bad:08x} reason=body checksum")
    assert len(rig.stored()) == 2
    assert rig.shared.counters.envelopes == 1
    rig.timers.advance(5_000_000)
    assert rig.shared.counters.damaged == 1


@pytest.mark.parametrize("fault", ["changed", "gone", "longer"])
def test_a_damaged_body_file_is_quarantined(rig, fault):
    """A file that changed while it waited is not sent."""
    msgid = rig.accept_file(body=b"x" * 100_000)
    rig.answer(rig.jobs(), Status.TEMPFAIL, "later")
    rig.timers.advance(60)
    path = rig.directory / "bodies" / f"{msgid:08x}"
    match fault:
        case "changed":
            path.write_bytes(b"x" * 99_999 + b"y")
        case "gone":
            path.unlink()
        case "longer":
            path.write_bytes(b"x" * 100_001)
    rig.timers.advance(500_000)
    assert not rig.jobs()
    assert rig.log.has("quarantine")


def test_a_quarantined_message_can_be_removed(rig):
    """The operator removes it by its message id."""
    bad = rig.accept()
    rig.answer(rig.jobs(), Status.TEMPFAIL, "later")
    rig.timers.advance(60)
    rig.store.mark_damaged(bad, "test")
    rig.say(m.Remove(3, msgid=bad))
    assert rig.control.take(m.Done)[0].ok
    assert not rig.stored()


def test_a_rotten_database_is_set_aside(tmp_path):
    """New mail is taken; the damaged file stays for a rescue, its bodies are in quarantine."""
    (tmp_path / "queue.db").write_bytes(b"rot" * 5000)
    (tmp_path / "bodies").mkdir()
    (tmp_path / "bodies" / "00000001").write_bytes(b"mail")
    lines: list[str] = []

    class Log:
        def error(self, text: str) -> None:
            lines.append(text)

        warning = info = debug = error

    store, bodies = open_spool(tmp_path, Log())
    assert [one.msgid for one in store.scan(0, 10)] == [1]
    assert store.count_envelopes() == 0
    (aside,) = [name for name in os.listdir(tmp_path) if name.startswith("queue.db.damaged-")]
    assert (tmp_path / aside).read_bytes() == b"rot" * 5000
    assert (tmp_path / "bodies" / "00000001").read_bytes() == b"mail"
    assert "quarantine msgid=00000001" in "".join(lines)
    store.close()
    bodies.close()


# Peers that break the contract.


def test_a_message_id_must_be_leased_and_unused(rig):
    """smtp cannot name another message's id."""
    msgid = rig.accept()
    for bad in (msgid, 12345):
        rig.say(m.RcptAccept(7, 900 + bad, 1, (envelope(),)))
        with pytest.raises(Failed, match="message id"):
            rig.say(m.Commit(7, 900 + bad, bad, False, BODY))


def test_smtp_cannot_speak_for_another_smtp(rig):
    """The session's top byte is its process."""
    with pytest.raises(Failed, match="session of smtp 1"):
        rig.say(m.Commit(1 << 56 | 7, 1, rig.ids[0], False, BODY))
    with pytest.raises(Failed, match="no smtp process"):
        rig.say(m.RcptAccept(1 << 56 | 7, 1, 1, (envelope(),)))


def test_a_commit_without_envelopes_is_refused(rig):
    """A body that lookup let nobody receive is not stored."""
    rig.say(m.Commit(7, 1, rig.ids.pop(0), False, BODY))
    assert rig.smtp.take(m.Committed)[0].code == 554
    assert not rig.stored()


def test_commit_file_needs_its_body_open(rig):
    """A file is committed under the id it was opened for."""
    rig.say(m.RcptAccept(7, 1, 1, (envelope(),)))
    with pytest.raises(Failed, match="BodyOpen"):
        rig.say(m.CommitFile(7, 1, rig.ids.pop(0), False, 5, 0))


def test_abort_forgets_transaction_and_file(rig):
    """Nothing of it is delivered or left."""
    rig.say(m.RcptAccept(7, 1, 1, (envelope(),)))
    rig.say(m.BodyOpen(7, 1, rig.ids.pop(0)))
    rig.say(m.Abort(7, 1))
    assert rig.queue.intake.idle
    assert os.listdir(rig.directory / "bodies") == []


def test_ids_are_leased_before_they_run_out(rig):
    """A further block comes when half of the last is used, by commits and by aborts alike."""
    assert len(rig.ids) == 1000
    for number in range(300):
        rig.accept()
        rig.say(m.Abort(7, 10_000 + number))
    (lease,) = rig.smtp.take(m.IdLease)
    assert len(lease.ids) == 1000
    assert not set(lease.ids) & set(rig.ids)
    assert all(0 < one < 2**31 for one in lease.ids)


def test_a_transaction_is_bounded(rig):
    """Expansion cannot make one transaction eat the memory."""
    for number in range(11):
        rig.say(m.RcptAccept(7, 1, number, tuple(envelope(f"u{n}@example.org") for n in range(1000))))
    codes = [reply.code for reply in rig.smtp.take(m.RcptReply)]
    assert codes == [250] * 10 + [452]


def test_commit_after_body_open_ends_the_process(rig):
    """A message is small or large, not both."""
    rig.say(m.RcptAccept(7, 1, 1, (envelope(),)))
    rig.say(m.BodyOpen(7, 1, rig.ids.pop(0)))
    with pytest.raises(Failed, match="Commit after BodyOpen"):
        rig.say(m.Commit(7, 1, rig.ids.pop(0), False, BODY))


def test_an_outcome_of_a_quarantined_message_means_nothing(rig):
    """It was in flight when its record turned out to be damaged; it is counted out once."""
    msgid = rig.accept()
    jobs = rig.jobs()
    rig.queue.window.quarantine(msgid, "test")
    rig.answer(jobs, Status.OK)
    rig.timers.advance(60)
    assert rig.shared.counters.envelopes == 0
    assert len(rig.stored()) == 1


# What 250 stands on.


def test_body_file_and_its_name_are_synced_before_the_commit(rig, monkeypatch):
    """fsync of the file, fsync of its directory, the transaction, and only then the reply."""
    steps = []
    fsync, write, send = os.fsync, rig.store.write, rig.smtp.send

    def recorded_fsync(fd):
        steps.append("directory" if os.path.isdir(f"/proc/self/fd/{fd}") else "file")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", recorded_fsync)
    monkeypatch.setattr(rig.store, "write", lambda group: (steps.append("commit"), write(group)))
    monkeypatch.setattr(
        rig.smtp, "send", lambda message, *fds: (steps.append(type(message).__name__), send(message, *fds))
    )
    rig.accept_file(body=b"x" * 100_000)
    assert steps == ["RcptReply", "BodyFile", "file", "directory", "commit", "Committed"]


def test_a_body_file_that_fails_leaves_the_others_alone(rig, monkeypatch):
    """Files of one turn are synced together; the reply of each is about its own."""
    fsync = os.fsync

    def failing_fsync(fd):
        if os.fstat(fd).st_size == 70_001:
            raise OSError(5, "Input/output error")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", failing_fsync)
    with monkeypatch.context() as patch:
        patch.setattr(rig.timers, "turn", lambda: None)
        ids = [rig.accept_file(body=b"x" * size) for size in (70_000, 70_001, 70_002)]
    rig.timers.turn()
    assert [reply.code for reply in rig.smtp.take(m.Committed)] == [451, 250, 250]
    assert sorted(job.msgid for job in rig.jobs()) == sorted((ids[0], ids[2]))
    assert sorted(os.listdir(rig.directory / "bodies")) == sorted(f"{msgid:08x}" for msgid in (ids[0], ids[2]))


def test_the_database_syncs_every_commit(rig):
    """WAL with synchronous=FULL: a commit is on the disk when it returns."""
    pragmas = [rig.store._open.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]
    assert pragmas == ["wal", 2]


def test_a_bounce_file_that_cannot_be_written_is_tried_later(rig, monkeypatch):
    """The failed envelope waits for room."""
    rig.accept_file(envelope(dsn=Dsn(ret="FULL")), body=b"Subject: y\r\n\r\n" + b"line\r\n" * 20_000)
    rig.answer(rig.jobs(), Status.PERMFAIL, "550 no")
    rig.timers.advance(1001)

    def full(msgid, data):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(rig.bodies, "write", full)
        assert rig.route_bounces() == 1
        rig.timers.advance(100)
        assert not rig.jobs()
    rig.timers.advance(12_000)
    assert rig.route_bounces() == 1
    assert len(rig.jobs()) == 1
    assert len(rig.stored()) == 1
