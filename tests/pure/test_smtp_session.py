"""pure/smtp_session: rules that hold whatever a client, lookup and queue do."""

import itertools
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from smtp_dialogue import FakeWorld, make_service

from smtpd_ps.contract import messages as m
from smtpd_ps.pure.smtp_replies import MAX_TEXT, quoted, reply
from smtpd_ps.pure.smtp_service import State, UnexpectedAnswer
from smtpd_ps.pure.smtp_session import MAX_ACTIONS, MAX_WAITING, ServerSession

REPLY = re.compile(rb"(?:[2-5][0-9][0-9][ -][ -~]*\r\n)*")

COMMANDS = [
    b"EHLO x", b"HELO x", b"MAIL FROM:<a@b.example>", b"MAIL FROM:<>", b"RCPT TO:<a@example.com>",
    b"RCPT TO:<bad@example.com>", b"RCPT TO:<>", b"DATA", b"RSET", b"NOOP", b"HELP", b"STARTTLS", b"AUTH PLAIN",
    b"AUTH LOGIN", b"AUTH PLAIN AHVzZXIAc2VjcmV0", b"*", b".", b"A: b", b"", b"junk", b"\n", b"\r", b"\0", b"\xff",
    b"MAIL FROM:<a@b.example> SIZE=5", b"QUIT", b"dXNlcg==", b"c2VjcmV0",
]  # fmt: skip
STREAM = st.lists(st.sampled_from(COMMANDS), max_size=25).map(lambda lines: b"".join(line + b"\r\n" for line in lines))


def run(wire: bytes, cuts: list[int]) -> FakeWorld:
    """A session that hears `wire` cut at `cuts`; handshakes succeed, delays pass."""
    world = FakeWorld(make_service(auth="optional", max_errors=12))
    world.start()
    edges = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    for begin, end in itertools.pairwise(edges):
        if world.closed:
            break
        world.say(wire[begin:end])
        while world.waiting and not world.closed:
            world.waiting -= 1
            world.do(world.session.wait_over())
    return world


@settings(deadline=None)
@given(STREAM, st.lists(st.integers(0, 500), max_size=10))
def test_any_client(wire: bytes, cuts: list[int]) -> None:
    """Replies are well-formed, the session's end is told once, and nothing is stored that was not committed."""
    world = run(wire, cuts)
    assert REPLY.fullmatch(world.received)
    if not world.closed:
        world.do(world.session.disconnected(""))
    while world.held and any(world.held.values()):
        for kind, answers in world.held.items():
            if answers:
                world.release(kind)
    assert world.session.finished
    assert [type(one) for one in world.sent].count(m.SessionEnd) == 1
    assert type(world.sent[-1]) is m.SessionEnd
    asked = {one.transaction for one in world.sent if isinstance(one, m.RcptRequest)}
    ended = [one.transaction for one in world.sent if isinstance(one, m.Commit | m.Abort)]
    assert len(ended) == len(set(ended))
    assert set(ended) <= asked


@settings(deadline=None)
@given(STREAM.filter(lambda wire: b"STARTTLS" not in wire and b"\n\r\n" not in wire), st.lists(st.integers(0, 500)))
def test_replies_do_not_depend_on_segments(wire: bytes, cuts: list[int]) -> None:
    """The same bytes get the same replies however the network cuts them."""
    assert run(wire, cuts).received == run(wire, []).received


@settings(deadline=None)
@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=5))
def test_any_bytes(wire: bytes, cuts: list[int]) -> None:
    """Noise gets refusals."""
    assert REPLY.fullmatch(run(wire, cuts).received)


def test_a_flood_of_commands_while_an_answer_is_due_stops_the_reading() -> None:
    """What waits for its turn is bounded: wants_data says stop."""
    world = FakeWorld(make_service(), hold={"rcpt"})
    world.start()
    world.say(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.com>\r\n")
    assert world.session.wants_data
    world.say(b"NOOP\r\n" * (MAX_WAITING // 6 + 1))
    assert not world.session.wants_data
    world.release("rcpt")
    assert world.session.wants_data


def test_a_segment_full_of_commands_rests_between() -> None:
    """Others have their turn after MAX_ACTIONS; no byte is read and no line is handled meanwhile."""
    world = FakeWorld(make_service(), hold={"rest"})
    world.start()
    world.say(b"EHLO x\r\n")
    world.lines()
    world.say(b"NOOP\r\n" * (2 * MAX_ACTIONS + 1) + b"QUIT\r\n")
    for expected in (MAX_ACTIONS, MAX_ACTIONS):
        assert not world.session.wants_data
        assert world.lines() == ["250 2.0.0 Ok"] * expected
        world.release("rest")
    assert world.lines() == ["250 2.0.0 Ok", "221 2.0.0 Bye"]
    assert world.closed


def test_a_session_may_end_while_it_rests() -> None:
    """The client leaves, or the daemon stops: nothing of what waited is handled."""
    world = FakeWorld(make_service(), hold={"rest"})
    world.start()
    world.say(b"EHLO x\r\n" + b"NOOP\r\n" * 1000)
    world.do(world.session.disconnected(""))
    world.release("rest")
    assert world.session.finished
    assert len(world.lines()) < MAX_ACTIONS + 12


@pytest.mark.parametrize("number", [-1, 1, 5])
def test_answers_to_recipients_nobody_asked_about(number: int) -> None:
    """They are a violation, and so is a second answer or one to another transaction."""
    world = FakeWorld(make_service(), hold={"rcpt"})
    world.start()
    world.say(b"EHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.com>\r\n")
    with pytest.raises(UnexpectedAnswer):
        world.session.rcpt_answer(1, number, 250, "", (7, 1))
    with pytest.raises(UnexpectedAnswer):
        world.session.rcpt_answer(2, 0, 250, "", (7, 1))
    world.release("rcpt")
    with pytest.raises(UnexpectedAnswer):
        world.session.rcpt_answer(1, 0, 250, "", (7, 1))


@pytest.mark.parametrize("answer", ["committed", "auth", "file", "refused"])
def test_answers_in_the_wrong_state(answer: str) -> None:
    """A session that waits for a command takes no other answer."""
    session = ServerSession(make_service(), 1, "192.0.2.1")
    session.begin()
    assert session.state is State.COMMAND
    with pytest.raises(UnexpectedAnswer):
        match answer:
            case "committed":
                session.committed(1, 250, "")
            case "auth":
                session.auth_reply("ok")
            case "file":
                session.file_opened()
            case "refused":
                session.file_refused("")


@settings(deadline=None)
@given(st.integers(200, 599), st.text())
def test_reply_lines_are_clean(code: int, text: str) -> None:
    """Whatever another process or a client put into a text, the reply is one printable line within 512 bytes."""
    line = reply(code, text)
    assert re.fullmatch(rb"[0-9]{3} [ -~]*\r\n", line)
    assert len(line) <= MAX_TEXT + 6 <= 512


@settings(deadline=None)
@given(st.text())
def test_quotes_are_escaped(text: str) -> None:
    """A quoted text cannot end its quotes."""
    assert not re.search(r'(?<!\\)(?:\\\\)*"', quoted(text))
