"""The operator's requests."""

import pytest
from queue_rig import BODY, envelope

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Client, Envelope, Status


def waiting(rig, *envelopes):
    """A message that failed once and left memory."""
    msgid = rig.accept(*envelopes)
    rig.answer(rig.jobs(), Status.TEMPFAIL, "451 4.7.1 later")
    rig.timers.advance(60)
    assert not rig.queue.window.held
    return msgid


def done(rig):
    rig.timers.advance(200)
    (answer,) = rig.control.take(m.Done)
    return answer


def test_show_queue_gives_a_row_an_envelope(rig):
    """In memory and in the store alike, with true times (QUIRKS 46)."""
    one = waiting(rig, envelope(), envelope("x@example.net"))
    start_secs = rig.timers.now_ms // 1000
    two = rig.accept(Envelope("home", "", "bob@h", "bob@h", "bob", Client(address="2001:db8::1", user="ann")))
    rig.say(m.ShowQueue(9))
    answer = done(rig)
    rows = rig.control.take(m.QueueRow)
    assert (answer.client, answer.count, len(rows)) == (9, 3, 3)
    by_message = {row.evpid >> 32: row for row in rows}
    old, new = by_message[one], by_message[two]
    assert (old.kind, old.state, old.tries, old.error) == ("mta", "pending", 1, "451 4.7.1 later")
    assert 390 <= old.wait_secs <= 400
    assert old.expires_secs - old.created_secs == 4 * 86400
    assert old.last_try_secs == start_secs
    assert (new.kind, new.state, new.family, new.flags, new.wait_secs) == ("mda", "inflight", "inet6", "auth", 0)


def test_show_queue_says_how_long_a_try_has_lasted(rig):
    """Seconds since it began, where delivery has the envelope (QUIRKS 46)."""
    rig.accept(envelope())
    rig.timers.advance(7_000)
    rig.say(m.ShowQueue(1))
    done(rig)
    (row,) = rig.control.take(m.QueueRow)
    assert (row.state, row.wait_secs) == ("inflight", 7)


def test_show_queue_of_one_message(rig):
    """msgid limits the list."""
    one = waiting(rig)
    waiting(rig)
    rig.say(m.ShowQueue(1, one))
    assert done(rig).count == 1
    assert [row.evpid >> 32 for row in rig.control.take(m.QueueRow)] == [one]


def test_a_long_list_waits_for_its_reader(rig):
    """Nothing more is sent while control does not take it, and nothing is left out."""
    for _ in range(450):
        if not rig.ids:
            break
        waiting(rig)
    rig.say(m.ShowQueue(1))
    first = len(rig.control.take(m.QueueRow))
    assert 0 < first < 450
    rig.control.pending_bytes = 1_000_000
    rig.timers.advance(500)
    assert not rig.control.take(m.QueueRow)
    rig.control.pending_bytes = 0
    rig.timers.advance(500)
    assert first + len(rig.control.take(m.QueueRow)) == 450
    assert rig.control.take(m.Done)[0].count == 450


def test_show_envelope_is_lines_of_key_and_value(rig):
    """OpenSMTPD's keys, and an error for an unknown id."""
    msgid = waiting(rig)
    (message,) = rig.stored()
    (evpid,) = message.envelopes
    rig.say(m.ShowEnvelope(1, evpid))
    assert done(rig).ok
    text = rig.control.take(m.TextPart)[0].text
    lines = dict(line.split(": ", 1) for line in text.splitlines())
    assert lines["sender"] == "ann@example.com"
    assert lines["dest"] == "bob@example.org"
    assert lines["retry"] == "1"
    assert lines["errorline"] == "451 4.7.1 later"
    assert lines["msgid"] == f"{msgid:08x}"
    rig.say(m.ShowEnvelope(1, evpid ^ 1))
    assert not done(rig).ok


@pytest.mark.parametrize("body", [BODY, b"z" * 300_000])
def test_show_message_gives_the_body(rig, body):
    """Small and large bodies, in parts, whole."""
    msgid = rig.accept(body=body) if len(body) <= 65536 else rig.accept_file(body=body)
    rig.say(m.ShowMessage(1, msgid))
    assert done(rig).ok
    assert b"".join(part.data for part in rig.control.take(m.BytesPart)) == body
    rig.say(m.ShowMessage(1, 77))
    assert not done(rig).ok


@pytest.mark.parametrize("how", ["evpid", "msgid", "all"])
def test_schedule_makes_it_due_now(rig, how):
    """From the store: an envelope, a message, everything."""
    msgid = waiting(rig)
    (evpid,) = rig.stored()[0].envelopes
    request = {"evpid": m.Schedule(1, evpid=evpid), "msgid": m.Schedule(1, msgid=msgid), "all": m.Schedule(1)}
    rig.say(request[how])
    assert done(rig).count == 1
    assert [job.msgid for job in rig.jobs()] == [msgid]


def test_schedule_moves_what_waits_in_memory(rig):
    """Local mail due in ten seconds is in memory; schedule sends it at once."""
    rig.accept(envelope("bob", "home", user="bob"))
    rig.answer(rig.jobs(), Status.TEMPFAIL, "busy")
    rig.timers.advance(60)
    assert rig.queue.window.held
    rig.say(m.Schedule(1))
    rig.timers.advance(200)
    assert len(rig.jobs()) == 1


def test_schedule_leaves_what_is_in_flight(rig):
    """It is being tried already; it is not tried twice."""
    rig.accept()
    jobs = rig.jobs()
    rig.say(m.Schedule(1))
    rig.timers.advance(200)
    assert not rig.jobs()
    rig.answer(jobs, Status.OK)
    rig.timers.advance(60)
    assert not rig.stored()


def test_schedule_one_of_several_recipients(rig):
    """The others keep their time."""
    waiting(rig, envelope("a@example.org"), envelope("b@example.org"))
    evpid = next(iter(rig.stored()[0].envelopes))
    rig.say(m.Schedule(1, evpid=evpid))
    assert done(rig).count == 1
    (job,) = rig.jobs()
    assert [one.evpid for one in job.recipients] == [evpid]


@pytest.mark.parametrize("how", ["evpid", "msgid", "all"])
def test_remove_is_answered_when_it_is_durable(rig, how):
    """From the store: an envelope, a message, everything; then nothing is left of it."""
    msgid = waiting(rig)
    (evpid,) = rig.stored()[0].envelopes
    request = {
        "evpid": m.Remove(1, evpid=evpid),
        "msgid": m.Remove(1, msgid=msgid),
        "all": m.Remove(1, everything=True),
    }
    rig.say(request[how])
    assert done(rig).count == 1
    assert not rig.stored()
    assert rig.shared.counters.envelopes == 0
    assert rig.shared.counters.removed == 1


def test_remove_what_waits_in_memory(rig):
    """A ticket of a removed envelope is never sent."""
    rig.accept(envelope("bob", "home", user="bob"), envelope("bob2", "home", user="bob"))
    rig.answer(rig.jobs(), Status.TEMPFAIL, "busy")
    rig.timers.advance(60)
    gone = next(iter(rig.stored()[0].envelopes))
    rig.say(m.Remove(1, evpid=gone))
    assert done(rig).count == 1
    rig.timers.advance(11_000)
    (job,) = rig.jobs()
    assert gone not in [one.evpid for one in job.recipients]
    assert len(job.recipients) == 1


def test_remove_what_is_in_flight(rig):
    """Its outcome is taken and means nothing; it does not come back."""
    rig.accept()
    jobs = rig.jobs()
    rig.say(m.Remove(1, msgid=jobs[0].msgid))
    assert done(rig).count == 1
    rig.answer(jobs, Status.TEMPFAIL, "later")
    rig.timers.advance(500_000)
    assert not rig.jobs()
    assert not rig.stored()
    assert rig.shared.scheduler.inflight_envelopes == 0


def test_unknown_ids_are_zero_envelopes(rig):
    """`0 envelope removed`, and no error (QUIRKS 50)."""
    for request in (m.Remove(1, evpid=99 << 32), m.Remove(1, msgid=99), m.Schedule(1, msgid=99)):
        rig.say(request)
        answer = done(rig)
        assert (answer.ok, answer.count) == (True, 0)


def test_stats_have_every_key_from_the_start(rig):
    """OpenSMTPD's names; the current numbers go down again."""
    rig.say(m.ShowStats(1))
    (counters,) = rig.control.take(m.Counters)
    values = dict(counters.values)
    assert {"scheduler.envelope", "scheduler.envelope.inflight", "scheduler.delivery.ok", "queue.bounce"} <= set(values)
    assert list(values) == sorted(values)
    rig.accept()
    rig.answer(rig.jobs(), Status.OK)
    rig.timers.advance(60)
    rig.control.sent.clear()
    rig.say(m.ShowStats(1))
    values = dict(rig.control.take(m.Counters)[0].values)
    assert values["scheduler.envelope"] == values["scheduler.envelope.inflight"] == 0
    assert values["scheduler.envelope.incoming"] == values["scheduler.delivery.ok"] == 1


def test_status_says_what_is_paused(rig):
    """A line a part."""
    rig.say(m.Pause(1, "mda", True))
    rig.say(m.ShowStatus(1))
    assert rig.control.take(m.TextPart)[0].text == "MDA paused\nMTA running\n"
