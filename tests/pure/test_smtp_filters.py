"""Filters in the SMTP session: junk, and answers out of place."""

import pytest
from smtp_dialogue import FakeWorld, make_service

from smtpd_ps.contract.settings import FILTER_PHASES
from smtpd_ps.pure.smtp_service import UnexpectedAnswer

MAIL = b"MAIL FROM:<a@b.example>\r\n"
RCPT = b"RCPT TO:<b@example.com>\r\n"
MESSAGE = b"X-Spam: Yes\r\nSubject: x\r\n\r\nbody\r\n.\r\n"


def world(*phases: str, **answers: str) -> FakeWorld:
    """A session whose filters answer as told, phases with `_` for `-`."""
    made = FakeWorld(make_service(filter_phases=sum(1 << FILTER_PHASES.index(each) for each in phases)))
    made.filters = {phase.replace("_", "-"): (decision, "") for phase, decision in answers.items()}
    made.start()
    made.say(b"HELO x.example\r\n")
    return made


def junk(stored: bytes) -> bool:
    """Whether the mark is at the very top, above Received."""
    assert stored.count(b"Received: ") == 1
    return stored.startswith(b"X-Spam: Yes\r\nReceived: ")


def send(world: FakeWorld) -> bytes:
    world.say(MAIL)
    world.say(RCPT)
    world.say(b"DATA\r\n")
    world.say(MESSAGE)
    return world.stored[-1]


@pytest.mark.parametrize("phase", ["connect", "helo"])
def test_junk_of_the_session_marks_every_mail(phase: str) -> None:
    """Decided before there is a mail, it holds for all of the session; the client's own mark stays below."""
    session = world(phase, **{phase: "junk"})
    assert junk(send(session))
    assert junk(send(session))


@pytest.mark.parametrize("phase", ["mail-from", "rcpt-to", "data"])
def test_junk_of_a_mail_marks_that_mail(phase: str) -> None:
    """Decided about a mail, it is forgotten with it: after its end, after RSET."""
    session = world(phase, **{phase.replace("-", "_"): "junk"})
    assert junk(send(session))
    session.filters.clear()
    assert not junk(send(session))
    session.filters[phase] = ("junk", "")
    session.say(MAIL + RCPT)
    session.say(b"RSET\r\n")
    session.filters.clear()
    assert not junk(send(session))


def test_a_sender_refused_after_junk_leaves_nothing_behind() -> None:
    """A rewrite or an option that is refused after the filters were asked does not mark the next mail."""
    session = world("mail-from", mail_from="junk")
    session.say(b"MAIL FROM:<a@b.example> FOO=bar\r\n")
    session.filters.clear()
    assert not junk(send(session))


def test_answers_that_nobody_asked_for() -> None:
    """Lookup would be broken: a wrong number, or an answer while a command is awaited."""
    session = world("ehlo")
    with pytest.raises(UnexpectedAnswer):
        session.session.filter_answer(1, "proceed", "")
    session.hold.add("filter")
    session.say(b"EHLO x.example\r\n")
    with pytest.raises(UnexpectedAnswer):
        session.session.filter_answer(2, "proceed", "")
    session.release("filter")
    with pytest.raises(UnexpectedAnswer):
        session.session.filter_answer(1, "proceed", "")
