"""pure/filter_protocol: the lines of smtpd-filters(7)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.contract.settings import FILTER_EVENTS, FILTER_PHASES
from smtpd_ps.pure.filter_protocol import (
    DataLine,
    FilterProtocolError,
    Register,
    Result,
    Told,
    data_line,
    data_prefix,
    handshake,
    parse,
    parse_registration,
    report,
    request,
)

SESSION, TOKEN = 0x1F, 0xAB


def test_what_programs_are_sent() -> None:
    """Times with six digits, numbers with sixteen; a request without a parameter ends in "|", a report does not."""
    assert handshake("v 1", 300, "here.example") == (
        b"config|smtpd-version|v 1", b"config|protocol|0.7", b"config|smtp-session-timeout|300",
        b"config|subsystem|smtp-in", b"config|admd|here.example", b"config|ready",
    )  # fmt: skip
    head = b"|0.7|1576146008.000001|smtp-in|"
    now = 1576146008.000001
    assert request(now, "connect", SESSION, TOKEN, "mx.example", "192.0.2.1") == (
        b"filter" + head + b"connect|000000000000001f|00000000000000ab|mx.example|192.0.2.1"
    )
    assert request(now, "data", SESSION, TOKEN, "").endswith(b"data|000000000000001f|00000000000000ab|")
    assert data_prefix(now, SESSION, TOKEN).endswith(b"data-line|000000000000001f|00000000000000ab|")
    assert report(now, "link-disconnect", SESSION) == b"report" + head + b"link-disconnect|000000000000001f"
    assert report(now, "tx-mail", SESSION, "0000000a", "ok", "a|b@x").endswith(b"|0000000a|ok|a|b@x")
    outgoing = report(now, "timeout", 1 << 63, subsystem="smtp-out")
    assert outgoing == b"report|0.7|1576146008.000001|smtp-out|timeout|8000000000000000"
    both = handshake("v 1", 300, "here.example", ("smtp-in", "smtp-out"))
    assert both[3:5] == (b"config|subsystem|smtp-in", b"config|subsystem|smtp-out")


@given(st.text(), st.text())
def test_nothing_ends_a_line(one: str, two: str) -> None:
    """Whatever a client wrote, it stays one line."""
    line = request(1.5, "ehlo", SESSION, TOKEN, one, two)
    assert not set(line) & {10, 13, 0}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"register|ready", Register(ready=True)),
        (b"register|ready\r", Register(ready=True)),
        (b"register|report|smtp-in|*", Register(events=(1 << len(FILTER_EVENTS)) - 1)),
        (b"register|report|smtp-in|link-connect", Register(events=1)),
        (b"register|filter|smtp-in|connect", Register(phases=1)),
        (b"register|filter|smtp-in|commit", Register(phases=1 << FILTER_PHASES.index("commit"))),
        (b"register|filter|smtp-in|help", Register()),
        (b"register|report|smtp-out|tx-mail", Register(outgoing=1 << FILTER_EVENTS.index("tx-mail"))),
        (b"register|report|smtp-out|*", Register(outgoing=(1 << len(FILTER_EVENTS)) - 1)),
    ],
)
def test_registrations(line: bytes, expected: Register) -> None:
    """What a program wants; phases that are never asked about are taken, and mean nothing."""
    assert parse_registration(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        b"", b"ready", b"register", b"register|report|smtp-in|nothing", b"register|filter|smtp-in|*",
        b"register|filter|smtp-out|connect", b"register|filter|smtp-in|connect|more", b"register|ready|more",
        b"filter-result|1|2|proceed",
    ],
)  # fmt: skip
def test_bad_registrations(line: bytes) -> None:
    """Anything else is an error."""
    with pytest.raises(FilterProtocolError):
        parse_registration(line)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"filter-result|1f|ab|proceed", Result(SESSION, TOKEN, "proceed")),
        (b"filter-result|000000000000001f|00000000000000ab|junk\r", Result(SESSION, TOKEN, "junk")),
        (b"filter-result|1f|ab|reject|550 a|b", Result(SESSION, TOKEN, "reject", "550 a|b")),
        (b"filter-result|1f|ab|rewrite|<x@y>", Result(SESSION, TOKEN, "rewrite", "<x@y>")),
        (b"filter-result|1f|ab|report|", Result(SESSION, TOKEN, "report")),
        (b"filter-result|1f|ab|disconnect|421 \xff\x07", Result(SESSION, TOKEN, "disconnect", "421 \ufffd?")),
        (b"filter-dataline|1f|ab|", DataLine(SESSION, TOKEN, b"")),
        (b"filter-dataline|1f|ab|a|b\xff", DataLine(SESSION, TOKEN, b"a|b\xff")),
        (b"report|1576146008.000001|smtp-in|1f|seen|this", Told(SESSION, "seen|this")),
    ],
)
def test_what_programs_say(line: bytes, expected: object) -> None:
    """Each line that a ready program may write."""
    assert parse(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        b"", b"filter-result", b"filter-result|1f|ab", b"filter-result|1f|ab|reject", b"filter-result|1f|ab|maybe",
        b"filter-result|1f||proceed", b"filter-result||ab|proceed", b"filter-result|xyz|ab|proceed",
        b"filter-result|+1|ab|proceed", b"filter-result|1_1|ab|proceed", b"filter-result|00000000000000001|ab|proceed",
        b"filter-dataline|1f|ab", b"register|ready", b"report|1|smtp-out|1f|x", b"report|1|smtp-in|1f",
    ],
)  # fmt: skip
def test_rubbish(line: bytes) -> None:
    """Anything else is an error, which quotes it on one line."""
    with pytest.raises(FilterProtocolError) as error:
        parse(line + b"\x1b")
    assert str(error.value).isprintable()


@given(st.binary())
def test_no_line_breaks_the_parser(line: bytes) -> None:
    """Any bytes are one of these, or an error."""
    for read in (parse, parse_registration):
        try:
            read(line)  # type: ignore[operator]
        except FilterProtocolError:
            continue


def test_lines_of_messages() -> None:
    """A CR at the end is the program's line end, others and NULs would break the message."""
    assert data_line(b"a\r") == b"a"
    assert data_line(b"a\rb\0c") == b"abc"
