"""The way of a message through the queue: accepted, delivered, retried, expired."""

import os

import pytest
from queue_rig import BODY, Failed, envelope

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Result, Status


def test_a_committed_message_is_answered_and_delivered_in_the_same_turn(rig):
    """250 follows the sync, and the job with its body goes out in that very turn."""
    msgid = rig.accept()
    (committed,) = rig.smtp.take(m.Committed)
    assert (committed.code, committed.text) == (250, f"2.0.0 {msgid:08x} Message accepted for delivery")
    (job,) = rig.jobs()
    assert (job.msgid, job.body, job.size_bytes, job.action) == (msgid, BODY, len(BODY), "out")
    assert job.recipients[0].evpid >> 32 == msgid


def test_all_of_a_turn_is_one_sync(rig):
    """Messages that arrive in one turn are one transaction."""
    before = rig.shared.counters.syncs
    for number in range(50):
        rig.queue.intake.rcpt_accept(0, m.RcptAccept(7, 1000 + number, 1, (envelope(),)))
        rig.queue.intake.commit(0, m.Commit(7, 1000 + number, rig.ids.pop(0), False, BODY))
    rig.timers.turn()
    assert len(rig.smtp.take(m.Committed)) == 50
    assert rig.shared.counters.syncs == before + 1


def test_a_message_one_by_one_costs_one_sync(rig):
    """An outcome joins the commit of the next message when that comes within 50 ms."""
    before = rig.shared.counters.syncs
    for _ in range(20):
        rig.accept()
        rig.answer(rig.jobs(), Status.OK)
        rig.timers.advance(10)
    rig.timers.advance(100)
    assert rig.shared.counters.syncs <= before + 21
    assert not rig.stored()


def test_a_delivered_message_leaves_the_store_within_the_join_time(rig):
    """An outcome alone waits 50 ms at most; then row and body are gone."""
    rig.accept()
    rig.answer(rig.jobs(), Status.OK)
    assert len(rig.stored()) == 1
    rig.timers.advance(51)
    assert not rig.stored()
    assert not rig.queue.window.held
    assert rig.shared.counters.envelopes == 0


def test_recipients_of_one_route_share_a_job_and_others_do_not(rig):
    """Grouped by action and destination domain; at most 100 recipients a job."""
    many = [envelope(f"u{n}@example.org") for n in range(150)]
    rig.accept(*many, envelope("x@example.net"), envelope("y@EXAMPLE.net"))
    sizes = sorted(len(job.recipients) for job in rig.jobs())
    assert sizes == [2, 50, 100]


def test_what_an_expansion_found_reaches_delivery(rig):
    """Target, its source and `forwarded` go with the recipient, also after a restart."""
    rig.accept(
        envelope("a@example.org", "in", user="ann", target="|cat >> log", target_source="forward"),
        envelope("b@example.org", forwarded=True),
    )
    found = {(r.target, r.target_source, r.forwarded) for job in rig.jobs() for r in job.recipients}
    assert found == {("|cat >> log", "forward", False), ("", "", True)}
    rig.timers.advance(51)
    second = rig.again()
    assert {(r.target, r.target_source, r.forwarded) for job in second.jobs() for r in job.recipients} == found
    rig.store, rig.bodies = second.store, second.bodies
    rig.delivery.fds, rig.smtp.fds = [], []


def test_targets_are_grouped_by_user_whatever_the_action(rig):
    """A file or a command of an LMTP action is an agent's work: it has the route of its user."""
    rig.accept(
        envelope("a@example.org", "in", user="ann"),
        envelope("b@example.org", "in", user="bob"),
        envelope("c@example.org", "in", user="_sps_alias", target="/tmp/x", target_source="alias"),
    )
    assert sorted(len(job.recipients) for job in rig.jobs()) == [1, 2]


def test_jobs_are_batched_within_bounds(rig):
    """At most 64 jobs a Deliver, and a frame stays near 1 MiB."""
    for number in range(100):
        rig.queue.intake.rcpt_accept(0, m.RcptAccept(7, 1000 + number, 1, (envelope(),)))
        rig.queue.intake.commit(0, m.Commit(7, 1000 + number, rig.ids.pop(0), False, b"x" * 60_000))
    rig.timers.turn()
    delivers = rig.delivery.take(m.Deliver)
    assert sum(len(one.jobs) for one in delivers) == 100
    assert all(sum(len(job.body) for job in one.jobs) <= 1_000_000 for one in delivers)


def test_a_temporary_failure_follows_the_relay_curve(rig):
    """Tries at 0, 400, 1600, 3600 s after creation for a relay."""
    rig.accept()
    at_secs = []
    start = rig.timers.now_ms
    for _ in range(4):
        jobs = rig.jobs()
        assert len(jobs) == 1
        at_secs.append(round((rig.timers.now_ms - start) / 1000))
        rig.answer(jobs, Status.TEMPFAIL, "451 4.7.1 later")
        while not rig.delivery.sent and rig.timers.now_ms < start + 5000_000:
            rig.timers.advance(500)
    assert at_secs == [0, 400, 1600, 3600]


def test_mail_is_due_when_delivery_says_that_its_domain_takes_some(rig):
    """What is in flight, paused or unknown stays as it is."""
    rig.accept()
    jobs = rig.jobs()
    evpid = jobs[0].recipients[0].evpid
    rig.say(m.TryNow((evpid, 1 << 40)))
    assert not rig.jobs()
    rig.answer(jobs, Status.TEMPFAIL, "Connection refused")
    rig.timers.advance(1000)
    assert not rig.jobs()
    rig.say(m.TryNow((evpid, 1 << 40)))
    rig.timers.advance(200)
    assert [each.evpid for job in rig.jobs() for each in job.recipients] == [evpid]


def test_local_mail_is_tried_again_after_ten_seconds(rig):
    """The base of the curve is 10 s for local delivery."""
    rig.accept(envelope("bob", "home", user="bob"))
    rig.answer(rig.jobs(), Status.TEMPFAIL, "busy")
    rig.timers.advance(9_900)
    assert not rig.jobs()
    rig.timers.advance(200)
    assert len(rig.jobs()) == 1


def test_what_waits_long_is_not_kept_in_memory(rig):
    """A message due beyond the horizon is only in the store, with its history."""
    rig.accept()
    rig.answer(rig.jobs(), Status.TEMPFAIL, "451 4.7.1 later")
    rig.timers.advance(60)
    assert not rig.queue.window.held
    (message,) = rig.stored()
    (stored,) = message.envelopes.values()
    assert (stored.tries, stored.text) == (1, "451 4.7.1 later")
    rig.timers.advance(400_000)
    assert len(rig.jobs()) == 1


def test_partly_delivered_messages_keep_only_the_rest(rig):
    """A finished recipient never comes back, not even after a restart."""
    rig.accept(envelope("a@example.org"), envelope("b@example.org"))
    (job,) = rig.jobs()
    done, open_ = job.recipients
    rig.say(m.Outcome((Result(done.evpid, Status.OK, "ok"), Result(open_.evpid, Status.TEMPFAIL, "later"))))
    rig.timers.advance(60)
    (message,) = rig.stored()
    assert list(message.envelopes) == [open_.evpid]


def test_the_bound_of_the_window_holds_and_nothing_is_forgotten(rigs, tmp_path):
    """More mail than memory takes waits in the store, and all of it is delivered."""
    from msgspec.structs import replace
    from queue_rig import SETTINGS

    rig = rigs(tmp_path, replace(SETTINGS, max_inflight=100))
    for number in range(2500):
        if not rig.ids:
            rig.ids = [one for lease in rig.smtp.take(m.IdLease) for one in lease.ids]
        rig.queue.intake.rcpt_accept(0, m.RcptAccept(7, 1 + number, 1, (envelope(f"u@d{number % 7}.example"),)))
        rig.queue.intake.commit(0, m.Commit(7, 1 + number, rig.ids.pop(0), False, BODY))
        if number % 500 == 499:
            rig.timers.turn()
    assert len(rig.queue.window.held) <= 1500
    seen = set()
    for _ in range(200):
        jobs = rig.jobs()
        assert sum(len(job.recipients) for job in jobs) <= 100
        seen.update(job.msgid for job in jobs)
        if jobs:
            rig.answer(jobs, Status.OK)
        rig.timers.advance(60)
    assert len(seen) == 2500
    assert not rig.stored()
    assert rig.shared.counters.envelopes == 0
    rig.close()


def test_an_expired_envelope_is_given_up_with_a_bounce(rig):
    """After the action's ttl it bounces as expired, with the last error."""
    rig.accept(envelope(action="short"))
    rig.answer(rig.jobs(), Status.TEMPFAIL, "451 4.7.1 come back")
    rig.timers.advance(400_000)
    rig.answer(rig.jobs(), Status.TEMPFAIL, "451 4.7.1 come back")
    rig.timers.advance(201_500)  # 600 s in all, and the second of collection
    assert rig.route_bounces() == 1
    (bounce,) = rig.jobs()
    assert b"4.4.7 Envelope expired: 451 4.7.1 come back" in bounce.body
    assert rig.shared.counters.expired == 1


def test_an_outcome_for_an_envelope_that_delivery_does_not_have_ends_the_process(rig):
    """An envelope of a job is answered exactly once."""
    rig.accept()
    jobs = rig.jobs()
    rig.answer(jobs, Status.OK)
    with pytest.raises(Failed, match="Outcome"):
        rig.answer(jobs, Status.OK)


def test_large_bodies_travel_in_files(rig):
    """BodyFile to smtp, DeliverFile to delivery with a read-only descriptor at offset 0; the file goes with
    the last envelope."""
    body = b"x" * 200_000
    msgid = rig.accept_file(body=body)
    assert rig.smtp.take(m.Committed)[0].code == 250
    (job,) = rig.jobs()
    assert (job.body, job.size_bytes) == (b"", 200_000)
    fd = rig.delivery.fds.pop()
    assert os.read(fd, 300_000) == body
    with pytest.raises(OSError):
        os.write(fd, b"y")
    os.close(fd)
    assert os.listdir(rig.directory / "bodies") == [f"{msgid:08x}"]
    rig.answer([job], Status.OK)
    rig.timers.advance(60)
    assert os.listdir(rig.directory / "bodies") == []


def test_a_body_file_of_another_size_is_refused(rig):
    """What smtp announces and what the file holds must agree."""
    msgid, number = rig.ids.pop(0), 1
    rig.say(m.RcptAccept(7, number, 1, (envelope(),)))
    rig.say(m.BodyOpen(7, number, msgid))
    os.write(rig.smtp.fds[0], b"short")
    rig.say(m.CommitFile(7, number, msgid, False, 100, 0))
    assert rig.smtp.take(m.Committed)[0].code == 451
    assert not rig.jobs()
    assert os.listdir(rig.directory / "bodies") == []


def test_after_a_restart_everything_is_there_again(rig, rigs):
    """What was answered 250 and not finished is delivered by the next process; a body file without a
    message is swept."""
    one = rig.accept()
    two = rig.accept_file(body=b"y" * 100_000)
    orphan = rig.ids.pop(0)
    rig.say(m.RcptAccept(7, 99, 1, (envelope(),)))
    rig.say(m.BodyOpen(7, 99, orphan))
    second = rig.again()
    assert sorted(job.msgid for job in second.jobs()) == sorted((one, two))
    assert os.listdir(rig.directory / "bodies") == [f"{two:08x}"]
    assert second.shared.counters.envelopes == 2
    rig.store, rig.bodies = second.store, second.bodies
    rig.delivery.fds, rig.smtp.fds = second.delivery.fds, []


def test_pausing_a_part_holds_its_mail_only(rig):
    """pause mta: relayed mail waits, local mail goes; resume sends it."""
    rig.say(m.Pause(1, "mta", True))
    rig.accept(envelope(action="out"))
    rig.accept(envelope("bob", "home", user="bob"))
    assert [job.action for job in rig.jobs()] == ["home"]
    rig.say(m.Pause(1, "mta", False))
    assert [job.action for job in rig.jobs()] == ["out"]


def test_an_action_that_is_configured_no_more_defers(rig):
    """A changed configuration costs no mail: tried later, until it expires."""
    rig.accept(envelope(action="gone"))
    assert not rig.jobs()
    rig.timers.advance(60)
    (message,) = rig.stored()
    assert next(iter(message.envelopes.values())).tries == 1


def test_drain_sends_nothing_more_and_waits_for_what_is_under_way(rig):
    """Drained follows the last outcome, and what it changed is stored by then."""
    rig.accept()
    jobs = rig.jobs()
    drained = []
    rig.queue.drain(lambda: drained.append(1))
    rig.timers.turn()
    rig.accept()
    assert not drained
    assert not rig.jobs()
    rig.answer(jobs, Status.OK)
    rig.timers.advance(60)
    assert drained == [1]
    assert len(rig.stored()) == 1


def test_drain_gives_up_waiting(rig):
    """A delivery that never answers does not keep the daemon from stopping."""
    rig.accept()
    drained = []
    rig.queue.drain(lambda: drained.append(1))
    rig.timers.advance(6000)
    assert drained == [1]
    assert len(rig.stored()) == 1


def test_delivery_that_does_not_read_gets_no_more(rig):
    """Dispatch waits while the channel's backlog is large, and goes on by itself."""
    rig.delivery.pending_bytes = 5 * 1024 * 1024
    rig.accept()
    assert not rig.jobs()
    rig.delivery.pending_bytes = 0
    rig.timers.advance(20)
    assert len(rig.jobs()) == 1
