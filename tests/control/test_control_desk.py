"""The desk: requests go where they belong, answers to who asked."""

import pytest

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.routes import ROUTES
from smtpd_ps.contract.values import Process, seat_of
from smtpd_ps.control.desk import Desk, answerers
from smtpd_ps.runtime.log import Log


class Sink:
    def __init__(self) -> None:
        self.got: list[m.Message] = []

    def send(self, message: m.Message, *fds: int) -> None:
        self.got.append(message)


def attach(desk: Desk, peer: Process, sink: Sink, seat: int = 0) -> None:
    """As NewPeer does; that smtp is told at once whether it may accept is another test's rule."""
    desk.attach(peer, sink, seat)
    if peer is Process.SMTP:
        sink.got.remove(m.Pause(0, "smtp", False))


@pytest.fixture
def desk() -> Desk:
    return Desk(Log(Process.CONTROL, foreground=True), started=0.0)


def test_every_request_of_the_contract_has_an_answerer() -> None:
    """No request is accepted and dropped, and each goes only where the contract has a route."""
    for route in ROUTES:
        if (Process.CLIENT, Process.CONTROL) not in route.hops:
            continue
        requests = [m.Pause(0, "smtp", True), m.Pause(0, "mta", True)] if route.message is m.Pause else [None]
        for request in requests:
            asked = answerers(request if request is not None else _any(route.message))
            assert asked
            assert all((Process.CONTROL, peer) in route.hops for peer in asked)


def _any(kind: type[m.Message]) -> m.Message:
    values = {"evpid": 1, "msgid": 1, "verbose": 0}
    return kind(**{name: values.get(name, 0) for name in kind.__struct_fields__})


def test_answers_go_to_who_asked(desk: Desk) -> None:
    """Two requesters at once never see each other's answers."""
    queue, first, second = Sink(), Sink(), Sink()
    attach(desk, Process.QUEUE, queue)
    desk.ask(first, m.ShowMessage(0, 1))
    desk.ask(second, m.ShowMessage(0, 2))
    numbers = [message.client for message in queue.got if isinstance(message, m.ShowMessage)]
    assert len(set(numbers)) == 2
    handlers = desk.handlers(Process.QUEUE)
    handlers[m.BytesPart](m.BytesPart(numbers[1], b"two"))
    handlers[m.Done](m.Done(numbers[1], True))
    assert [type(message) for message in second.got] == [m.BytesPart, m.Done]
    assert first.got == []


def test_an_answer_for_nobody_is_dropped(desk: Desk) -> None:
    """A client that left does not break the desk."""
    queue, client = Sink(), Sink()
    attach(desk, Process.QUEUE, queue)
    number = desk.ask(client, m.ShowMessage(0, 1))
    desk.forget(number)
    desk.handlers(Process.QUEUE)[m.Done](m.Done(number, True))
    assert client.got == []


def test_counters_are_gathered_from_all(desk: Desk) -> None:
    """`show stats` waits for every process that counts, and adds control's own."""
    client = Sink()
    peers = {peer: Sink() for peer in (Process.QUEUE, Process.SMTP, Process.DELIVERY)}
    for peer, sink in peers.items():
        attach(desk, peer, sink)
    number = desk.ask(client, m.ShowStats(0))
    for at, peer in enumerate(peers):
        assert client.got == []
        desk.handlers(peer)[m.Counters](m.Counters(number, ((f"count.{at}", at),)))
        desk.handlers(peer)[m.Done](m.Done(number, True))
    counters, done = client.got
    assert isinstance(counters, m.Counters) and isinstance(done, m.Done)
    assert {"count.0", "count.1", "count.2", "control.session", "uptime"} == set(dict(counters.values))


def test_orders_go_to_the_generation_that_serves_and_counters_come_from_all(desk: Desk) -> None:
    """After a reload the old smtp still counts its sessions, and only the new one is paused."""
    old, new, queue, client = Sink(), Sink(), Sink(), Sink()
    attach(desk, Process.QUEUE, queue)
    for peer in (Process.SMTP, Process.DELIVERY):
        attach(desk, peer, old)
        attach(desk, peer, new, seat_of(1, 0))
    desk.serve(1)
    desk.ask(client, m.Pause(0, "smtp", True))
    assert [type(message) for message in new.got] == [m.Pause] and old.got == []
    number = desk.ask(client, m.ShowStats(0))
    assert len(old.got) == 2
    for peer, index in (
        (Process.QUEUE, 0),
        (Process.SMTP, seat_of(1, 0)),
        (Process.DELIVERY, 0),
        (Process.DELIVERY, seat_of(1, 0)),
    ):
        desk.handlers(peer, index)[m.Done](m.Done(number, True))
    assert client.got == []
    assert desk.detach(Process.SMTP, 0), "an old process that leaves is not waited for"
    assert [type(message) for message in client.got] == [m.Counters, m.Done]
    assert not desk.detach(Process.SMTP, seat_of(1, 0)), "the one that serves may not leave"


def test_a_new_smtp_starts_as_paused_as_the_old_one(desk: Desk) -> None:
    """A reload does not undo `smtpctl_ps pause smtp`."""
    desk.attach(Process.SMTP, Sink())
    desk.ask(Sink(), m.Pause(0, "smtp", True))
    new = Sink()
    desk.attach(Process.SMTP, new, seat_of(1, 0))
    assert new.got == [m.Pause(0, "smtp", True)]
    desk.serve(1)
    desk.handlers(Process.SMTP, 1)[m.Done](m.Done(0, True))
    desk.ask(Sink(), m.Pause(0, "smtp", False))
    newer = Sink()
    desk.attach(Process.SMTP, newer, 2)
    assert newer.got == [m.Pause(0, "smtp", False)], "and it accepts nobody before it hears so"


def test_one_failure_fails_the_whole(desk: Desk) -> None:
    """If one of several processes refuses, the operator hears it."""
    client = Sink()
    for peer in (Process.QUEUE, Process.SMTP):
        attach(desk, peer, Sink())
    number = desk.ask(client, m.ShowStatus(0))
    desk.handlers(Process.QUEUE)[m.Done](m.Done(number, False, "no"))
    desk.handlers(Process.SMTP)[m.Done](m.Done(number, True))
    assert client.got == [m.Done(0, False, "no")]


def test_several_of_a_kind(desk: Desk) -> None:
    """An order goes to every smtp process, and is done when all have done it; a question goes to one."""
    first, second, client = Sink(), Sink(), Sink()
    attach(desk, Process.QUEUE, Sink())
    attach(desk, Process.SMTP, first)
    attach(desk, Process.SMTP, second, 1)
    number = desk.ask(client, m.Pause(0, "smtp", True))
    assert [type(message) for message in first.got + second.got] == [m.Pause, m.Pause]
    desk.handlers(Process.SMTP)[m.Done](m.Done(number, True))
    assert client.got == []
    desk.handlers(Process.SMTP, 1)[m.Done](m.Done(number, True))
    assert [type(message) for message in client.got] == [m.Done]
    desk.ask(client, m.ShowStatus(0))
    assert [type(message) for message in first.got] == [m.Pause, m.ShowStatus] and len(second.got) == 1
    assert not desk.detach(Process.SMTP, 1), "neither of them may leave"


def test_the_network_is_asked_of_every_delivery_that_serves(desk: Desk) -> None:
    """Rows of all go to who asked; a source that is paused is paused in the next generation as well."""
    first, second, client = Sink(), Sink(), Sink()
    for instance, sink in enumerate((first, second)):
        attach(desk, Process.DELIVERY, sink, seat_of(0, instance))
    number = desk.ask(client, m.ShowNetwork(0, "routes"))
    for instance in (0, 1):
        handlers = desk.handlers(Process.DELIVERY, seat_of(0, instance))
        handlers[m.BlockRow](m.BlockRow(number, "192.0.2.1", ""))
        handlers[m.Done](m.Done(number, True, "", 1))
    assert [type(message) for message in client.got] == [m.BlockRow, m.BlockRow, m.Done]
    assert client.got[-1].count == 2  # type: ignore[attr-defined]
    desk.ask(client, m.BlockRelay(0, "192.0.2.1", "d.test", True))
    desk.ask(client, m.BlockRelay(0, "192.0.2.2", "", True))
    desk.ask(client, m.BlockRelay(0, "192.0.2.2", "", False))
    third = Sink()
    attach(desk, Process.DELIVERY, third, seat_of(1, 0))
    assert third.got == [m.BlockRelay(0, "192.0.2.1", "d.test", True)]


def test_smtp_that_starts_paused_is_paused_again_by_a_reload() -> None:
    """-P smtp is for the first generation; control keeps it for the next, until it is resumed."""
    desk = Desk(Log(Process.CONTROL, foreground=True), started=0.0, smtp_paused=True)
    first, second = Sink(), Sink()
    desk.attach(Process.SMTP, first)
    assert first.got == [m.Pause(0, "smtp", True)]
    desk.ask(Sink(), m.Pause(0, "smtp", False))
    desk.attach(Process.SMTP, second, seat_of(1, 0))
    assert second.got == [m.Pause(0, "smtp", False)]


def test_who_watches_is_told_to_all_and_withdrawn(desk: Desk) -> None:
    """All that speak of sessions send their lines, those of a new generation too, until the operator goes."""
    smtp, later, client = Sink(), Sink(), Sink()
    others = {process: Sink() for process in (Process.QUEUE, Process.LOOKUP, Process.DELIVERY)}
    attach(desk, Process.SMTP, smtp)
    for process, sink in others.items():
        attach(desk, process, sink)
    number = desk.ask(client, m.Follow(0, True))
    assert all(sink.got == [m.Follow(number, True)] for sink in (smtp, *others.values()))
    attach(desk, Process.SMTP, later, seat_of(1, 0))
    assert later.got == [m.Follow(number, True)]
    line = m.FollowedLine(number, Process.SMTP, "x smtp connected")
    desk.handlers(Process.SMTP, seat_of(1, 0))[m.FollowedLine](line)
    assert client.got == [line]
    desk.forget(number)
    assert all(sink.got[-1] == m.Follow(number, False) for sink in (smtp, later, *others.values()))
