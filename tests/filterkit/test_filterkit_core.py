"""The core of filters: handshake, reports, requests, messages, and handlers that fail or take their time."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpd_ps.contract.settings import FILTER_EVENTS, FILTER_PHASES
from smtpd_ps.filterkit import (
    Answer,
    Disconnect,
    Filter,
    Junk,
    Message,
    Proceed,
    Reject,
    Report,
    Rewrite,
    Session,
    StopProgram,
)
from smtpd_ps.filterkit import events as e
from smtpd_ps.filterkit.core import Settled
from smtpd_ps.filterkit.filter_core import FilterCore
from smtpd_ps.filterkit.filter_lines import parse_event, parse_request
from smtpd_ps.filterkit.line_buffer import ProtocolError

HANDSHAKE = (
    b"config|smtpd-version|7.8.0\nconfig|protocol|%s\nconfig|smtp-session-timeout|300\nconfig|unheard|of\n"
    b"config|subsystem|smtp-in\nconfig|admd|here.example\nconfig|ready\n"
)


class Spawned:
    """Waits for nothing: the test says how each asynchronous handler ends."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Awaitable[Any], Settled]] = []
        self.cancelled = 0

    def __call__(self, awaitable: Awaitable[Any], settled: Settled) -> Callable[[], None]:
        self.waiting.append((awaitable, settled))

        def cancel() -> None:
            self.cancelled += 1
            self.waiting = [each for each in self.waiting if each[0] is not awaitable]
            awaitable.close()  # type: ignore[attr-defined]
            settled(None, RuntimeError("cancelled"))

        return cancel

    def go(self, index: int = 0) -> None:
        """Run one to its end; it must not wait for anything."""
        awaitable, settled = self.waiting.pop(index)
        try:
            awaitable.send(None)  # type: ignore[attr-defined]
        except StopIteration as end:
            settled(end.value, None)
        except Exception as error:
            settled(None, error)


class World:
    """A core after the handshake."""

    def __init__(self, filter: Filter, version: str = "0.7") -> None:
        self.log: list[str] = []
        self.spawned = Spawned()
        self.core = FilterCore(filter, self.log.append, self.spawned)
        self.registered = self.says(HANDSHAKE % version.encode())

    def says(self, *lines: bytes) -> list[str]:
        """What it writes to these lines."""
        self.core.receive(b"".join(line if line.endswith(b"\n") else line + b"\n" for line in lines))
        return b"".join(self.core.output()).decode("utf-8", "surrogateescape").splitlines()

    def written(self) -> list[str]:
        return b"".join(self.core.output()).decode().splitlines()

    def event(self, name: str, *parameters: str, session: str = "a1") -> list[str]:
        return self.says("|".join(("report", "0.7", "1.5", "smtp-in", name, session, *parameters)).encode())

    def ask(self, phase: str, *parameters: str, session: str = "a1", token: str = "b2") -> list[str]:
        tail = parameters or ("",)
        return self.says("|".join(("filter", "0.7", "1.5", "smtp-in", phase, session, token, *tail)).encode())

    def data(self, *lines: bytes, session: bytes = b"a1") -> list[bytes]:
        """The message that comes out, with the dot."""
        head = b"filter|0.7|1.5|smtp-in|data-line|" + session + b"|b2|"
        out = self.says(*(head + line for line in lines))
        begin = f"filter-dataline|{session.decode()}|b2|"
        assert all(line.startswith(begin) for line in out)
        return [line.removeprefix(begin).encode("utf-8", "surrogateescape") for line in out]


def lines(*names: str) -> list[str]:
    return [f"register|{name.replace(' ', '|smtp-in|')}" for name in sorted(names)] + ["register|ready"]


def test_only_what_there_are_handlers_for_is_registered() -> None:
    """Beside it, the end of sessions, and what keeps up the facts where they are wanted."""

    class One(Filter):
        follows = False

        def filter_rcpt_to(self, session: Session, request: e.RcptTo) -> None: ...

    assert World(One()).registered == lines("report link-disconnect", "filter rcpt-to")
    names = [line.split("|")[3] for line in World(Filter()).registered[:-1]]
    assert {"link-connect", "link-identify", "tx-mail", "link-disconnect"} <= set(names) and "data-line" not in names


def test_the_configuration_is_known_when_the_filter_is_ready() -> None:
    """Also what it does not know is taken without complaint."""
    seen = []

    class One(Filter):
        def ready(self) -> None:
            seen.append(self.config)

    World(One())
    assert (seen[0].smtpd_version, seen[0].session_timeout_secs, seen[0].admd) == ("7.8.0", 300, "here.example")
    assert seen[0].subsystems == ("smtp-in",)


@pytest.mark.parametrize("version", ["0.4", "0.8", "1.0", ""])
def test_other_protocols_are_refused(version: str) -> None:
    """A line that says so, before anything is registered."""
    with pytest.raises(ProtocolError, match=r"speaks 0\.5, 0\.6, 0\.7"):
        World(Filter(), version)


def test_a_filter_may_refuse_to_begin() -> None:
    """What it raises in ready comes through."""

    class One(Filter):
        def ready(self) -> None:
            raise StopProgram("no key")

    with pytest.raises(StopProgram, match="no key"):
        World(One())


def test_every_event_and_phase_of_the_daemon_is_known() -> None:
    """The names are those of the daemon's own contract."""
    assert {event.NAME for event in e.EVENTS} == set(FILTER_EVENTS)
    assert {request.NAME for request in e.REQUESTS} | {"data-line"} >= set(FILTER_PHASES)


@pytest.mark.parametrize("line, expected", [
    ("link-connect|a1|mail.example|pass|192.0.2.1:25|[2001:db8::1]:25",
     e.LinkConnect(1.5, "smtp-in", "a1", "mail.example", "pass", "192.0.2.1:25", "[2001:db8::1]:25")),
    ("link-disconnect|a1", e.LinkDisconnect(1.5, "smtp-in", "a1")),
    ("tx-reset|a1", e.TxReset(1.5, "smtp-in", "a1", "")),
    ("tx-reset|a1|0badcafe", e.TxReset(1.5, "smtp-in", "a1", "0badcafe")),
    ("tx-mail|a1|0badcafe|ok|a|b@example.org", e.TxMail(1.5, "smtp-in", "a1", "0badcafe", "ok", "a|b@example.org")),
    ("tx-mail|a1|0badcafe|ok|", e.TxMail(1.5, "smtp-in", "a1", "0badcafe", "ok", "")),
    ("filter-response|a1|ehlo|proceed", e.FilterResponse(1.5, "smtp-in", "a1", "ehlo", "proceed", "")),
    ("filter-response|a1|ehlo|reject|550 a|b", e.FilterResponse(1.5, "smtp-in", "a1", "ehlo", "reject", "550 a|b")),
    ("link-auth|a1|pass|an|na", e.LinkAuth(1.5, "smtp-in", "a1", "pass", "an|na")),
    ("timeout|a1", e.Timeout(1.5, "smtp-in", "a1")),
    ("unheard-of|a1|x", None),
])  # fmt: skip
def test_reports_are_read(line: str, expected: e.Event | None) -> None:
    """The last field may have the separator in it; what is not known is passed over."""
    assert parse_event(f"report|0.7|1.5|smtp-in|{line}".encode()) == expected


def test_older_protocols_have_another_order() -> None:
    """0.6 has the user before the result; 0.5 also an address before its own."""
    assert parse_event(b"report|0.6|1.5|smtp-in|link-auth|a1|an|na|fail") == e.LinkAuth(
        1.5, "smtp-in", "a1", "fail", "an|na"
    )
    for kind in (e.TxMail, e.TxRcpt):
        old = f"report|0.5|1.5|smtp-in|{kind.NAME}|a1|0badcafe|a|b@example.org|ok".encode()
        assert parse_event(old) == kind(1.5, "smtp-in", "a1", "0badcafe", "ok", "a|b@example.org")


@pytest.mark.parametrize(
    "line", [b"report|0.7|x|smtp-in|timeout|a1", b"report|0.7|1", b"report|0.7|1|smtp-in|tx-mail|a1|1"]
)
def test_a_damaged_report_is_an_error(line: bytes) -> None:
    """Nothing is guessed."""
    with pytest.raises(ProtocolError):
        parse_event(line)


@settings(deadline=None)
@given(st.sampled_from([kind for kind in e.EVENTS if "__slots__" in kind.__dict__]), st.data())
def test_what_is_written_is_read(kind: type[e.Event], data: st.DataObject) -> None:
    """Any event, with any printable text in its last field."""
    count = len(kind.__match_args__) - 3
    text = st.text(st.characters(exclude_categories=["C"]), max_size=20)
    inner = text.map(lambda value: value.replace("|", ""))
    values = [data.draw(inner) for _ in range(count - 1)] + ([data.draw(text)] if count else [])
    line = "|".join(("report", "0.7", "2.25", "smtp-out", kind.NAME, "c3", *values))
    assert parse_event(line.encode()) == kind(2.25, "smtp-out", "c3", *values)


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_rubbish_is_an_error_and_nothing_else(tail: bytes) -> None:
    """Whatever the bytes."""
    for parse, head in ((parse_event, b"report|0.7|1.0|smtp-in|"), (parse_request, b"filter|0.7|1.0|smtp-in|")):
        try:
            parse(head + tail.replace(b"\n", b""))
        except ProtocolError as error:
            assert str(error).isprintable()


def test_a_session_knows_what_its_reports_told() -> None:
    """And forgets the transaction with it, and itself with the session."""
    seen: list[Session] = []

    class One(Filter):
        def filter_data(self, session: Session, request: e.Data) -> None:
            seen.append(session)
            assert (session.sender, session.recipients) == ("a@x.test", ["b@y.test"])

    world = World(One())
    world.event("link-connect", "c.test", "pass", "[2001:db8::7]:999", "192.0.2.1:25")
    world.event("link-identify", "EHLO", "c.test")
    world.event("link-tls", "TLSv1.3:x:256")
    world.event("link-auth", "fail", "eve")
    world.event("link-auth", "pass", "anna")
    world.event("tx-begin", "01")
    world.event("tx-mail", "01", "ok", "a@x.test")
    world.event("tx-rcpt", "01", "permfail", "no@y.test")
    world.event("tx-rcpt", "01", "ok", "b@y.test")
    assert world.ask("data") == ["filter-result|a1|b2|proceed"]
    (session,) = seen
    assert (session.address, session.identity, session.user, session.fcrdns) == (
        "2001:db8::7",
        "c.test",
        "anna",
        "pass",
    )
    world.event("tx-commit", "01", "99")
    assert (session.sender, session.recipients, session.message_id) == (None, [], "")
    assert world.core.sessions == 1
    world.event("link-disconnect")
    assert world.core.sessions == 0


@pytest.mark.parametrize("answer, words", [
    (None, "proceed"), (Proceed(), "proceed"), (Junk(), "junk"), (Reject("550 no"), "reject|550 no"),
    (Disconnect("421 later"), "disconnect|421 later"), (Rewrite("<a@b>"), "rewrite|<a@b>"),
    (Report("seen|it"), "report|seen|it"),
])  # fmt: skip
def test_every_answer(answer: Answer | None, words: str) -> None:
    """With the session and the token of the request."""

    class One(Filter):
        def filter_mail_from(self, session: Session, request: e.MailFrom) -> Answer | None:
            assert request.address == "a@x.test"
            return answer

    assert World(One()).ask("mail-from", "a@x.test", token="77") == [f"filter-result|a1|77|{words}"]


@pytest.mark.parametrize("make", [
    lambda: Reject("no"), lambda: Reject("250 yes"), lambda: Reject("550 a\nb"), lambda: Disconnect(""),
    lambda: Rewrite("<a>\r\nRCPT"), lambda: Report("x" * 2000), lambda: Reject("5500"),
])  # fmt: skip
def test_answers_that_no_line_can_hold_are_not_made(make: Callable[[], Answer]) -> None:
    """The error is where the handler makes it."""
    with pytest.raises(ValueError):
        make()


@pytest.mark.parametrize(
    "choice, words", [("tempfail", "reject|451 4.3.0 The filter has failed"), ("proceed", "proceed")]
)
@pytest.mark.parametrize("wrong", ["raise", "str"])
def test_a_handler_that_fails(choice: Any, words: str, wrong: str) -> None:
    """A line in the log, and what the filter chose for the session; the next one is served."""

    class One(Filter):
        on_failure = choice

        def filter_helo(self, session: Session, request: e.Helo) -> Any:
            if request.identity == "good":
                return None
            if wrong == "raise":
                raise RuntimeError("bad\nluck\x1b")
            return "proceed"

    world = World(One())
    assert world.ask("helo", "bad") == [f"filter-result|a1|b2|{words}"]
    (line,) = world.log
    assert line.startswith("session a1: helo: ") and line.isprintable()
    assert world.ask("helo", "good", session="a2") == ["filter-result|a2|b2|proceed"]


def test_requests_without_parameters_may_end_in_a_separator_or_not() -> None:
    """OpenSMTPD writes one; others may not."""
    for tail in ("|", ""):
        request = parse_request(f"filter|0.7|1.0|smtp-in|data|a1|b2{tail}".encode())
        assert request == e.Data(1.0, "smtp-in", "a1", "b2")


def test_a_whole_message_with_dots() -> None:
    """What a handler sees has no doubled dots; what it returns gets them, however it is cut."""
    seen: list[bytes] = []

    class One(Filter):
        def filter_message(self, session: Session, message: Message) -> list[bytes]:
            seen.append(bytes(message.data))
            assert message.header == b"Subject: x\r\n\r\n" and bytes(message.body) == b".one\r\n..two\r\n"
            return [b"X-A: 1\r", b"\nX-B: 2\n", bytes(message.data), b".last"]

    world = World(One())
    assert world.data(b"Subject: x", b"", b"..one", b"...two", b".") == [
        b"X-A: 1", b"X-B: 2", b"Subject: x", b"", b"..one", b"...two", b"..last", b".",
    ]  # fmt: skip
    assert seen == [b"Subject: x\r\n\r\n.one\r\n..two\r\n"]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=8).filter(lambda line: not set(line) & {10, 13})), st.integers(1, 5))
def test_messages_are_unchanged_where_nothing_is_returned(body: list[bytes], size: int) -> None:
    """None, the data itself, and pieces of it in any size are the same message."""

    class One(Filter):
        def filter_message(self, session: Session, message: Message) -> Any:
            whole = bytes(message.data)
            pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
            return {"1": None, "2": whole, "3": iter(pieces), "4": memoryview(whole)}[session.id]

    sent = [b"." + line if line.startswith(b".") else line for line in body] + [b"."]
    for session in (b"1", b"2", b"3", b"4"):
        world = World(One())
        head = b"filter|0.7|1.5|smtp-in|data-line|" + session + b"|b2|"
        world.core.receive(b"".join(head + line + b"\n" for line in sent))
        out = b"".join(world.core.output())
        assert out == b"".join(b"filter-dataline|" + session + b"|b2|" + line + b"\n" for line in sent)


def test_line_by_line() -> None:
    """Lines can be kept, dropped, doubled and added, and nothing is held."""

    class One(Filter):
        def filter_data_line(self, session: Session, line: bytes) -> Any:
            return {b"drop": [], b"two": [b"one", b".two"]}.get(line, line)

        def filter_data_end(self, session: Session) -> list[bytes]:
            return [b"the end"]

    world = World(One())
    assert world.data(b"a", b"drop") == [b"a"]
    assert world.data(b"two", b"..b", b".") == [b"one", b"..two", b"..b", b"the end", b"."]


@pytest.mark.parametrize("result", ["text", ["text"], [b"x", None], 5])
def test_a_message_that_is_none(result: Any) -> None:
    """It passes as it was; the error is the handler's, not one of the loop."""
    world = World(type("One", (Filter,), {"filter_message": lambda self, session, message: result})())
    assert world.data(b"S: x", b".") == [b"S: x", b"."]
    assert len(world.log) == 1 and "TypeError" in world.log[0]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("choice", ["tempfail", "proceed"])
def test_a_message_whose_handler_fails(choice: Any, whole: bool) -> None:
    """It passes as it was, and its commit is refused where the filter says so; the next message is let through."""

    def fail(self: Filter, session: Session, what: Any) -> Any:
        if b"bad" in (what.data if whole else what):
            raise KeyError("bad")
        return None if whole else what

    name = "filter_message" if whole else "filter_data_line"
    world = World(type("One", (Filter,), {"on_failure": choice, name: fail})())
    assert ("register|filter|smtp-in|commit" in world.registered) == (choice == "tempfail")
    assert world.data(b"S: x", b"", b"bad", b"..y", b".") == [b"S: x", b"", b"bad", b"..y", b"."]
    verdict = "reject|451 4.3.0 The filter has failed" if choice == "tempfail" else "proceed"
    assert world.ask("commit") == [f"filter-result|a1|b2|{verdict}"]
    assert world.data(b"S: y", b".") == [b"S: y", b"."]
    assert world.ask("commit") == ["filter-result|a1|b2|proceed"]


def test_a_message_that_is_too_large_passes() -> None:
    """Held up to the bound, then line for line; the handler is not called, the commit can tell."""
    seen: list[bool] = []

    class One(Filter):
        max_message_bytes = 40

        def filter_message(self, session: Session, message: Message) -> bytes:
            return b"small\r\n"

        def filter_commit(self, session: Session, request: e.Commit) -> None:
            seen.append(session.too_large)

    world = World(One())
    assert world.data(b"x" * 20) == []
    assert world.data(b"..y" * 10) == [b"x" * 20, b"..y" * 10]
    assert world.data(b"..z", b".") == [b"..z", b"."]
    world.ask("commit")
    assert world.data(b"x", b".") == [b"small", b"."]
    world.ask("commit")
    assert seen == [True, False] and len(world.log) == 1


def test_a_message_that_was_broken_off_is_forgotten() -> None:
    """The next one of the session begins anew."""
    world = World(type("One", (Filter,), {"filter_message": lambda self, session, message: message.data})())
    world.data(b"half")
    world.event("tx-rollback", "01")
    assert world.data(b"whole", b".") == [b"whole", b"."]


class Slow(Filter):
    def __init__(self) -> None:
        self.ended: list[str] = []

    async def filter_ehlo(self, session: Session, request: e.Ehlo) -> Answer:
        if request.identity == "bad":
            raise RuntimeError("no")
        return Junk()

    def filter_mail_from(self, session: Session, request: e.MailFrom) -> Answer | None:
        return None

    async def filter_message(self, session: Session, message: Message) -> bytes:
        return b"new\r\n"

    def on_link_disconnect(self, session: Session, event: e.LinkDisconnect) -> None:
        self.ended.append(session.id)


def test_sessions_do_not_wait_for_each_other() -> None:
    """An asynchronous handler holds back its own session's events alone, which follow in order."""
    world = World(Slow())
    assert world.ask("ehlo", "x") == []
    assert world.ask("mail-from", "a@b", token="b3") == []
    assert world.ask("mail-from", "a@b", session="a2") == ["filter-result|a2|b2|proceed"]
    world.spawned.go()
    assert world.written() == ["filter-result|a1|b2|junk", "filter-result|a1|b3|proceed"]
    assert world.ask("ehlo", "bad") == []
    world.spawned.go()
    assert world.written() == ["filter-result|a1|b2|reject|451 4.3.0 The filter has failed"]


def test_an_asynchronous_message() -> None:
    """What comes meanwhile waits."""
    world = World(Slow())
    assert world.data(b"old", b".") == []
    assert world.ask("commit") == []
    world.spawned.go()
    assert world.written() == [
        "filter-dataline|a1|b2|new", "filter-dataline|a1|b2|.", "filter-result|a1|b2|proceed",
    ]  # fmt: skip


def test_nothing_is_said_to_a_session_that_is_gone() -> None:
    """Its handler is cancelled, the end is still told, and no failure is logged."""
    filter = Slow()
    world = World(filter)
    world.ask("ehlo", "x")
    assert world.event("link-disconnect") == []
    assert (world.spawned.cancelled, filter.ended, world.core.sessions, world.log) == (1, ["a1"], 0, [])


@pytest.mark.parametrize("body", [
    {"filter_message": lambda *_: None, "filter_data_line": lambda *_: b""},
    {"filter_data_end": lambda *_: ()}, {"filter_mailfrom": lambda *_: None}, {"on_connect": lambda *_: None},
    {"filter_helo": 5}, {"filter_data_line": Slow.filter_message},
])  # fmt: skip
def test_handlers_that_cannot_be_are_errors(body: dict[str, Any]) -> None:
    """When the program starts, not when the first mail comes."""
    with pytest.raises(TypeError):
        FilterCore(type("One", (Filter,), body)(), print)


@pytest.mark.parametrize("line", [b"filter|0.7|1|smtp-in|unheard|a1|b2|", b"hello", b"config|protocol|0.7", b"filter|"])
def test_lines_that_are_none_are_errors(line: bytes) -> None:
    """The program ends, and is started anew."""
    with pytest.raises(ProtocolError):
        World(Filter()).says(line)
    with pytest.raises(ProtocolError):
        FilterCore(Filter(), print).receive(b"filter|0.7|1|smtp-in|helo|a1|b2|x\n")


@settings(deadline=None)
@given(st.integers(1, 40))
def test_reading_in_any_blocks_is_the_same(size: int) -> None:
    """Lines are put together again."""
    stream = HANDSHAKE % b"0.7" + b"filter|0.7|1|smtp-in|commit|a1|b2|\nfilter|0.7|1|smtp-in|commit|a2|b2|\n"
    core = FilterCore(Slow(), print)
    for at in range(0, len(stream), size):
        core.receive(stream[at : at + size])
    assert b"".join(core.output()).endswith(b"filter-result|a1|b2|proceed\nfilter-result|a2|b2|proceed\n")
