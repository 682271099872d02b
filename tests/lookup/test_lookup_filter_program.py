"""One filter program, as lookup speaks to it: registration, patience, sessions of earlier runs, messages."""

import pytest
from support.programs import Far

from smtpd_ps.contract.messages.filters import FILTER_BACK_WINDOW_BYTES, FILTER_WINDOW_BYTES, FilterCredit, FilterData
from smtpd_ps.lookup.filter_program import FilterProgram
from smtpd_ps.lookup.filter_stream import FilterStream
from smtpd_ps.lookup.program_pipe import LinePipe
from smtpd_ps.pure.filter_protocol import Result
from smtpd_ps.runtime.loop import Loop

REGISTER = (
    b"register|filter|smtp-in|ehlo\nregister|filter|smtp-in|data-line\nregister|report|smtp-in|*\nregister|ready\n"
)


class World:
    """A program, its far end, and what came of it."""

    def __init__(self, loop: Loop, patience_secs: float = 60.0) -> None:
        self.loop = loop
        self.told: list[tuple[int, str, str]] = []
        self.ends: list[str] = []
        self.answers: list[Result | None] = []
        self.sent: list[FilterData | FilterCredit] = []
        self.program = FilterProgram(
            loop, "p", "here.example", lambda *said: self.told.append(said), patience_secs, clock=lambda: 1.5
        )
        self.program.present = {7: None}
        self.fars: list[Far] = []

    def open(self, registered: bool = True) -> Far:
        """A new run."""
        far = Far()
        self.fars.append(far)
        self.program.opened(LinePipe(self.loop, *far.take(), self.program.line, self._gone))
        if registered:
            far.write(REGISTER)
            self.turn()
            assert self.program.ready
            far.read_lines()
        return far

    def _gone(self, why: str) -> None:
        self.ends.append(why)
        self.program.gone(why)

    def ask(self, number: int, session: int = 7) -> None:
        self.program.ask(number, session, "ehlo", ("x.example",), self.answers.append)

    def stream(self, number: int) -> FilterStream:
        made = FilterStream(self.loop, 7, 1, self.sent.append, FILTER_WINDOW_BYTES, lambda: None)
        assert made.begin([(self.program, number)])
        return made

    def turn(self, count: int = 6) -> None:
        for _ in range(count):
            self.loop.turn(0)

    def turn_until_it_ends(self) -> None:
        for _ in range(200):
            if self.ends:
                return
            self.loop.turn(0.05)
        raise AssertionError("it was not given up")


@pytest.fixture
def world(loop: Loop) -> World:
    return World(loop)


def test_a_request_and_its_answer(world: World) -> None:
    """Asked with a token, answered once; what it does not want is not asked."""
    far = world.open()
    number = world.program.session_number()
    world.ask(number)
    world.turn()
    (line,) = far.read_lines()
    head, session, token, parameter = line.rsplit("|", 3)
    assert head == "filter|0.7|1.500000|smtp-in|ehlo"
    assert (session, parameter) == ("0000000000000007", "x.example")
    far.write(f"filter-result|{session}|{token}|reject|550 no\n".encode())
    world.turn()
    assert world.answers == [Result(7, int(token, 16), "reject", "550 no")]
    figures = world.program.figures()
    assert (figures.state, figures.in_flight, figures.asked, figures.failed) == ("running", 0, 1, 0)
    assert len(figures.latencies_secs) == 1
    assert figures.offers.startswith("ehlo data-line link-connect ")
    world.program.ask(number, 7, "helo", ("x",), world.answers.append)
    assert world.answers[1] == Result(7, 0, "proceed")
    assert far.read_lines() == []


def test_what_comes_before_it_has_registered_waits(world: World) -> None:
    """Reports and requests, in their order; a program that never ran is known by nothing."""
    assert world.program.wants("commit")
    number = world.program.session_number()
    world.ask(number)
    assert world.answers == [None]
    far = world.open(registered=False)
    number = world.program.session_number()
    world.program.report(number, "link-connect", 7, ("a", "b"))
    world.ask(number)
    world.turn()
    assert far.read_lines()[-1] == "config|ready"
    far.write(REGISTER)
    world.turn()
    first, second = far.read_lines()
    assert first == "report|0.7|1.500000|smtp-in|link-connect|0000000000000007|a|b"
    assert "|ehlo|" in second
    assert not world.program.wants("commit")


def test_a_later_run_knows_only_later_sessions(world: World) -> None:
    """Requests and reports of sessions that began with the run before fail, or are dropped."""
    first = world.open()
    old = world.program.session_number()
    first.close_output()
    world.turn()
    assert world.ends == ["it has closed its output"]
    second = world.open()
    world.ask(old)
    world.program.report(old, "timeout", 7, ())
    assert world.answers == [None]
    assert world.program.enter(old, 7, None) is None  # type: ignore[arg-type]
    new = world.program.session_number()
    world.program.report(new, "timeout", 7, ())
    world.turn()
    assert second.read_lines() == ["report|0.7|1.500000|smtp-in|timeout|0000000000000007"]


def test_what_it_owes_fails_with_it(world: World) -> None:
    """A request and a message under way."""
    far = world.open()
    number = world.program.session_number()
    world.ask(number)
    stream = world.stream(number)
    stream.feed(b"a\r\n", False)
    far.close_output()
    world.turn()
    assert world.answers == [None]
    assert (world.program.figures().state, world.program.figures().failed) == ("not running", 2)
    assert isinstance(world.sent[-1], FilterData)
    assert world.sent[-1].last
    assert world.sent[-1].refusal.startswith("451 ")


@pytest.mark.parametrize("what", ["request", "message", "registration"])
def test_patience(loop: Loop, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that says nothing for too long is given up."""
    monkeypatch.setattr("smtpd_ps.lookup.filter_program.REGISTER_SECS", 0.05)
    world = World(loop, 0.05)
    world.open(registered=what != "registration")
    number = world.program.session_number()
    if what == "request":
        world.ask(number)
    elif what == "message":
        world.stream(number).feed(b"a\r\n", True)
    world.turn_until_it_ends()


@pytest.mark.parametrize(
    "line",
    [
        b"rubbish\n", b"filter-result|0000000000000007|0000000000000001|proceed\n", b"register|ready\n",
        b"filter-result|0000000000000007|00000000000000ff|proceed\n",
    ],
)  # fmt: skip
def test_what_no_program_may_say(world: World, line: bytes) -> None:
    """It is given up; an answer about a session that is over is not held against it."""
    far = world.open()
    far.write(b"filter-result|0000000000000099|0000000000000001|proceed\n")
    far.write(b"filter-dataline|0000000000000099|0000000000000001|x\n")
    world.turn()
    assert world.ends == []
    far.write(line)
    world.turn()
    assert len(world.ends) == 1


def test_a_session_that_is_over_is_not_answered(world: World) -> None:
    """Whoever asked has gone."""
    far = world.open()
    world.ask(world.program.session_number())
    world.turn()
    token = far.read_lines()[0].split("|")[6]
    world.program.forget(7)
    world.program.present = {}
    far.write(f"filter-result|0000000000000007|{token}|proceed\n".encode())
    world.turn()
    assert world.answers == []
    assert world.ends == []


def test_a_message_passes_and_credit_is_given(world: World) -> None:
    """Dots doubled on their way, lines put together from pieces, and credit for what the program took."""
    far = world.open()
    stream = world.stream(world.program.session_number())
    stream.feed(b"one\r\n.t", False)
    stream.feed(b"wo\r\n\r\n", False)
    stream.feed(b"", True)
    world.turn()
    lines = far.read_lines()
    assert [line.split("|", 7)[7] for line in lines] == ["one", "..two", "", "."]
    granted = sum(each.size_bytes for each in world.sent if isinstance(each, FilterCredit))
    assert granted >= len("one\r\n.two\r\n\r\n")
    session, token = lines[0].split("|")[5:7]
    for text in ("zero", "..two", "a\rb\r", "."):
        far.write(f"filter-dataline|{session}|{token}|{text}\n".encode())
    world.turn()
    data = [each for each in world.sent if isinstance(each, FilterData)]
    assert b"".join(each.data for each in data) == b"zero\r\n.two\r\nab\r\n"
    assert [each.last for each in data][-1]


def test_output_that_nobody_takes_is_not_read(world: World) -> None:
    """Beyond what smtp grants, a program's output stays in its pipe; with credit it goes on, and all arrives."""
    far = world.open()
    stream = world.stream(world.program.session_number())
    stream.feed(b"x\r\n", True)
    world.turn()
    session, token = far.read_lines()[0].split("|")[5:7]
    line = f"filter-dataline|{session}|{token}|{'y' * 990}\n".encode() * 30
    written = 0
    for _ in range(17):  # and what is not read fits into the pipe
        far.write(line)
        world.turn(1)
        written += 30 * 992
    taken = sum(len(each.data) for each in world.sent if isinstance(each, FilterData))
    assert taken <= FILTER_BACK_WINDOW_BYTES
    far.write(f"filter-dataline|{session}|{token}|.\n".encode())
    for _ in range(40):
        stream.credit(FILTER_BACK_WINDOW_BYTES)
        world.turn(2)
    data = [each for each in world.sent if isinstance(each, FilterData)]
    assert sum(len(each.data) for each in data) == written
    assert data[-1].last
