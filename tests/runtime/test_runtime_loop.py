"""The loop's turns, timers and ends of turns."""

import os

from smtpd_ps.runtime.loop import Loop


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
