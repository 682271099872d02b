"""Group commit: which messages share a sync, and which never wait for others."""

from queue_rig import BODY, envelope

from smtpd_ps.contract import messages as m
from smtpd_ps.queue.group import COMPANY, COMPANY_SECS


def counting(rig, monkeypatch):
    """The sizes of the groups that are written."""
    sizes, write = [], rig.store.write

    def counted(group):
        sizes.append(len(group.inserts))
        write(group)

    monkeypatch.setattr(rig.store, "write", counted)
    return sizes


def begun(rig, count):
    """That many transactions that have a recipient."""
    numbers = range(1000, 1000 + count)
    for number in numbers:
        rig.say(m.RcptAccept(7, number, 1, (envelope(),)))
    return numbers


def finish(rig, number):
    """The body of one of them."""
    rig.say(m.Commit(7, number, rig.ids.pop(0), False, BODY))


def test_a_message_alone_waits_for_nobody(rig, monkeypatch):
    """It is stored at the end of the turn that brought it, also where a few others are under way."""
    sizes = counting(rig, monkeypatch)
    numbers = begun(rig, COMPANY)
    finish(rig, numbers[0])
    assert sizes == [1]
    assert rig.smtp.take(m.Committed)[0].code == 250


def test_under_load_messages_share_a_sync(rig, monkeypatch):
    """Where several are under way, what comes within a moment is stored together, and answered then."""
    sizes = counting(rig, monkeypatch)
    numbers = begun(rig, COMPANY + 3)
    for number in numbers[:3]:
        finish(rig, number)
    assert not sizes and not rig.smtp.take(m.Committed)
    rig.timers.advance(COMPANY_SECS * 1000 + 1)
    assert sizes == [3]
    assert [reply.code for reply in rig.smtp.take(m.Committed)] == [250] * 3


def test_nobody_waits_who_is_the_last(rig, monkeypatch):
    """When those that are under way are fewer than those that wait, there is no more to wait for."""
    sizes = counting(rig, monkeypatch)
    numbers = begun(rig, 2 * COMPANY)
    for number in numbers[: COMPANY + 1]:
        finish(rig, number)
    assert sum(sizes) == COMPANY + 1
    assert sizes[0] > 1
    for number in numbers[COMPANY + 1 :]:
        finish(rig, number)
    assert sum(sizes) == 2 * COMPANY
    rig.timers.advance(20)
    assert sum(sizes) == 2 * COMPANY, "the moment that passed stores nothing twice"


def test_clients_that_stop_halfway_delay_others_by_a_moment_only(rig, monkeypatch):
    """Transactions that never get a body cost every other one COMPANY_SECS."""
    sizes = counting(rig, monkeypatch)
    begun(rig, 50)
    for round_number in range(5):
        rig.accept()
        assert len(sizes) == round_number
        rig.timers.advance(COMPANY_SECS * 1000 + 1)
        assert len(sizes) == round_number + 1
