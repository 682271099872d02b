"""A reload as queue sees it: new peers, other settings, old processes that leave."""

import msgspec
import pytest
from queue_rig import SETTINGS, Failed, Recorder, Rig, envelope

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ActionSchedule
from smtpd_ps.contract.values import Process, Result, Status
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
        self.generations = Generations(rig.queue, rig.shared, self._join, lambda: None)
        self.reload()

    def _join(self, peer, _fd, handlers, on_gone):
        recorder = Recorder()
        self.ends[peer, self._index] = (recorder, handlers, on_gone)
        return recorder

    def reload(self, settings=SETTINGS) -> int:
        self._index += 1
        for process in (Process.SMTP, Process.LOOKUP, Process.DELIVERY):
            self.generations.new_peer(m.NewPeer(process, self._index), -1)
        self.generations.reload(m.QueueReload(self._index, settings))
        self.rig.timers.turn()
        self.rig.delivery = self.ends[Process.DELIVERY, self._index][0]
        self.rig.lookup = self.ends[Process.LOOKUP, self._index][0]
        return self._index

    def say(self, process: Process, index: int, message: m.Message) -> None:
        self.ends[process, index][1][type(message)](message)
        self.rig.timers.turn()

    def leave(self, process: Process, index: int) -> bool:
        gone = self.ends[process, index][2]()
        self.rig.timers.turn()
        return gone

    def sent(self, process: Process, index: int, kind: type[m.Message]) -> list:
        return self.ends[process, index][0].take(kind)


@pytest.fixture
def reloads(rig: Rig) -> Reloads:
    made = Reloads(rig)
    rig.shared.peers.smtp[0] = rig.smtp
    return made


def session(index: int, number: int = 7) -> int:
    return index << 56 | number


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
