"""One table program: requests in flight, and every one of them answered, whatever the program does."""

from collections.abc import Callable

import pytest
from support.programs import Far

from smtpd_ps.lookup import table_client
from smtpd_ps.lookup.program_pipe import LinePipe
from smtpd_ps.lookup.table_client import Answer, TableClient
from smtpd_ps.pure.table_protocol import Service
from smtpd_ps.runtime.loop import Loop

NEEDED: tuple[tuple[Service, ...], ...] = (("alias",), ("auth", "credentials"))


class World:
    """A client, and the test as its program."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.log: list[str] = []
        self.ends: list[str] = []
        self.answers: list[Answer] = []
        self.client = TableClient(loop, "t", NEEDED, "7.8.0", self.log.append)
        self.start()

    def start(self) -> None:
        self.far = Far()
        pipe = LinePipe(self.loop, *self.far.take(), self.client.line, self._gone)
        self.client.opened(pipe)

    def _gone(self, why: str) -> None:
        self.ends.append(why)
        self.client.gone(why)

    def register(self, *services: str) -> None:
        self.say(*(f"register|{service}" for service in services), "register|ready")

    def say(self, *lines: str) -> None:
        self.far.write("".join(f"{line}\n" for line in lines).encode())
        self.turn()

    def turn(self) -> None:
        for _ in range(5):
            self.loop.turn(0)

    def asked(self) -> list[list[str]]:
        """The requests that came: operation, service, id, key."""
        self.turn()
        return [line.split("|", 7)[4:] for line in self.far.read_lines() if line.startswith("table|")]


@pytest.fixture
def world(loop: Loop) -> World:
    return World(loop)


@pytest.fixture
def ready(world: World) -> World:
    world.register("alias", "auth", "source")
    return world


def test_the_handshake(world: World) -> None:
    """We say who we are, it says what it offers; what is needed and not offered is said."""
    world.turn()
    assert world.far.read_lines() == [
        "config|smtpd-version|7.8.0", "config|protocol|0.1", "config|tablename|t", "config|ready",
    ]  # fmt: skip
    assert world.client.greeting and not world.client.ready
    world.register("domain", "credentials")
    assert world.client.ready and world.client.lacks == ("alias",)
    assert world.log == ["table t does not offer service alias"]


@pytest.mark.parametrize("lines", [["register|ready"], ["hello"], ["register|nonsense"]])
def test_a_bad_handshake_ends_it(world: World, lines: list[str]) -> None:
    """No service, no protocol, an unknown service."""
    world.say(*lines)
    assert len(world.ends) == 1 and not world.client.running


def test_many_requests_are_in_flight_and_answered_in_any_order(ready: World) -> None:
    """Each answer finds its own by its id, which may be written in any way."""
    got: dict[str, Answer] = {}
    for key in ("a", "b", "c"):
        ready.client.lookup("alias", key, lambda answer, key=key: got.setdefault(key, answer))  # type: ignore[misc]
    ready.client.fetch("source", lambda answer: got.setdefault("next", answer))
    ready.client.update(lambda answer: got.setdefault("update", answer))
    asked = ready.asked()
    assert [each[:2] for each in asked[:4]] == [["lookup", "alias"]] * 3 + [["fetch", "source"]]
    ids = [each[2] for each in asked[:4]] + [asked[4][1]]
    assert len(set(ids)) == 5 and ready.client.in_flight == 5
    ready.say(
        f"lookup-result|{ids[2].lstrip('0') or '0'}|not-found",
        f"update-result|{ids[4]}|ok",
        f"lookup-result|{ids[0].upper()}|found|x|y",
        f"lookup-result|{ids[3]}|found|192.0.2.1",
        f"lookup-result|{ids[1]}|error|no database",
    )
    assert got == {
        "a": Answer("found", "x|y"),
        "b": Answer("error", "", "table t: no database"),
        "c": Answer("not-found"),
        "next": Answer("found", "192.0.2.1"),
        "update": Answer("found"),
    }
    assert ready.client.in_flight == 0 and ready.ends == []
    assert len(ready.client.latencies_secs) == 5


def test_services_that_are_not_registered_are_not_asked(ready: World) -> None:
    """OpenSMTPD asks all the same; here it is an error at once."""
    ready.client.check("domain", "example.com", ready.answers.append)
    assert ready.asked() == []
    assert ready.answers == [Answer("error", "", "table t: it does not offer service domain")]


@pytest.mark.parametrize("key", ["a\nb", "x" * 5000])
def test_a_key_that_no_line_can_hold_is_in_no_table(ready: World, key: str) -> None:
    """Nothing is sent."""
    ready.client.check("auth", key, ready.answers.append)
    assert ready.asked() == []
    assert ready.answers == [Answer("not-found")]


def test_an_error_of_a_password_check_is_not_repeated(ready: World) -> None:
    """The program may have put the password into its message."""
    ready.client.check("auth", "bob:secret", ready.answers.append)
    ((_operation, _service, number, _key),) = ready.asked()
    ready.say(f"check-result|{number}|error|cannot check bob:secret")
    assert ready.answers == [Answer("error", "", "table t: it failed")]


@pytest.mark.parametrize(
    "answer", ["lookup-result|{other}|found|x", "check-result|{id}|found", "lookup-result|{id}|ok", "rubbish", ""]
)
def test_an_answer_that_is_none_ends_it(ready: World, answer: str) -> None:
    """A wrong id, the wrong operation, no protocol: what was asked fails, and the program is given up."""
    ready.client.lookup("alias", "a", ready.answers.append)
    ((_operation, _service, number, _key),) = ready.asked()
    ready.say(answer.format(id=number, other=f"{(int(number, 16) + 1) % 2**32:08x}"))
    assert len(ready.ends) == 1
    assert [each.status for each in ready.answers] == ["error"]
    assert ready.client.in_flight == 0


def test_a_second_answer_ends_it(ready: World) -> None:
    """The first one counted."""
    ready.client.lookup("alias", "a", ready.answers.append)
    ((_operation, _service, number, _key),) = ready.asked()
    ready.say(f"lookup-result|{number}|found|x", f"lookup-result|{number}|found|y")
    assert ready.answers == [Answer("found", "x")]
    assert ready.ends == ["an answer to nothing that was asked, or a second one"]


def test_what_was_asked_of_a_program_that_ends_fails_and_the_next_run_answers(ready: World) -> None:
    """Nobody waits for ever; between two runs the answer is an error at once."""
    ready.client.lookup("alias", "a", ready.answers.append)
    ready.asked()
    ready.far.close_output()
    ready.turn()
    ready.client.lookup("alias", "b", ready.answers.append)
    ready.turn()
    assert [each.why for each in ready.answers] == [
        "table t: it has closed its output", "table t: it does not run now",
    ]  # fmt: skip
    ready.start()
    ready.register("alias", "auth")
    ready.client.lookup("alias", "c", ready.answers.append)
    ((_operation, _service, number, _key),) = ready.asked()
    ready.say(f"lookup-result|{number}|found|x")
    assert ready.answers[-1] == Answer("found", "x")


def test_a_late_answer_is_an_error_and_may_still_come(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is dropped, and does no harm; who answers nothing at all for long is given up."""
    monkeypatch.setattr(table_client, "PATIENCE_SECS", 0.01)
    monkeypatch.setattr(table_client, "SILENCE_SECS", 0.03)
    world = World(loop)
    world.register("alias", "auth")
    world.client.lookup("alias", "a", world.answers.append)
    ((_operation, _service, number, _key),) = world.asked()
    wait(world, lambda: len(world.answers) == 1)
    assert world.answers == [Answer("error", "", "table t: no answer within 0 s")]
    world.say(f"lookup-result|{number}|found|x")
    assert len(world.answers) == 1 and world.ends == []

    def ask_again() -> bool:
        if not world.client.in_flight:
            world.client.lookup("alias", "b", world.answers.append)
        return bool(world.ends)

    wait(world, ask_again)
    assert world.ends == ["it has answered nothing for 0 s"]


def test_a_program_that_does_not_read_gets_no_more(ready: World) -> None:
    """Memory is bounded: beyond a mark the answer is an error at once."""
    key = "k" * 2000
    while ready.client.running and not ready.answers:
        for _ in range(50):
            ready.client.lookup("alias", key, ready.answers.append)
        ready.loop.turn(0)
    assert ready.answers[0].status == "error"
    assert "does not read" in ready.answers[0].why


def wait(world: World, condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        world.loop.turn(0.01)
    raise AssertionError("never")
