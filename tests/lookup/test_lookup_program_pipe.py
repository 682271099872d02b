"""Lines to and from a program: bounded both ways, and never lost or doubled."""

import os
from collections.abc import Callable

import pytest
from support.programs import Far

from smtpd_ps.lookup.program_pipe import HIGH_WATER_BYTES, MAX_UNSENT_BYTES, LinePipe
from smtpd_ps.runtime.loop import Loop


class Near:
    """A pipe, and what it has said."""

    def __init__(self, loop: Loop, max_line_bytes: int = 1000) -> None:
        self.loop, self.far = loop, Far()
        self.lines: list[bytes] = []
        self.ends: list[str] = []
        self.on_line: Callable[[bytes], None] = lambda _line: None
        self.pipe = LinePipe(loop, *self.far.take(), self._line, self.ends.append, max_line_bytes)

    def _line(self, line: bytes) -> None:
        self.lines.append(line)
        self.on_line(line)

    def turn_until(self, condition: Callable[[], bool]) -> None:
        for _ in range(1000):
            if condition():
                return
            self.loop.turn(0.05)
        raise AssertionError("never")


@pytest.fixture
def near(loop: Loop) -> Near:
    return Near(loop)


def test_lines_go_both_ways_whole_and_in_order(near: Near) -> None:
    """However they are cut on their way, and several with one write."""
    assert near.pipe.send(b"config|ready") and near.pipe.send(b"")
    near.turn_until(lambda: near.pipe.unsent_bytes == 0)
    assert near.far.read() == b"config|ready\n\n"
    near.far.write(b"one\ntw")
    near.turn_until(lambda: len(near.lines) == 1)
    near.far.write(b"o\n\nthree\r\n")
    near.turn_until(lambda: len(near.lines) == 4)
    assert near.lines == [b"one", b"two", b"", b"three\r"]
    assert near.ends == []


def test_a_line_cannot_become_two(near: Near) -> None:
    """7.8.0p1: a newline in a user name split a request. Here it is a mistake of the caller's."""
    with pytest.raises(ValueError, match="end of line"):
        near.pipe.send(b"table|lookup|bob\ntable|update")
    assert near.pipe.unsent_bytes == 0


def test_a_program_that_does_not_read_stops_taking(near: Near) -> None:
    """First `writable` turns false, then lines are refused, and memory is bounded; when it reads, all came."""
    told: list[bool] = []
    near.pipe.on_writable = lambda: told.append(near.pipe.writable)
    line = b"x" * 999
    taken = 0
    while near.pipe.send(line):
        taken += 1
        near.loop.turn(0)
    assert not near.pipe.writable and near.pipe.unsent_bytes <= MAX_UNSENT_BYTES
    assert taken * 1000 >= HIGH_WATER_BYTES
    received = 0
    while received < taken * 1000:
        received += len(near.far.read())
        near.loop.turn(0)
    near.turn_until(lambda: bool(told))
    assert told == [True] and near.pipe.writable and near.ends == []


@pytest.mark.parametrize("data", [b"y" * 1001 + b"\n", b"y" * 1100])
def test_a_line_over_the_bound_ends_it(near: Near, data: bytes) -> None:
    """Ended or not: the program is given up, with the reason."""
    near.far.write(b"good\n" + data)
    near.turn_until(lambda: bool(near.ends))
    assert near.ends == ["a line of more than 1000 bytes"] and near.pipe.closed
    assert near.lines == [b"good"]
    assert not near.pipe.send(b"more") and not near.pipe.writable


@pytest.mark.parametrize(
    ("last", "why"), [(b"", "it has closed its output"), (b"half", "it has closed its output in the middle of a line")]
)
def test_the_end_of_its_output_ends_it(near: Near, last: bytes, why: str) -> None:
    """Once, after the lines before it."""
    near.far.write(b"bye\n" + last)
    near.far.close_output()
    near.turn_until(lambda: bool(near.ends))
    assert (near.lines, near.ends) == ([b"bye"], [why])


def test_the_end_of_its_input_ends_it(near: Near) -> None:
    """A program that will never read again is of no use."""
    near.far.close_input()
    near.pipe.send(b"anyone?")
    near.turn_until(lambda: bool(near.ends))
    assert near.ends == ["it has closed its input"]


def test_a_pause_holds_lines_back_and_then_the_program(near: Near) -> None:
    """In the middle of a read too; after it nothing is lost, and meanwhile no more than a pipe is filled."""

    def stop(line: bytes) -> None:
        if line == b"2":
            near.pipe.pause()

    near.on_line = stop
    near.far.write(b"1\n2\n3\n4\n")
    near.turn_until(lambda: b"2" in near.lines)
    for _ in range(3):
        near.loop.turn(0)
    assert near.lines == [b"1", b"2"]
    near.far.write(b"5\n")
    near.loop.turn(0)
    assert near.lines == [b"1", b"2"]
    near.pipe.resume()
    near.turn_until(lambda: len(near.lines) == 5)
    assert near.lines == [b"1", b"2", b"3", b"4", b"5"]


def test_one_that_is_given_up_hears_nothing_more(near: Near) -> None:
    """`fail` from within a line: no further line, one end; `close` says nothing at all."""
    near.on_line = lambda line: near.pipe.fail(f"rubbish: {line.decode()}")
    near.far.write(b"a\nb\n")
    near.turn_until(lambda: bool(near.ends))
    near.loop.turn(0)
    assert (near.lines, near.ends) == ([b"a"], ["rubbish: a"])
    other = Near(near.loop)
    other.pipe.close()
    other.far.close_output()
    near.loop.turn(0)
    assert other.ends == []
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(other.far.given[0])
