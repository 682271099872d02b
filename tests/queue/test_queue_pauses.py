"""Envelopes that the operator keeps from being tried, and looking at the store on order."""

import pytest
from queue_rig import envelope
from test_queue_desk import done, waiting

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Status
from smtpd_ps.queue.store.embedded import EmbeddedStore
from smtpd_ps.queue.store.ram import RamStore

DAY_MS = 86_400_000


def flags(rig):
    """By recipient: flags and state of `show queue`."""
    rig.say(m.ShowQueue(1))
    done(rig)
    return {row.rcpt: row.flags for row in rig.control.take(m.QueueRow)}


def evpid_of(rig, msgid, rcpt):
    (message,) = rig.store.load([msgid])
    return next(evpid for evpid, stored in message.envelopes.items() if stored.envelope.rcpt == rcpt)


def test_a_paused_envelope_is_not_tried_before_it_is_resumed(rig):
    """The other one of the message is; `show queue` says suspend."""
    msgid = waiting(rig, envelope("a@example.org"), envelope("b@example.net"))
    rig.say(m.PauseEnvelope(1, True, evpid_of(rig, msgid, "a@example.org")))
    assert done(rig).count == 1
    assert flags(rig) == {"a@example.org": "suspend", "b@example.net": ""}
    rig.timers.advance(3_600_000)
    assert [one.rcpt for job in rig.jobs() for one in job.recipients] == ["b@example.net"]
    rig.say(m.PauseEnvelope(1, False, 0, msgid))
    assert done(rig).count == 1
    rig.timers.advance(1000)
    assert [one.rcpt for job in rig.jobs() for one in job.recipients] == ["a@example.org"]


def test_a_pause_is_kept_over_a_restart(rigs, tmp_path):
    """OpenSMTPD forgets it (QUIRKS 50)."""
    first = rigs(tmp_path)
    msgid = waiting(first)
    first.say(m.PauseEnvelope(1, True, 0, msgid))
    done(first)
    second = first.again()
    second.timers.advance(2 * DAY_MS)
    assert second.jobs() == [] and list(flags(second).values()) == ["suspend"]
    second.say(m.PauseEnvelope(1, False))
    assert done(second).count == 1
    second.timers.advance(1000)
    assert [job.msgid for job in second.jobs()] == [msgid]
    second.close()


def test_schedule_does_not_override_a_pause(rig):
    """It says so; nor does scheduling all."""
    msgid = waiting(rig)
    rig.say(m.PauseEnvelope(1, True, 0, msgid))
    done(rig)
    rig.say(m.Schedule(1, 0, msgid))
    answer = done(rig)
    assert (answer.count, answer.ok) == (0, True) and answer.text.startswith("1 paused: resume envelope")
    rig.say(m.Schedule(1))
    assert done(rig).count == 0
    rig.timers.advance(60_000)
    assert rig.jobs() == []


def test_one_under_way_is_paused_when_it_comes_back(rig):
    """What delivery has, it ends; a failure for now is not tried again."""
    msgid = rig.accept()
    jobs = rig.jobs()
    rig.say(m.PauseEnvelope(1, True, 0, msgid))
    assert done(rig).count == 1
    rig.answer(jobs, Status.TEMPFAIL, "451 4.7.1 later")
    rig.timers.advance(DAY_MS)
    assert rig.jobs() == [] and list(flags(rig).values()) == ["suspend"]


def test_all_are_paused_and_resumed(rig):
    """In memory and in the store alike; twice changes nothing."""
    for _ in range(5):
        waiting(rig)
    rig.shared.scheduler.pause("mta")
    rig.accept()
    rig.say(m.PauseEnvelope(1, True))
    assert done(rig).count == 6
    rig.say(m.PauseEnvelope(1, True))
    assert done(rig).count == 0
    rig.shared.scheduler.resume("mta")
    rig.timers.advance(DAY_MS)
    assert rig.jobs() == []
    rig.say(m.PauseEnvelope(1, False))
    assert done(rig).count == 6
    rig.timers.advance(1000)
    assert len(rig.jobs()) == 6


def test_an_unknown_envelope(rig):
    """Nothing is paused, and nothing is wrong (QUIRKS 50)."""
    rig.say(m.PauseEnvelope(1, True, 0x7777 << 32 | 5))
    answer = done(rig)
    assert (answer.count, answer.ok) == (0, True)


def test_hold_is_shown_where_a_route_has_no_room(rig):
    """An envelope that is due and waits for its route only."""
    rig.shared.scheduler._limits = type(rig.shared.scheduler._limits)(5000, 1, 1 << 25)
    rig.accept(envelope("a@example.org"))
    rig.accept(envelope("b@example.org"))
    assert flags(rig) == {"a@example.org": "", "b@example.org": "hold"}


def test_discover_counts_what_waits_in_the_store(rig):
    """Nothing for an id that is not there, or that is in memory already."""
    msgid = waiting(rig, envelope("a@example.org"), envelope("b@example.org"))
    for request, count in (
        (m.Discover(1, 0, msgid), 2),
        (m.Discover(1, evpid_of(rig, msgid, "a@example.org")), 1),
        (m.Discover(1, 0, 0x7777), 0),
    ):
        rig.say(request)
        assert done(rig).count == count


@pytest.mark.parametrize("kind", ["embedded", "ram"])
def test_the_store_hurries_no_paused_message(tmp_path, rigs, kind):
    """Both stores."""
    rig = rigs(tmp_path, store=EmbeddedStore(tmp_path / "q.db") if kind == "embedded" else RamStore())
    msgid = waiting(rig)
    rig.say(m.PauseEnvelope(1, True, 0, msgid))
    done(rig)
    assert rig.store.hurry(0, 100, rig.timers.now_ms) == (0, 0)
    rig.close()
