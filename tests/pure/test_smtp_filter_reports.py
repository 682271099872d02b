"""What filters are told of an SMTP session, in which order (QUIRKS 54 to 56), and messages that pass through them."""

import base64

import pytest
from smtp_dialogue import FakeWorld, make_service

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.messages.filters import FILTER_CHUNK_BYTES, FILTER_WINDOW_BYTES
from smtpd_ps.contract.settings import FILTER_EVENTS, FILTER_PHASES, FilterPhase
from smtpd_ps.pure.smtp_service import State, UnexpectedAnswer

PHASES = sum(1 << FILTER_PHASES.index(phase) for phase in ("mail-from", "data", "data-line"))
EVENTS = (1 << len(FILTER_EVENTS)) - 1
GREETED = b"EHLO x.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<b@example.com>\r\n"


def world(events: int = EVENTS, phases: int = 0, **more: object) -> FakeWorld:
    """A session whose filters want these events and phases."""
    service = make_service(filter_phases=1 << FILTER_PHASES.index("noop"), filter_programs=True, **more)
    assert service.hooks is not None
    service.hooks.events, service.hooks.phases = events, phases
    made = FakeWorld(service)
    made.start()
    return made


def told(world: FakeWorld, *left_out: str) -> list[str]:
    """The reports since the last look, without those of protocol lines and answers."""
    reports = [each for each in world.sent if isinstance(each, m.FilterReport)]
    world.sent.clear()
    plain = ("protocol-client", "protocol-server", "filter-response", *left_out)
    return ["|".join((each.event, *each.parameters)) for each in reports if each.event not in plain]


def lines(world: FakeWorld, event: str) -> list[str]:
    reports = [each for each in world.sent if isinstance(each, m.FilterReport) and each.event == event]
    world.sent.clear()
    return [each.parameters[0] for each in reports]


def test_nothing_is_told_that_nobody_wants() -> None:
    """A filter that wants no report costs none."""
    quiet = world(events=0)
    quiet.say(GREETED + b"DATA\r\nA: b\r\n\r\n.\r\nQUIT\r\n")
    assert not any(isinstance(each, m.FilterReport) for each in quiet.sent)


def test_a_session_under_tls_with_a_password() -> None:
    """link-tls comes before what is said under TLS; passwords and users are never told, but whose it was is."""
    secured = world(auth="require", tls="implicit")
    secured.do(secured.session.tls_started("TLSv1.3:X:256", False))
    assert told(secured) == ["link-connect|192.0.2.1|192.0.2.9:25", "link-tls|TLSv1.3:X:256",
                             f"link-greeting|{secured.service.hostname}"]  # fmt: skip
    wrong = base64.b64encode(b"\0bob\0wrong").decode()
    secured.say(f"EHLO x.example\r\nAUTH PLAIN {wrong}\r\n".encode())
    assert told(secured) == ["link-identify|EHLO|x.example", "link-auth|fail|bob"]
    secured.do(secured.session.wait_over())
    secured.sent.clear()
    right = base64.b64encode(b"secret")
    secured.say(b"AUTH LOGIN\r\nYm9i\r\n" + right + b"\r\n")
    assert lines(secured, "protocol-client") == ["AUTH LOGIN", "********", "********"]
    secured.say(b"auth plain AGJvYgBzZWNyZXQ=\r\n")
    assert lines(secured, "protocol-client") == ["auth plain ********"]


def test_each_line_of_a_reply_is_told_before_it_is_sent() -> None:
    """And the greeting waits until lookup has said who the client is."""
    session = world()
    assert lines(session, "protocol-server") == [f"220 {session.service.hostname} ESMTP smtpd_ps"]
    session.say(b"EHLO x.example\r\n")
    replies = lines(session, "protocol-server")
    assert replies == [line for line in session.lines()[1:] if line]
    assert replies[-1] == "250 HELP"


@pytest.mark.parametrize("end", ["QUIT", "gone", "EHLO", "RSET"])
def test_a_transaction_that_is_given_up(end: str) -> None:
    """It is rolled back and reset, before the session's own end."""
    session = world()
    session.say(GREETED)
    assert told(session)[2:] == [
        "link-identify|EHLO|x.example", "tx-begin|00000001", "tx-mail|00000001|ok|a@b.example",
        "tx-envelope|00000001|0000000100000007", "tx-rcpt|00000001|ok|b@example.com",
    ]  # fmt: skip
    if end == "gone":
        session.do(session.session.disconnected(""))
    else:
        session.say(f"{end}{' y.example' if end == 'EHLO' else ''}\r\n".encode())
    rest = {"EHLO": ["link-identify|EHLO|y.example"], "RSET": []}.get(end, ["link-disconnect"])
    assert told(session) == ["tx-rollback|00000001", "tx-reset|00000001", *rest]


def test_refusals() -> None:
    """A bad sender is no transaction; recipients are told with their result, a bad message as a second tx-data."""
    session = world()
    session.say(b"HELO x\r\nMAIL FROM:<a@@b>\r\n")
    assert told(session, "link-connect", "link-greeting") == ["link-identify|HELO|x"]
    session.say(b"MAIL FROM:<>\r\nRCPT TO:<bad@x.example>\r\nRCPT TO:<later@x.example>\r\nRCPT TO:<b@x.example>\r\n")
    assert told(session)[2:] == [
        "tx-rcpt|00000001|permfail|bad@x.example", "tx-rcpt|00000001|tempfail|later@x.example",
        "tx-envelope|00000001|0000000100000007", "tx-rcpt|00000001|ok|b@x.example",
    ]  # fmt: skip
    session.say(b"DATA\r\nno header\r\n.\r\n")
    assert told(session) == [
        "tx-data|00000001|ok", "tx-data|00000001|permfail", "tx-rollback|00000001", "tx-reset|00000001",
    ]  # fmt: skip


def test_refusals_before_anybody_is_asked() -> None:
    """Of a command that names an address, within a transaction; a second MAIL is told as of the first."""
    session = world()
    session.say(GREETED)
    told(session)
    session.say(b"MAIL FROM:<c@b.example>\r\nRCPT TO:<b@@c>\r\nRCPT TO:nobody\r\nWHAT <x>\r\n")
    assert told(session) == ["tx-mail|00000001|permfail|c@b.example", "tx-rcpt|00000001|permfail|b@@c"]


@pytest.mark.parametrize("answer", ["reject", "disconnect"])
@pytest.mark.parametrize(("phase", "event"), [("rcpt-to", "tx-rcpt"), ("data", "tx-data"), ("commit", "tx-data")])
def test_refusals_by_a_filter(phase: FilterPhase, event: str, answer: str) -> None:
    """After the reply, once, also where replies wait for recipients; a lost connection gives the mail up."""
    session = world(phases=1 << FILTER_PHASES.index(phase))
    session.say(b"EHLO x.example\r\nMAIL FROM:<a@b.example>\r\n")
    if phase != "rcpt-to":
        session.say(b"RCPT TO:<b@example.com>\r\n")
    session.filters[phase] = (answer, "550 no")
    session.sent.clear()
    session.say(b"RCPT TO:<b@example.com>\r\n" if phase == "rcpt-to" else b"DATA\r\n")
    if phase == "commit":
        session.say(b"A: b\r\n\r\n.\r\n")
    address = "|b@example.com" if phase == "rcpt-to" else ""
    ended = answer == "disconnect"
    over = ["tx-rollback|00000001", "tx-reset|00000001"] if ended or phase == "commit" else []
    assert told(session, "link-disconnect") == [
        *(["tx-data|00000001|ok"] if phase == "commit" else []), f"{event}|00000001|permfail{address}", *over,
    ]  # fmt: skip


def test_each_envelope_of_a_recipient_is_told() -> None:
    """Before the reply to RCPT; the lower halves of their ids count round, as in queue."""
    session = world()
    session.say(b"HELO x\r\nMAIL FROM:<a@b.example>\r\n")
    session.sent.clear()
    session.say(b"RCPT TO:<two@x.example>\r\n")
    reports = [each.event for each in session.sent if isinstance(each, m.FilterReport)]
    assert reports[-4:] == ["tx-envelope", "tx-envelope", "protocol-server", "tx-rcpt"]
    assert told(session) == [
        "tx-envelope|00000001|00000001ffffffff", "tx-envelope|00000001|0000000100000000",
        "tx-rcpt|00000001|ok|two@x.example",
    ]  # fmt: skip


def test_a_silent_client() -> None:
    """timeout, then the end."""
    session = world()
    told(session)
    session.do(session.session.idle())
    assert told(session) == ["timeout", "link-disconnect"]


def test_an_answer_is_told_with_its_text() -> None:
    """And one in a phase that nobody asked for as proceed; a 421 is a disconnect."""
    session = world(phases=PHASES)
    session.filters["mail-from"] = ("rewrite", "<c@d.example>")
    session.filters["data"] = ("reject", "421 busy")
    session.say(GREETED + b"DATA\r\n")
    answers = ["|".join(each.parameters) for each in session.sent
               if isinstance(each, m.FilterReport) and each.event == "filter-response"]  # fmt: skip
    assert answers == [
        "connected|proceed", "ehlo|proceed", "mail-from|rewrite|<c@d.example>", "rcpt-to|proceed",
        "data|disconnect|421 busy",
    ]  # fmt: skip


# Messages that pass through.


def streaming(**more: object) -> FakeWorld:
    made = world(events=0, phases=PHASES, **more)
    made.say(GREETED + b"DATA\r\n")
    assert made.session.state is State.STREAM
    return made


def out(world: FakeWorld) -> bytes:
    """What was sent to lookup since the last look."""
    data = b"".join(each.data for each in world.sent if isinstance(each, m.FilterData))
    assert all(len(each.data) <= FILTER_CHUNK_BYTES for each in world.sent if isinstance(each, m.FilterData))
    return data


def test_received_goes_through_and_what_comes_back_is_stored() -> None:
    """The programs see the message as it would have been stored; their result is, whatever it is."""
    session = streaming()
    session.say(b"Subject: x\r\n\r\n..dot\r\n.\r\nNOOP\r\n")
    assert out(session).startswith(b"Received: from x.example")
    assert out(session).endswith(b"Subject: x\r\n\r\n.dot\r\n")
    last = [each for each in session.sent if isinstance(each, m.FilterData)][-1]
    assert last.last
    assert session.session.state is State.STREAM_WAIT
    session.do(session.session.filter_data(1, b"Added: y\r\nSub", False, ""))
    session.do(session.session.filter_data(1, b"ject: z\r\n\r\n\xe9\r\n", True, ""))
    assert session.stored == [b"Added: y\r\nSubject: z\r\n\r\n\xe9\r\n"]
    assert next(each for each in session.sent if isinstance(each, m.Commit)).eight_bit
    assert session.lines()[-1].startswith("250 ")


def test_no_more_is_sent_than_is_granted() -> None:
    """The client is not read meanwhile; with credit it goes on."""
    session = streaming()
    session.say(b"A: b\r\n\r\n" + b"x\r\n" * 100_000)
    assert len(out(session)) == FILTER_WINDOW_BYTES
    assert not session.session.wants_data
    assert not session.session.waits_for_client
    session.sent.clear()
    session.do(session.session.filter_credit(1, 100_000))
    assert len(out(session)) == 100_000
    session.do(session.session.filter_credit(1, 10**6))
    assert session.session.wants_data


def test_a_large_message_comes_back_while_the_spool_file_is_opened() -> None:
    """It is kept, in order, until the file is there; credit is given for what is stored."""
    session = streaming()
    session.hold.add("file")
    session.do(session.session.filter_credit(1, 10**7))
    body = b"A: b\r\n\r\n" + b"y" * 70 + b"\r\n"
    session.say(body + b".\r\n")
    pieces = [b"A: b\r\n\r\n" + b"z\r\n" * 10_000] + [bytes([65 + n]) * 30_000 + b"\r\n" for n in range(6)]
    for piece in pieces:
        session.do(session.session.filter_data(1, piece, piece is pieces[-1], ""))
    assert session.stored == []
    session.release("file")
    assert session.stored == [b"".join(pieces)]
    granted = sum(each.size_bytes for each in session.sent if isinstance(each, m.FilterCredit))
    assert 0 < granted <= sum(map(len, pieces))


def test_a_message_that_programs_lose() -> None:
    """Refused once its end is there, at once or later; nothing more of it is sent, and nothing is stored."""
    session = streaming()
    session.say(b"A: b\r\n\r\n" + b"x\r\n" * 10_000)
    session.do(session.session.filter_data(1, b"", True, "451 4.3.0 lost"))
    session.sent.clear()
    assert session.session.wants_data
    session.say(b"x\r\n.\r\nRSET\r\n")
    assert out(session) == b""
    assert session.lines()[-2:] == ["451 4.3.0 lost", "250 2.0.0 Reset state"]
    assert session.stored == []
    session.do(session.session.filter_data(1, b"late\r\n", False, ""))
    session.do(session.session.filter_credit(1, 10))
    assert out(session) == b""


def test_bytes_that_nobody_waits_for() -> None:
    """Lookup would be broken: more after the last."""
    session = streaming()
    session.say(b"A: b\r\n\r\n")
    session.do(session.session.filter_data(1, b"A: b\r\n\r\n", True, ""))
    with pytest.raises(UnexpectedAnswer):
        session.session.filter_data(1, b"more", False, "")


def test_a_program_that_never_ends_a_message() -> None:
    """What comes back is bounded: beyond twice the limit it is refused."""
    session = streaming(max_message_bytes=1000)
    session.say(b"A: b\r\n\r\n.\r\n")
    for _ in range(20):
        session.do(session.session.filter_data(1, b"A: b\r\n" * 5000, False, ""))
    session.do(session.session.filter_data(1, b"", True, ""))
    assert session.lines()[-1].startswith("554 5.3.4 ")
    assert session.stored == []


def test_chunks_are_not_offered_where_programs_see_lines() -> None:
    """BDAT is refused, its bytes swallowed."""
    session = world(events=0)
    session.say(b"EHLO x.example\r\n")
    assert not any("CHUNKING" in line for line in session.lines())
    session.say(b"MAIL FROM:<>\r\nRCPT TO:<b@example.com>\r\nBDAT 4 LAST\r\nNOOPNOOP\r\n")
    assert session.lines()[-2:] == ["503 5.5.1 Invalid command: Command not supported", "250 2.0.0 Ok"]
