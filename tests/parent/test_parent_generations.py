"""Generations in the parent: everything or nothing, one at a time, and not too many. Processes are fakes."""

import socket
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

import pytest

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ListenerSettings
from smtpd_ps.contract.values import MAX_GENERATIONS, Process
from smtpd_ps.parent.generations import RETIRED_KEPT, RETIRED_MOST, Generations, ReloadRefused
from smtpd_ps.parent.listeners import ListenError, Listeners
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop


class FakeGeneration:
    """Records what it is told; the test says what happens to it."""

    def __init__(
        self, index: int, plan: object, on_ready: Callable[[], None], on_failed: Callable[[str], None]
    ) -> None:
        self.index, self.plan = index, plan
        self.ready, self.fail = on_ready, on_failed
        self.crew = SimpleNamespace(children={})
        self.agents = [SimpleNamespace(running={}, reap=lambda: None, end=lambda: None)]
        self.tables = SimpleNamespace(end=lambda: None, watch=lambda _loop: None)
        self.programs = SimpleNamespace(running=[], reap=lambda: None, release=lambda: None, end=lambda: None)
        self.openers = SimpleNamespace(busy=False, reap=lambda: None)
        self.hurried = False
        self.said: list[str] = []
        self.broken = False

    def start_programs(self) -> None:
        self.programs_started = True

    def plans(self) -> dict[Process, Any]:
        return {}

    def handlers(self, _child: object) -> dict[Process, Any]:
        return {}

    def go(self, _lasting: Mapping[Process, Any]) -> None:
        if self.broken:
            raise OSError("no descriptors")
        self.said.append("go")

    def retire(self, on_retired: Callable[[], None], on_ended: Callable[[], None]) -> None:
        self.said.append("retire")
        self.retired, self.ended = on_retired, on_ended

    def hurry(self) -> None:
        self.hurried = True


class World:
    """Generations with a first one that serves."""

    def __init__(self) -> None:
        self.made: list[FakeGeneration] = []
        self.released: list[tuple[object, bool]] = []
        self.answers: list[tuple[bool, str]] = []
        self.load: Callable[[], Any] = lambda: "plan"
        self.start_error: OSError | None = None
        self.settled = 0
        children = SimpleNamespace(
            start=self._start, release=lambda crew, kill=False: self.released.append((crew, kill)), reap=lambda: None
        )
        self.listeners = Listeners()
        self.generations = Generations(
            Loop(), Log(Process.PARENT, foreground=True), children, self.listeners, self._make,  # type: ignore[arg-type]
            lambda: self.load(), self._on_settled,
        )  # fmt: skip
        self.generations.start("plan", lambda: None, lambda _why: None)  # type: ignore[arg-type]
        self.generations.serve({})

    def _make(self, *given: Any) -> Any:
        self.made.append(FakeGeneration(*given))
        return self.made[-1]

    def _start(self, *_given: Any) -> None:
        if self.start_error:
            raise self.start_error

    def _on_settled(self) -> None:
        self.settled += 1

    def reload(self) -> FakeGeneration:
        self.generations.reload({}, lambda ok, text: self.answers.append((ok, text)))
        return self.made[-1]

    def reload_through(self) -> FakeGeneration:
        old = self.generations.current
        new = self.reload()
        new.ready()
        assert isinstance(old, FakeGeneration)
        old.retired()
        return new


def test_who_asks_is_answered_when_the_old_one_accepts_nobody() -> None:
    """Ready is not enough: until then a client might still meet the old rules."""
    world = World()
    new = world.reload()
    assert (new.index, new.said, world.answers) == (1, [], [])
    new.ready()
    assert (new.said, world.made[0].said) == (["go"], ["go", "retire"])
    assert world.answers == [] and world.generations.busy
    world.made[0].retired()
    assert world.answers == [(True, "configuration reloaded")]
    assert not world.generations.busy and world.settled == 1
    assert world.released == []
    world.made[0].ended()
    assert world.released == [(world.made[0].crew, False)]
    assert world.generations.all() == [new]


@pytest.mark.parametrize("how", ["load", "spawn", "process", "listeners"])
def test_a_failure_at_any_step_changes_nothing(how: str) -> None:
    """The old one is told nothing, the new one is killed, and the reason is the answer."""
    world = World()
    if how == "load":

        def load() -> Any:
            raise ReloadRefused("smtpd.conf:1: nonsense\nsmtpd.conf:2: more")

        world.load = load
    world.start_error = OSError("cannot fork") if how == "spawn" else None
    new = world.reload()
    if how == "process":
        new.fail("lost child keys (pid 1): bad pair")
    elif how == "listeners":
        new.broken = True
        new.ready()
    ((ok, text),) = world.answers
    assert not ok
    assert {"load": "more", "spawn": "cannot fork", "process": "bad pair", "listeners": "no descriptors"}[how] in text
    assert world.released == ([] if how == "load" else [(new.crew, True)])
    assert world.made[0].said == ["go"]
    assert world.generations.current is world.made[0]
    world.load, world.start_error = lambda: "plan", None
    world.reload_through()
    assert world.answers[1][0], "and a later one works"


def test_one_at_a_time() -> None:
    """A second one is answered at once, and does not disturb the first."""
    world = World()
    new = world.reload()
    world.reload()
    assert world.answers == [(False, "a reload is under way already")]
    assert len(world.made) == 2
    new.ready()
    world.reload()
    assert len(world.answers) == 2
    world.made[0].retired()
    assert world.answers[-1] == (True, "configuration reloaded")


def test_old_ones_are_hurried_and_then_bounded() -> None:
    """The newest keep their sessions; with too many left there is no reload until some have ended."""
    world = World()
    for _ in range(RETIRED_MOST):
        world.reload_through()
    hurried = [generation.hurried for generation in world.made]
    assert hurried == [True] * (RETIRED_MOST - RETIRED_KEPT) + [False] * (RETIRED_KEPT + 1)
    world.reload()
    assert not world.answers[-1][0] and "try again" in world.answers[-1][1]
    world.made[0].ended()
    world.reload_through()
    assert world.answers[-1][0]


def test_numbers_fit_into_session_ids_and_are_not_shared() -> None:
    """After the last number the first free one is used again."""
    world = World()
    world.reload_through()  # number 0 stays
    for _ in range(MAX_GENERATIONS - 2):
        old = world.generations.current
        world.reload_through()
        assert isinstance(old, FakeGeneration)
        old.ended()
    assert world.generations.current is not None and world.generations.current.index == MAX_GENERATIONS - 1
    assert world.reload_through().index == 1
    assert {generation.index for generation in world.generations.all()} == {0, MAX_GENERATIONS - 1, 1}


def test_stopping_ends_a_reload() -> None:
    """What was starting is killed, and none is begun any more."""
    world = World()
    new = world.reload()
    world.generations.stop()
    assert world.released == [(new.crew, True)]
    assert world.answers == [(False, "smtpd_ps is stopping")]
    world.reload()
    assert world.answers[1:] == [(False, "smtpd_ps is stopping")]


def test_a_long_reason_fits_the_answer() -> None:
    """However much is wrong, the answer is within the bound of its message."""
    world = World()

    def load() -> Any:
        raise ReloadRefused("\n".join(f"smtpd.conf:{line}: nonsense" for line in range(1000)))

    world.load = load
    world.reload()
    m.Done(1, *world.answers[0])
    assert len(world.answers[0][1]) < 2048


def listener(port: int, address: str = "127.0.0.1") -> ListenerSettings:
    return ListenerSettings(0, address, port)


def ports(count: int) -> list[int]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [sock.getsockname()[1] for sock in held]
    for sock in held:
        sock.close()
    return found


def test_listeners_that_stay_are_the_same_socket() -> None:
    """New addresses are bound, gone ones closed, and one that stays is not touched."""
    one, two = ports(2)
    listeners = Listeners()
    (first,) = listeners.prepare([listener(one)])
    listeners.adopt()
    both = listeners.prepare([listener(two), listener(one)])
    assert both[1] is first
    listeners.adopt()
    assert listeners.prepare([listener(two)]) == (both[0],)
    listeners.adopt()
    assert first.fileno() == -1 and both[0].fileno() >= 0
    both[0].close()


def test_listeners_that_cannot_be_had_bind_none() -> None:
    """One address in use: what was bound for this configuration is closed, what serves stays."""
    one, two = ports(2)
    listeners = Listeners()
    (first,) = listeners.prepare([listener(one)])
    listeners.adopt()
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ListenError, match="in use"):
        listeners.prepare([listener(one), listener(two), listener(taken.getsockname()[1])])
    with pytest.raises(ListenError, match="twice"):
        listeners.prepare([listener(two), listener(two)])
    (again,) = listeners.prepare([listener(two)])  # it is free again
    listeners.abandon()
    assert again.fileno() == -1 and first.fileno() >= 0
    assert listeners.prepare([listener(one)]) == (first,)
    first.close()
