"""What lookup knows of users, .forward files and included files, and how it takes the parent's answers."""

import os
from pathlib import Path

import pytest
from support.dns_server import run_until

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Account
from smtpd_ps.lookup import asking, knowledge
from smtpd_ps.lookup.knowledge import Answers, Knowledge
from smtpd_ps.pure.expand_files import MAX_FORWARD_BYTES
from smtpd_ps.pure.expand_questions import (
    Answer,
    Forward,
    ForwardQuestion,
    Included,
    IncludeQuestion,
    Question,
    UserQuestion,
    UserState,
)
from smtpd_ps.pure.expand_targets import Target
from smtpd_ps.runtime.loop import Loop

ALICE = ForwardQuestion("", "alice")
LIST = IncludeQuestion("/etc/list")


class World:
    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.sent: list[m.Message] = []
        self.warnings: list[str] = []
        self.told: list[Answers] = []
        self.knowledge = Knowledge(loop, self.sent.append, self.warnings.append)

    def ask(self, *questions: Question) -> None:
        self.knowledge.ask(questions, self.told.append)

    def answer(self, question: Question) -> Answer:
        (told,) = self.told
        self.told.clear()
        return told[question]


@pytest.fixture
def world(loop: Loop) -> World:
    return World(loop)


def pipe_with(data: bytes) -> int:
    reader, writer = os.pipe()
    os.write(writer, data)
    os.close(writer)
    return reader


def closed(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return True
    return False


def test_all_answers_come_together(world: World) -> None:
    """Each question is its own message; `done` is called once, and what is known is not asked again."""
    bob = ForwardQuestion("a", "bob", Account(1000, 100, "/h"))
    world.ask(UserQuestion("x"), ALICE, bob, LIST)
    numbers = {type(message).__name__ + getattr(message, "user", ""): message for message in world.sent}
    assert set(numbers) == {"UserQueryx", "ForwardOpenalice", "ForwardOpenbob", "IncludeOpen"}
    asked = numbers["ForwardOpenbob"]
    assert isinstance(asked, m.ForwardOpen)
    assert (asked.action, asked.account) == ("a", Account(1000, 100, "/h"))
    for message in world.sent:
        match message:
            case m.UserQuery(query=query):
                world.knowledge.user_info(m.UserInfo(query, True))
            case m.ForwardOpen(query=query, user="alice"):
                world.knowledge.forward_file(m.ForwardFile(query, True), pipe_with(b"bob\n"))
            case m.ForwardOpen(query=query):
                world.knowledge.forward_none(m.ForwardNone(query, "none"))
            case m.IncludeOpen(query=query):
                world.knowledge.include_none(m.IncludeNone(query, "no"))
    (told,) = world.told
    assert told == {
        UserQuestion("x"): UserState.FOUND,
        ALICE: Forward("found", (Target("user", "bob"),), True),
        bob: Forward("none"),
        LIST: Included(None, "no"),
    }
    assert all(world.knowledge.known(question) == answer for question, answer in told.items())


@pytest.mark.parametrize(
    ("data", "state", "why"),
    [
        (b"", "none", ""),
        (b"# nothing", "none", ""),
        (b"no such thing", "temporary", ".forward of alice: line 1"),
        (b"\xff", "temporary", "UTF-8"),
        (b"#" * MAX_FORWARD_BYTES, "temporary", "4096"),
    ],
)
def test_what_a_forward_says(world: World, data: bytes, state: str, why: str) -> None:
    """A user's bytes never do more than make that user's mail wait; the descriptor is closed."""
    world.ask(ALICE)
    fd = pipe_with(data)
    world.knowledge.forward_file(m.ForwardFile(1, False), fd)
    answer = world.answer(ALICE)
    assert isinstance(answer, Forward)
    assert answer.state == state
    assert why in answer.why
    assert closed(fd)


def test_a_pipe_that_stays_open(world: World) -> None:
    """Lookup waits for nobody."""
    reader, writer = os.pipe()
    os.write(writer, b"bob\n")
    world.ask(ALICE)
    world.knowledge.forward_file(m.ForwardFile(1, False), reader)
    answer = world.answer(ALICE)
    assert isinstance(answer, Forward)
    assert answer.state == "temporary"
    os.close(writer)
    assert closed(reader)


def test_included_file(world: World, tmp_path: Path) -> None:
    """Its bad lines are told with the path; a table that is read again makes it read again."""
    path = tmp_path / "list"
    path.write_bytes(b"alice\nno such thing\n:include:/x\n")
    world.ask(LIST)
    fd = os.open(path, os.O_RDONLY)
    world.knowledge.include_file(m.IncludeFile(1), fd)
    assert world.answer(LIST) == Included((Target("user", "alice"),))
    assert closed(fd)
    assert [warning.split(": ")[:2] for warning in world.warnings] == [
        ["/etc/list", "left out line 2"], ["/etc/list", "left out line 3"]
    ]  # fmt: skip
    assert world.knowledge.known(LIST) is not None
    world.knowledge.forget_files()
    assert world.knowledge.known(LIST) is None
    world.ask(LIST)
    world.knowledge.include_file(m.IncludeFile(2), os.open(tmp_path, os.O_RDONLY))
    answer = world.answer(LIST)
    assert isinstance(answer, Included)
    assert answer.targets is None


def test_answers_that_nobody_waits_for(world: World) -> None:
    """A late or invented answer does nothing, and leaves no descriptor."""
    fd = pipe_with(b"bob\n")
    world.knowledge.forward_file(m.ForwardFile(9, False), fd)
    assert closed(fd)
    fd = pipe_with(b"bob\n")
    world.knowledge.include_file(m.IncludeFile(9), fd)
    assert closed(fd)
    world.knowledge.forward_none(m.ForwardNone(9, "none"))
    world.knowledge.include_none(m.IncludeNone(9, ""))
    world.knowledge.user_info(m.UserInfo(9, True))
    assert world.told == []


def test_bounds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names and paths that no message holds, more questions than are kept, no answer at all."""
    world.ask(UserQuestion("x" * 256), ForwardQuestion("", "x" * 256), IncludeQuestion("/" * 1025))
    run_until(world.loop, lambda: bool(world.told))
    assert world.sent == []
    (told,) = world.told
    assert told[UserQuestion("x" * 256)] is UserState.ABSENT
    assert told[ForwardQuestion("", "x" * 256)] == Forward("absent")
    world.told.clear()
    monkeypatch.setattr(asking, "PATIENCE_SECS", 0.05)
    monkeypatch.setattr(asking, "MAX_UNDER_WAY", 2)
    world.ask(*(ForwardQuestion("", f"u{number}") for number in range(3)))
    run_until(world.loop, lambda: bool(world.told))
    assert len(world.sent) == 2
    (told,) = world.told
    assert set(told.values()) == {Forward("unsure")}
    assert world.knowledge.known(ForwardQuestion("", "u1")) is None


def test_how_long_answers_are_good(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A .forward counts two seconds after it was made, a new user after ten."""
    world.ask(ALICE, ForwardQuestion("", "ghost"))
    for message in world.sent:
        assert isinstance(message, m.ForwardOpen)
        verdict = "none" if message.user == "alice" else "absent"
        world.knowledge.forward_none(m.ForwardNone(message.query, verdict))
    real = world.loop.now
    monkeypatch.setattr(world.loop, "now", lambda: real() + knowledge.FILE_SECS + 1)
    assert world.knowledge.known(ALICE) is None
    assert world.knowledge.known(ForwardQuestion("", "ghost")) == Forward("absent")
    monkeypatch.setattr(world.loop, "now", lambda: real() + knowledge.ABSENT_SECS + 1)
    assert world.knowledge.known(ForwardQuestion("", "ghost")) is None
