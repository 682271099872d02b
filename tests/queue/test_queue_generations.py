"""A reload as queue sees it: new peers, other settings, old processes that leave."""

import msgspec
import pytest
from queue_rig import SETTINGS, Failed, Recorder, Rig, envelope

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ActionSchedule
from smtpd_ps.contract.values import Process, Result, Status, seat_of
from smtpd_ps.queue.generations import Generations

OUT_IS_HOST = msgspec.structs.replace(
    SETTINGS, actions=tuple(ActionSchedule("out", "host") if a.name == "out" else a for a in SETTINGS.actions)
)


class Reloads:
    """Generations on a rig. Its generation 0 is the rig's own."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.ends: dict[tuple[Process, int], tuple] = {}
        self._index = -1
        self._joining = 0
        self.generations = Generations(rig.queue, rig.shared, self._join, lambda: None)
        self.reload()

    def _join(self, peer, _fd, handlers, on_gone):
        recorder = Recorder()
        self.ends[peer, self._joining] = (recorder, handlers, on_gone)
        return recorder

    def join(self, process: Process, seat: int) -> None:
        self._joining = seat
        self.generations.new_peer(m.NewPeer(process, seat), -1)

    def reload(self, settings=SETTINGS) -> int:
        self._index += 1
        for process in (Process.SMTP, Process.LOOKUP, Process.DELIVERY):
            if (process, seat_of(self._index, 0)) not in self.ends:
                self.join(process, seat_of(self._index, 0))
        self.generations.reload(m.QueueReload(self._index, settings))
        self.rig.timers.turn()
        self.rig.delivery = self.ends[Process.DELIVERY, seat_of(self._index, 0)][0]
        self.rig.lookup = self.ends[Process.LOOKUP, seat_of(self._index, 0)][0]
        return self._index

    def say(self, process: Process, index: int, message: m.Message) -> None:
        self.say_from(process, seat_of(index, 0), message)

    def say_from(self, process: Process, seat: int, message: m.Message) -> None:
        self.ends[process, seat][1][type(message)](message)
        self.rig.timers.turn()

    def leave(self, process: Process, index: int) -> bool:
        return self.leave_from(process, seat_of(index, 0))

    def leave_from(self, process: Process, seat: int) -> bool:
        gone = self.ends[process, seat][2]()
        self.rig.timers.turn()
        return gone

    def sent(self, process: Process, index: int, kind: type[m.Message]) -> list:
        return self.sent_to(process, seat_of(index, 0), kind)

    def sent_to(self, process: Process, seat: int, kind: type[m.Message]) -> list:
        return self.ends[process, seat][0].take(kind)


@pytest.fixture
def reloads(rig: Rig) -> Reloads:
    made = Reloads(rig)
    rig.shared.peers.smtp[0] = rig.smtp
    return made


def session(index: int, number: int = 7) -> int:
    return seat_of(index, 0) << 56 | number


def test_a_new_smtp_gets_ids_of_its_own_and_the_old_one_goes_on(rig, reloads):
    """Both take mail at once, each with the sessions and message ids of its own."""
    new = reloads.reload()
    (lease,) = reloads.sent(Process.SMTP, new, m.IdLease)
    old_message = rig.accept()
    reloads.say(Process.LOOKUP, new, m.RcptAccept(session(new), 1, 1, (envelope(),)))
    reloads.say(Process.SMTP, new, m.Commit(session(new), 1, lease.ids[0], False, b"x\r\n"))
    (committed,) = reloads.sent(Process.SMTP, new, m.Committed)
    assert committed.code == 250
    assert {old_message, lease.ids[0]} == {message.msgid for message in rig.stored()}
    with pytest.raises(Failed):
        reloads.say(Process.LOOKUP, new, m.RcptAccept(session(0), 9, 1, (envelope(),)))
    with pytest.raises(Failed):
        reloads.say(Process.SMTP, new, m.Commit(session(new), 2, rig.ids[0], False, b"x\r\n"))


def test_work_goes_to_the_new_delivery_and_outcomes_come_from_both(rig, reloads):
    """What the old delivery has it may still answer, but nothing else; new mail is not its business."""
    rig.accept(envelope("a@one.example"))
    (old_job,) = rig.jobs()
    new = reloads.reload()
    rig.accept(envelope("b@two.example"))
    (new_job,) = rig.jobs()
    assert reloads.sent(Process.DELIVERY, 0, m.Deliver) == []
    with pytest.raises(Failed):
        reloads.say(Process.DELIVERY, 0, m.Outcome((Result(new_job.recipients[0].evpid, Status.OK, "x"),)))
    reloads.say(Process.DELIVERY, 0, m.Outcome((Result(old_job.recipients[0].evpid, Status.OK, "x"),)))
    rig.timers.advance(100)
    assert [message.msgid for message in rig.stored()] == [new_job.msgid]
    assert new == 1


def test_an_old_delivery_that_leaves_gives_back_what_it_did_not_answer(rig, reloads):
    """Mail that it did not begin is tried by the new one, once."""
    rig.accept(envelope("a@one.example"))
    (job,) = rig.jobs()
    reloads.reload()
    assert rig.jobs() == []
    assert reloads.leave(Process.DELIVERY, 0)
    rig.timers.advance(200)
    (again,) = rig.jobs()
    assert again.recipients == job.recipients
    assert rig.shared.scheduler.inflight_envelopes == 1
    reloads.say(Process.DELIVERY, 1, m.Outcome((Result(again.recipients[0].evpid, Status.OK, "x"),)))
    rig.timers.advance(200)
    assert rig.stored() == []
    assert rig.shared.scheduler.inflight_envelopes == 0


def test_an_old_lookup_that_leaves_is_not_waited_for(rig, reloads):
    """A bounce whose route it did not say is asked of the new one."""
    rig.accept(envelope("a@one.example"))
    reloads.say(Process.DELIVERY, 0, m.Outcome((Result(rig.jobs()[0].recipients[0].evpid, Status.PERMFAIL, "5.1.1"),)))
    rig.timers.advance(2000)
    assert len(reloads.sent(Process.LOOKUP, 0, m.BounceQuery)) == 1
    new = reloads.reload()
    assert reloads.leave(Process.LOOKUP, 0)
    rig.timers.advance(2000)
    (query,) = reloads.sent(Process.LOOKUP, new, m.BounceQuery)
    made = envelope(query.recipient, "in", sender="", internal=True)
    reloads.say(Process.LOOKUP, new, m.BounceRoute(query.query, (made,)))
    rig.timers.advance(200)
    assert [job.action for job in rig.jobs()] == ["in"]


def test_an_old_smtp_that_leaves_is_forgotten(rig, reloads):
    """Transactions that it left open are dropped with their files, and its ids may be leased again."""
    rig.say(m.RcptAccept(7, 1, 1, (envelope(),)))
    rig.say(m.BodyOpen(7, 1, rig.ids.pop(0)))
    assert rig.smtp.take(m.BodyFile)
    assert list((rig.directory / "bodies").rglob("*[0-9a-f]"))
    reloads.reload()
    assert reloads.leave(Process.SMTP, 0)
    assert rig.queue.intake.idle
    assert not [path for path in (rig.directory / "bodies").rglob("*") if path.is_file()]


def test_a_process_of_the_serving_generation_may_not_leave(rig, reloads):
    """Its loss is for the parent to judge; this process must not go on."""
    new = reloads.reload()
    for process in (Process.SMTP, Process.LOOKUP, Process.DELIVERY):
        assert not reloads.leave(process, new)


def test_queued_mail_takes_its_actions_new_definition(rig, reloads):
    """Two destinations were two routes; with a fixed host they are one, and go as one job."""
    rig.accept(envelope("a@one.example"), envelope("b@two.example"))
    first = rig.jobs()
    assert len(first) == 2
    for job in first:
        rig.answer([job], Status.TEMPFAIL, "4.0.0 later")
    rig.timers.advance(1000)
    reloads.reload(OUT_IS_HOST)
    rig.timers.advance(3_600_000)
    assert [len(job.recipients) for job in rig.jobs()] == [2]


def test_mail_whose_action_is_gone_stays_and_is_shown_so(rig, reloads):
    """It is neither lost nor bounced, `show queue` says why, and it goes out when the action is back."""
    rig.accept(envelope("a@one.example"))
    rig.answer(rig.jobs(), Status.TEMPFAIL, "4.0.0 later")
    rig.timers.advance(1000)
    reloads.reload(msgspec.structs.replace(SETTINGS, actions=(ActionSchedule("in", "lmtp"),)))
    rig.say(m.ShowQueue(1))
    (row,) = rig.control.take(m.QueueRow)
    assert row.error == "4.3.5 Action is configured no more"
    rig.timers.advance(3_600_000)
    assert rig.jobs() == []
    assert len(rig.stored()) == 1
    reloads.reload()
    rig.timers.advance(3_600_000)
    assert len(rig.jobs()) == 1


def test_limits_follow_the_configuration(rig, reloads):
    """`queue` limits of the new configuration hold at once."""
    reloads.reload(msgspec.structs.replace(SETTINGS, max_inflight=1))
    rig.accept(envelope("a@one.example"))
    rig.accept(envelope("b@two.example"))
    assert len(rig.jobs()) == 1


def test_a_route_stays_with_one_of_several_deliveries(rig, reloads):
    """All mail of a route goes to the same process; what one has another cannot answer, nor may it leave."""
    for instance in range(3):
        reloads.join(Process.DELIVERY, seat_of(1, instance))
    reloads.reload()
    domains = [f"d{number}.example" for number in range(40)]
    for domain in domains * 2:
        rig.accept(envelope(f"a@{domain}"))
    seats = [seat_of(1, instance) for instance in range(3)]
    jobs = {seat: [j for d in reloads.sent_to(Process.DELIVERY, seat, m.Deliver) for j in d.jobs] for seat in seats}
    where = {}
    for seat, some in jobs.items():
        for job in some:
            where.setdefault(job.recipients[0].dest, set()).add(seat)
    assert len(where) == 40 and all(len(seats) == 1 for seats in where.values())
    assert sum(map(len, jobs.values())) == 80
    busy = [seat for seat in seats if jobs[seat]]
    assert len(busy) > 1, "they share the work"
    evpid = jobs[busy[0]][0].recipients[0].evpid
    with pytest.raises(Failed):
        reloads.say_from(Process.DELIVERY, busy[1], m.Outcome((Result(evpid, Status.OK, "x"),)))
    assert not reloads.leave_from(Process.DELIVERY, busy[1])
