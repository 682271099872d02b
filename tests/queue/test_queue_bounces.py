"""Bounces: who gets one, when, and that none is lost."""

import email
import os

import pytest
from queue_rig import Failed, envelope

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Dsn, Notify, Result, Status


def failed_once(rig, *envelopes, text="550 5.1.1 no such user"):
    msgid = rig.accept(*envelopes)
    rig.answer(rig.jobs(), Status.PERMFAIL, text, relay="192.0.2.9 (mx.example.org)")
    return msgid


def test_a_permanent_failure_is_bounced_and_removed(rig):
    """The bounce goes to the sender from <>, and the failed envelope is gone once it is stored."""
    msgid = failed_once(rig)
    rig.timers.advance(1001)
    (query,) = rig.lookup.take(m.BounceQuery)
    assert query.recipient == "ann@example.com"
    rig.say(m.BounceRoute(query.query, (envelope("ann@example.com", "in", sender="", internal=True),)))
    (job,) = rig.jobs()
    assert (job.sender, job.recipients[0].dest) == ("", "ann@example.com")
    report = email.message_from_bytes(job.body)
    assert report.get_content_type() == "multipart/report"
    assert [one.msgid for one in rig.stored()] == [job.msgid] != [msgid]
    assert rig.shared.counters.bounces == 1


def test_the_failed_envelope_stays_until_its_bounce_is_stored(rig):
    """Killed between the failure and the bounce, the next life bounces."""
    failed_once(rig)
    rig.timers.advance(1001)
    assert rig.lookup.take(m.BounceQuery)
    second = rig.again()
    second.timers.advance(1001)
    assert not second.jobs()
    assert second.route_bounces() == 1
    assert [job.sender for job in second.jobs()] == [""]
    assert len(second.stored()) == 1
    rig.store, rig.bodies, rig.delivery, rig.smtp = second.store, second.bodies, second.delivery, second.smtp


def test_a_bounce_and_the_removal_are_one_transaction(rig, monkeypatch):
    """While the store fails, neither is; new mail stored meanwhile does not tear them apart."""
    from smtpd_ps.queue.store.protocol import StoreError

    msgid = failed_once(rig)
    rig.timers.advance(1001)
    write, groups = rig.store.write, []

    def failing(group):
        groups.append(group)
        raise StoreError("I/O")

    monkeypatch.setattr(rig.store, "write", failing)
    rig.route_bounces()
    rig.accept()
    assert rig.smtp.take(m.Committed)[-1].code == 451
    assert all(len(g.inserts) in (1, 2) and g.removals == [msgid] for g in groups)
    monkeypatch.setattr(rig.store, "write", write)
    assert [one.msgid for one in rig.stored()] == [msgid]
    rig.timers.advance(1100)
    (bounce,) = rig.stored()
    assert next(iter(bounce.envelopes.values())).envelope.sender == ""
    assert len(rig.jobs()) == 1


def test_recipients_that_fail_together_share_a_bounce(rig):
    """Within a second: one notice that names them all."""
    rig.accept(envelope("a@one.example"), envelope("b@two.example"))
    for job in rig.jobs():
        rig.answer([job], Status.PERMFAIL, "550 no")
        rig.timers.advance(300)
    rig.timers.advance(1001)
    assert rig.route_bounces() == 1
    (bounce,) = rig.jobs()
    assert b"a@one.example" in bounce.body and b"b@two.example" in bounce.body


@pytest.mark.parametrize(
    "made",
    [envelope(sender=""), envelope(dsn=Dsn(notify=Notify.NEVER))],
    ids=["null sender", "NOTIFY=NEVER"],
)
def test_some_failures_bounce_to_nobody(rig, made):
    """Never a bounce to <>, none where the sender wants none; the envelope is removed and logged."""
    failed_once(rig, made)
    rig.timers.advance(2000)
    assert not rig.lookup.take(m.BounceQuery)
    assert not rig.stored()
    assert rig.log.has("5.1.1 no such user")


def test_notify_success_alone_still_gets_failures(rig):
    """As OpenSMTPD does (QUIRKS 35)."""
    failed_once(rig, envelope(dsn=Dsn(notify=Notify.SUCCESS)))
    rig.timers.advance(1001)
    assert rig.route_bounces() == 1


def test_a_bounce_without_a_route_yet_is_tried_again(rig):
    """A temporary answer of lookup keeps the envelope; later it is asked again."""
    failed_once(rig)
    rig.timers.advance(1001)
    (query,) = rig.lookup.take(m.BounceQuery)
    rig.say(m.BounceRoute(query.query, (), True, "DNS"))
    rig.timers.advance(5000)
    assert not rig.lookup.take(m.BounceQuery)
    assert len(rig.stored()) == 1
    rig.timers.advance(6000)
    assert rig.route_bounces() == 1


def test_a_bounce_that_can_never_go_is_dropped(rig):
    """A permanent answer without envelopes: logged, removed."""
    failed_once(rig)
    rig.timers.advance(1001)
    (query,) = rig.lookup.take(m.BounceQuery)
    rig.say(m.BounceRoute(query.query, (), False, "no rule takes it"))
    rig.timers.advance(60)
    assert not rig.stored()
    assert rig.log.has("no rule takes it")


def test_an_answer_without_a_query_ends_the_process(rig):
    """Lookup answers what was asked, once."""
    with pytest.raises(Failed, match="BounceRoute"):
        rig.say(m.BounceRoute(4711, ()))


def test_a_delay_is_told_once_and_delivery_goes_on(rig):
    """When the next try falls behind the 4 h mark a "delayed" notice goes out, and only one."""
    rig.accept()
    notices = 0
    for _ in range(9):
        rig.answer(rig.jobs(), Status.TEMPFAIL, "451 4.7.1 later")
        rig.timers.advance(1500)
        if rig.route_bounces():
            notices += 1
            (notice,) = rig.jobs()
            assert b"Action: delayed" in notice.body
            assert b"Will-Retry-Until:" in notice.body
            rig.answer([notice], Status.OK)
        while not rig.delivery.sent:
            rig.timers.advance(10_000)
    assert notices == 1
    assert len(rig.jobs()) == 1


def test_no_delay_notice_where_notify_leaves_it_out(rig):
    """NOTIFY=FAILURE asks for failures only (RFC 3461 4.1)."""
    rig.accept(envelope(dsn=Dsn(notify=Notify.FAILURE)))
    for _ in range(8):
        rig.answer(rig.jobs(), Status.TEMPFAIL, "451 later")
        rig.timers.advance(1500)
        assert rig.route_bounces() == 0
        while not rig.delivery.sent:
            rig.timers.advance(10_000)


@pytest.mark.parametrize(
    ("action", "passed", "says"),
    [("out", False, b"Action: relayed"), ("home", False, b"Action: delivered"), ("out", True, None)],
)
def test_success_is_told_where_it_was_asked_for(rig, action, passed, says):
    """NOTIFY=SUCCESS: told by us, unless the next host offers DSN and tells it."""
    rig.accept(envelope(action=action, dsn=Dsn(notify=Notify.SUCCESS)))
    rig.answer(rig.jobs(), Status.OK, dsn_passed=passed)
    rig.timers.advance(1500)
    assert rig.route_bounces() == (0 if says is None else 1)
    if says is None:
        assert not rig.stored()
    else:
        (notice,) = rig.jobs()
        assert says in notice.body


def test_ret_full_returns_the_message_and_the_default_its_header(rig):
    """RFC 3461 4.3."""
    for ret, wanted in (("FULL", True), ("HDRS", False), ("", False)):
        failed_once(rig, envelope(dsn=Dsn(ret=ret)))
        rig.timers.advance(1001)
        rig.route_bounces()
        (job,) = rig.jobs()
        assert (b"hello" in job.body) is wanted
        assert b"Subject: x\r\n" in job.body


def test_a_large_original_is_returned_through_a_file(rig):
    """RET=FULL of a message that does not fit into a channel makes a bounce that does not either."""
    rig.accept_file(envelope(dsn=Dsn(ret="FULL")), body=b"Subject: y\r\n\r\n" + b"line\r\n" * 20_000)
    rig.answer(rig.jobs(), Status.PERMFAIL, "550 no")
    rig.timers.advance(1001)
    rig.route_bounces()
    (job,) = rig.jobs()
    content = os.read(rig.delivery.fds[-1], 1_000_000)
    assert job.size_bytes == len(content)
    assert content.count(b"line\r\n") == 20_000
    assert os.listdir(rig.directory / "bodies") == [f"{job.msgid:08x}"]


def test_a_bounce_to_a_thousand_failures_stays_deliverable(rig):
    """Hostile replies from many recipients: every bounce fits a job."""
    rig.accept(*[envelope(f"u{n}@example.org") for n in range(300)])
    for job in rig.jobs():
        results = tuple(Result(r.evpid, Status.PERMFAIL, "550 \U0001f4a9" + "\x1b" * 1990) for r in job.recipients)
        rig.say(m.Outcome(results))
    rig.timers.advance(1001)
    assert rig.route_bounces() == 3
    assert all(len(job.body) <= 65_536 for job in rig.jobs())
    assert len(rig.stored()) == 3
