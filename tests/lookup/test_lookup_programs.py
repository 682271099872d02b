"""Which programs run, as lookup sees it: runs replace each other, the parent hears of those that are given up."""

import os

import pytest
from support.programs import Far

from smtpd_ps.contract import messages as m
from smtpd_ps.lookup.program_pipe import LinePipe
from smtpd_ps.lookup.programs import MAX_ERROR_LINE, MAX_ERROR_LINES, Programs
from smtpd_ps.runtime.loop import Loop


class Recorder:
    """A user of a program."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.pipe: LinePipe | None = None

    def opened(self, pipe: LinePipe) -> None:
        self.said.append("opened")
        self.pipe = pipe

    def line(self, line: bytes) -> None:
        self.said.append(line.decode())

    def gone(self, why: str) -> None:
        self.said.append(f"gone: {why}")


class World:
    """Programs with one user, "filter f"."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.log: list[str] = []
        self.sent: list[m.Message] = []
        self.user = Recorder()
        self.programs = Programs(loop, self.log.append)
        self.programs.use("filter", "f", self.user)
        self.number = 0
        self.fars: list[Far] = []  # one that is forgotten would close

    def start(self, name: str = "f") -> tuple[Far, int]:
        """A run; its far end, and its standard error to write to."""
        self.number += 1
        far = Far()
        self.fars.append(far)
        reader, writer = os.pipe()
        self.programs.started(m.Program("filter", name, self.number), *far.take(), reader)
        return far, writer

    def turn(self, count: int = 4) -> None:
        for _ in range(count):
            self.loop.turn(0)


@pytest.fixture
def world(loop: Loop) -> World:
    world = World(loop)
    world.programs.attach(world.sent.append)
    return world


def test_a_run_is_opened_and_its_lines_are_handed_over(world: World) -> None:
    """To the user of that name."""
    far, _errors = world.start()
    far.write(b"register|ready\n")
    world.turn()
    assert world.user.said == ["opened", "register|ready"] and world.log == []


def test_a_run_that_ends_by_itself_is_reported_once(world: World) -> None:
    """What it said last comes first; the parent may say a moment later what it saw of the end."""
    far, errors = world.start()
    os.write(errors, b"out of memory\nabort")
    far.close_output()
    world.turn()
    assert world.user.said == ["opened", "gone: it has closed its output"]
    assert world.sent == [m.ProgramFailed("filter", "f", 1)]
    assert [line.partition(" says: ")[2] for line in world.log[:2]] == ["out of memory", "abort"]
    assert "it has closed its output; it is given up" in world.log[2]
    world.programs.ended(m.ProgramGone("filter", "f", 1, "ended: exit status 1", 1))
    assert len(world.user.said) == 2


def test_the_parents_word_is_enough(world: World) -> None:
    """A child of the program may hold its output open for ever; of an earlier run it says nothing new."""
    world.start()
    world.programs.ended(m.ProgramGone("filter", "f", 7, "ended: exit status 1", 1))
    assert world.user.said == ["opened"]
    world.programs.ended(m.ProgramGone("filter", "f", 1, "ended: killed by signal 9", 1))
    assert world.user.said == ["opened", "gone: ended: killed by signal 9"]
    assert world.sent == []
    world.start()
    assert world.user.said[-1] == "opened"


def test_a_run_that_is_given_up_is_ended_by_the_parent(world: World) -> None:
    """The user says why, the log says it with the name; lines that come later are nobody's."""
    _far, _errors = world.start()
    assert world.user.pipe is not None
    world.user.pipe.fail("unknown token")
    world.turn()
    assert world.log == ["filter f: unknown token; it is given up"]
    assert world.sent == [m.ProgramFailed("filter", "f", 1)]
    assert world.user.said == ["opened", "gone: unknown token"]


def test_a_new_run_takes_the_place_of_the_old_one(world: World) -> None:
    """Whatever order the news come in, one run is used at a time."""
    world.start()
    world.start()
    world.turn()
    assert world.user.said == ["opened", "gone: it was started again", "opened"]
    assert len(list(world.programs.running())) == 1 and world.sent == []


def test_before_the_parent_can_be_told_it_is_kept(loop: Loop) -> None:
    """A program may fail while lookup is still being set up."""
    world = World(loop)
    far, _errors = world.start()
    far.close_output()
    world.turn()
    assert world.sent == []
    world.programs.attach(world.sent.append)
    assert world.sent == [m.ProgramFailed("filter", "f", 1)]


def test_a_program_that_nobody_uses_is_left_alone(world: World) -> None:
    """Its pipes are closed, and that is said."""
    far, _errors = world.start("other")
    assert world.log == ["filter other runs, and nobody here uses it"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(far.given[0])


def test_standard_error_is_logged_line_by_line_and_bounded(world: World) -> None:
    """Each line with the name, a long one cut, bytes that are no text escaped, a flood counted."""
    _far, errors = world.start()
    os.write(errors, b"plain\n\n" + b"\xff\x00odd\n" + b"z" * 3000 + b"\n")
    world.turn()
    assert world.log[0] == "filter f says: plain"
    assert world.log[1] == "filter f says: \\xff\0odd"
    assert world.log[2] == f"filter f says: {'z' * MAX_ERROR_LINE}"
    os.write(errors, b"again\n" * 500)
    os.close(errors)
    world.turn()
    said = [line for line in world.log if " says: " in line]
    assert len(said) == MAX_ERROR_LINES
    assert world.log[-1] == f"filter f said {503 - MAX_ERROR_LINES} more lines, which were not logged"
    assert world.user.said == ["opened"], "the program may close its standard error and go on"


def test_waiting_at_the_set_up_ends_when_all_is_there_or_in_time(world: World) -> None:
    """The loop turns meanwhile."""
    far, _errors = world.start()
    far.write(b"register|ready\n")
    world.programs.await_users(lambda: "register|ready" in world.user.said, 30.0)
    assert "register|ready" in world.user.said
    world.programs.await_users(lambda: False, 0.05)
