"""Computations over tables of programs: run again until all is known, once where nothing must be asked."""

from collections.abc import Callable

import pytest

from smtpd_ps.contract.messages import RcptRequest
from smtpd_ps.contract.settings import ConditionSettings, RuleSettings
from smtpd_ps.contract.values import Dsn
from smtpd_ps.lookup.sessions import Session, Sessions
from smtpd_ps.lookup.table_asking import MAX_ROUNDS, TableAsking
from smtpd_ps.lookup.table_client import Answer
from smtpd_ps.pure.match_rules import UNSURE, Facts, RuleBook
from smtpd_ps.pure.table import TableUnreadable
from smtpd_ps.pure.table_program import Asked, program_table


class Program:
    """Stands for a TableClient: the test answers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.waiting: list[Callable[[Answer], None]] = []

    def check(self, service: str, key: str, done: Callable[[Answer], None]) -> None:
        self.asked.append(("check", service, key))
        self.waiting.append(done)

    def lookup(self, service: str, key: str, done: Callable[[Answer], None]) -> None:
        self.asked.append(("lookup", service, key))
        self.waiting.append(done)

    def answer(self, *answers: Answer) -> None:
        waiting, self.waiting = self.waiting, []
        for done, answer in zip(waiting, answers, strict=True):
            done(answer)


class World:
    """One program, "t", and results."""

    def __init__(self) -> None:
        self.program = Program()
        self.table_asked = Asked()
        self.asking = TableAsking(self.table_asked, {"t": self.program})  # type: ignore[dict-item]
        self.table = program_table("t", self.table_asked)
        self.results: list[object] = []

    def run(self, work: Callable[[], object]) -> None:
        self.asking.run(work, lambda result, heard: self.results.append((result, len(heard))))


@pytest.fixture
def world() -> World:
    return World()


def test_without_a_program_it_is_run_once_and_at_once(world: World) -> None:
    """Nothing is in the way of tables in memory."""
    runs: list[int] = []
    world.run(lambda: runs.append(1))
    assert (runs, world.results, world.program.asked) == ([1], [(None, 0)], [])


def test_a_value_is_asked_for_once_a_request(world: World) -> None:
    """In lower case; the next request asks anew, for the entry may have changed."""
    aliases = world.table.serving("alias")
    world.run(lambda: (aliases.get("Bob"), aliases.entries.get("bob"), "bob" in aliases.entries))
    assert world.program.asked == [("lookup", "alias", "bob")] and world.results == []
    world.program.answer(Answer("found", "carol"))
    assert world.results == [(("carol", "carol", True), 1)]
    world.run(lambda: aliases.get("bob"))
    world.program.answer(Answer("not-found"))
    assert world.results[1] == (None, 1)


def test_one_thing_after_the_other(world: World) -> None:
    """What is asked may depend on what was answered."""
    aliases = world.table.serving("alias")
    world.run(lambda: aliases.get(aliases.get("a") or ""))
    world.program.answer(Answer("found", "b"))
    world.program.answer(Answer("found", "c"))
    assert [key for _, _, key in world.program.asked] == ["a", "b"]
    assert world.results == [("c", 2)]


def test_an_error_is_the_result(world: World) -> None:
    """With what the program, or the client, said."""
    world.run(lambda: world.table.serving("alias").get("a"))
    world.program.answer(Answer("error", "", "table t: no database"))
    ((result, _),) = world.results  # type: ignore[misc]
    assert isinstance(result, TableUnreadable) and str(result) == "table t: no database"


def test_a_computation_without_end_is_ended(world: World) -> None:
    """A program could name another key each time."""
    count = 0

    def work() -> None:
        nonlocal count
        aliases = world.table.serving("alias")
        key = "0"
        while (value := aliases.get(key)) is not None:
            key = value

    world.run(work)
    while world.program.waiting:
        count += 1
        world.program.answer(Answer("found", str(count)))
    ((result, _),) = world.results  # type: ignore[misc]
    assert isinstance(result, TableUnreadable) and count == MAX_ROUNDS


def test_keys_that_rules_compare_are_written_as_opensmtpd_does(world: World) -> None:
    """IPv6 in brackets, the null sender as "@"."""
    for service, key, asked in (
        ("netaddr", "2001:db8::1", "[2001:db8::1]"), ("netaddr", "192.0.2.1", "192.0.2.1"),
        ("netaddr", "local", "local"),
        ("mailaddr", "", "@"), ("mailaddr", "A@B.test", "a@b.test"), ("domain", "example.com", "example.com"),
    ):  # fmt: skip
        world.run(lambda service=service, key=key: world.table.matcher(service)(key))  # type: ignore[misc]
        assert world.program.asked[-1] == ("check", service, asked)
        world.program.answer(Answer("found"))
        assert world.results[-1] == (True, 1)


RULES = (
    RuleSettings((ConditionSettings("from-src", table="t"), ConditionSettings("for-any")), "in", 1),
    RuleSettings((ConditionSettings("from-any"), ConditionSettings("for-any")), "out", 2),
)


class Clients(World):
    """Sessions whose rules ask the program about the client's address."""

    def __init__(self) -> None:
        super().__init__()
        rules = RuleBook(RULES, {"t": self.table}, (), (), "+")
        self.decided: list[tuple[int, str]] = []
        self.sessions = Sessions(rules, self.asking, self._decide)

    def _decide(self, session: Session, request: RcptRequest) -> None:
        rule = session.direct.match(Facts("", False, "", "x@y.test", "y.test"))
        assert rule is not None
        self.decided.append((request.number, "unsure" if rule is UNSURE else rule.action))


def request(number: int) -> RcptRequest:
    return RcptRequest(1, 1, number, "helo", False, "a@b.test", "x@y.test", Dsn())


@pytest.mark.parametrize(
    ("answers", "action"),
    [(("found", "not-found"), "in"), (("not-found", "not-found"), "out"), (("error", "not-found"), "unsure")],
)
def test_recipients_wait_for_what_the_program_says_of_the_client(answers: tuple[str, str], action: str) -> None:
    """Once a session; where it cannot say the recipient gets a 451, and not another rule."""
    world = Clients()
    session = world.sessions.open(1, "192.0.2.1", "")
    assert session is not None and session.held == []
    session.held.append(request(7))
    world.sessions.named(session, "", True)
    assert world.decided == []
    for status in (answers[0], answers[0], answers[1]):
        if world.program.waiting:
            world.program.answer(*(Answer(status) for _ in world.program.waiting))  # type: ignore[arg-type]
    while world.program.waiting:
        world.program.answer(*(Answer(answers[1]) for _ in world.program.waiting))  # type: ignore[arg-type]
    assert world.decided == [(7, action)]
    assert session.held is None


def test_an_answer_for_an_earlier_look_changes_nothing() -> None:
    """The client has authenticated meanwhile; only the newest decision counts."""
    world = Clients()
    session = world.sessions.open(1, "192.0.2.1", "")
    assert session is not None and session.held is not None
    session.held.append(request(1))
    world.sessions.named(session, "", True)
    old, world.program.waiting = world.program.waiting, []
    world.sessions.authenticated(session, "bob")
    for done in old:
        done(Answer("not-found"))
    assert world.decided == []
    while world.program.waiting:
        world.program.answer(*(Answer("found") for _ in world.program.waiting))
    assert world.decided == [(1, "in")]


def test_a_session_of_ours_is_ready_when_all_is_known() -> None:
    """For bounces; without tables of programs it is at once."""
    world = Clients()
    ready: list[Session] = []
    world.sessions.ours(ready.append)
    assert ready == []
    while world.program.waiting:
        world.program.answer(*(Answer("found") for _ in world.program.waiting))
    assert len(ready) == 1
