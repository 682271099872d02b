"""The loop's turns, timers and ends of turns."""

import os
import socket

import pytest

from smtpd_ps.runtime import loop as loop_module
from smtpd_ps.runtime.loop import Loop
from smtpd_ps.runtime.poller import READ, WRITE, Poller, _Selector, make_poller


def test_turn_end_runs_once_however_often_asked() -> None:
    """Work for the end of a turn is done once a turn: this is what makes batches."""
    loop, ran = Loop(), []

    def work() -> None:
        ran.append(1)

    for _ in range(5):
        loop.at_turn_end(work)
    loop.turn(0)
    loop.turn(0)
    assert ran == [1]


def test_turn_end_asked_during_turn_end_still_runs() -> None:
    """A commit at the end of a turn sends answers, whose flush belongs to the same turn."""
    loop, ran = Loop(), []
    loop.at_turn_end(lambda: loop.at_turn_end(lambda: ran.append("flush")))
    loop.turn(0)
    assert ran == ["flush"]


def test_timers_run_in_order_and_cancelled_ones_never() -> None:
    """Order is by time; a cancelled timer is silent."""
    loop, ran = Loop(), []
    loop.call_later(0.02, lambda: ran.append("late"))
    loop.call_later(0.0, lambda: ran.append("soon"))
    loop.call_later(0.0, lambda: ran.append("never")).cancel()
    while len(ran) < 2:
        loop.turn()
    assert ran == ["soon", "late"]


def test_a_handler_may_forget_another_descriptor() -> None:
    """Closing a watched descriptor from a callback of the same turn calls nobody."""
    loop, ran = Loop(), []
    pipes = [os.pipe() for _ in range(2)]
    readers = [reader for reader, _writer in pipes]

    def read(at: int) -> None:
        ran.append(at)
        for fd in readers:
            loop.forget(fd)

    for at, (reader, writer) in enumerate(pipes):
        os.write(writer, b"x")
        loop.read_on(reader, lambda at=at: read(at))  # type: ignore[misc]
    loop.turn(0.1)
    assert len(ran) == 1
    for pair in pipes:
        for fd in pair:
            os.close(fd)


def test_write_interest_is_separate_from_read_interest() -> None:
    """Turning one off leaves the other."""
    loop, ran = Loop(), []
    reader, writer = os.pipe()
    loop.write_on(writer, lambda: ran.append("w"))
    loop.turn(0)
    loop.write_off(writer)
    loop.turn(0)
    assert ran == ["w"]
    os.close(reader)
    os.close(writer)


def test_a_number_that_is_used_again_in_the_same_turn_is_not_called() -> None:
    """The event was about the descriptor that was closed, and the new one may not be ready at all."""
    loop, ran = Loop(), []
    pipes = [os.pipe() for _ in range(2)]
    fresh: list[tuple[int, int]] = []

    def read(at: int) -> None:
        ran.append(at)
        if fresh:
            return
        other = pipes[1 - at]
        loop.forget(other[0])
        os.close(other[0])
        fresh.append(os.pipe())
        assert fresh[0][0] == other[0]
        loop.read_on(fresh[0][0], lambda: ran.append(9))

    for at, (reader, writer) in enumerate(pipes):
        os.write(writer, b"x")
        loop.read_on(reader, lambda at=at: read(at))  # type: ignore[misc]
    loop.turn(0.1)
    assert len(ran) == 1
    for fd in (pipes[ran[0]][0], pipes[0][1], pipes[1][1], *fresh[0]):
        loop.forget(fd)
        os.close(fd)


def test_cancelled_timers_do_not_pile_up() -> None:
    """A timer a session that is cancelled when the session ends must not stay until its time."""
    loop = Loop()
    kept = [loop.call_later(1000, lambda: None) for _ in range(100)]
    for _ in range(10_000):
        loop.call_later(1000, lambda: None).cancel()
    assert len(loop._timers) <= 2 * len(kept) + loop_module._FEW_TIMERS
    ran: list[int] = []
    loop.call_later(0, lambda: ran.append(1))
    loop.turn(0.1)
    assert ran == [1]
    assert all(timer.live for timer in kept)


@pytest.mark.parametrize("make", [make_poller, _Selector])
def test_pollers_agree(make: type[Poller]) -> None:
    """What is ready, for reading and writing, at a hang-up, and after it is closed."""
    poller = make()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        fd = ours.fileno()
        poller.register(fd, READ | WRITE)
        assert poller.poll(0) == [(fd, WRITE)]
        poller.modify(fd, READ)
        assert poller.poll(0) == []
        theirs.send(b"x")
        assert poller.poll(None) == [(fd, READ)]
        theirs.close()
        for mask in (READ, WRITE, READ | WRITE):
            poller.modify(fd, mask)
            ((found, ready),) = poller.poll(1)
            assert (found, ready & mask) == (fd, mask)
        ours.close()
        poller.unregister(fd)
        assert poller.poll(0) == []
    poller.close()


@pytest.mark.parametrize("make", [make_poller, _Selector])
def test_a_shared_listening_socket(make: type[Poller]) -> None:
    """Of several that watch it, one at least hears of a client, as often as it looks."""
    pollers = [make(), make()]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        for poller in pollers:
            poller.share(listener.fileno())
        assert [poller.poll(0) for poller in pollers] == [[], []]
        with socket.create_connection(listener.getsockname()):
            heard = [poller.poll(1) for poller in pollers]
            assert (listener.fileno(), READ) in [one for ready in heard for one in ready]
            listener.accept()[0].close()
        for poller in pollers:
            poller.unregister(listener.fileno())
            poller.close()


def test_accepting_is_switched_off_and_on() -> None:
    """A paused listener is not heard of, and heard again afterwards."""
    loop = Loop()
    heard: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        fd = listener.fileno()
        loop.accept_on(fd, lambda: heard.append(1))
        loop.accept_on(fd, lambda: heard.append(2))  # asked twice: the first stays
        loop.turn(0.5)
        assert heard == [1]
        loop.read_off(fd)
        loop.turn(0)
        assert heard == [1]
        loop.accept_on(fd, lambda: heard.append(3))
        loop.turn(0.5)
        assert heard == [1, 3]
        loop.forget(fd)
    loop.close()
