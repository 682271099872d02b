"""smtpd-tables(7) 0.1: every line out is one line, and no line in does harm."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.pure.table_protocol import (
    SERVICES,
    KeyRefused,
    ProtocolError,
    Reply,
    answers,
    handshake,
    missing,
    parse_reply,
    registered,
    request,
)


def test_the_handshake_says_who_we_are() -> None:
    """In the order of the manual."""
    assert handshake("devs", "7.8.0") == (
        b"config|smtpd-version|7.8.0", b"config|protocol|0.1", b"config|tablename|devs", b"config|ready",
    )  # fmt: skip


def test_services_register_one_by_one() -> None:
    """All that table(5) knows, then ready."""
    assert [registered(b"register|" + service.encode()) for service in SERVICES] == list(SERVICES)
    assert registered(b"register|ready") is None


@pytest.mark.parametrize(
    "line", [b"", b"register", b"ready", b"register|", b"register|none", b"register|alias|x", b"x"]
)
def test_anything_else_in_the_handshake_is_an_error(line: bytes) -> None:
    """OpenSMTPD's smtpd ends there."""
    with pytest.raises(ProtocolError):
        registered(line)


def test_requests_as_in_the_manual() -> None:
    """Each operation has its own fields; the key is the last and may have the separator in it."""
    assert request("devs", "update", 0x478FF0D2, 1713795097.394049) == (
        b"table|0.1|1713795097.394049|devs|update|478ff0d2"
    )
    assert request("devs", "check", 1, 2.5, "netaddr", "192.168.0.7") == (
        b"table|0.1|2.500000|devs|check|netaddr|00000001|192.168.0.7"
    )
    assert request("devs", "lookup", 1, 0, "alias", "a|b").endswith(b"|lookup|alias|00000001|a|b")
    assert request("devs", "fetch", 255, 0, "source").endswith(b"|fetch|source|000000ff")


@pytest.mark.parametrize("key", ["a\nb", "a\rb", "a\0b", "\x1b[2J", "x" * 2049, "\udc80"])
def test_keys_that_no_line_can_hold_are_refused_and_not_quoted(key: str) -> None:
    """7.8.0p1 split a request at a newline in a user name; a password must not get into a log."""
    with pytest.raises(KeyRefused) as refused:
        request("t", "check", 1, 0, "auth", f"secret{key}")
    assert "secret" not in str(refused.value)


@given(st.text(max_size=100), st.integers(0, 2**32 - 1))
def test_a_request_is_one_line_whatever_the_key(key: str, number: int) -> None:
    """Or it is refused."""
    try:
        line = request("t", "lookup", number, 1.0, "alias", key)
    except KeyRefused:
        return
    assert b"\n" not in line and b"\r" not in line
    assert line.decode().split("|", 7)[5:] == ["alias", f"{number:08x}", key]


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        (b"update-result|478ff0d2|ok", Reply("update", 0x478FF0D2, "found")),
        (b"update-result|1|error", Reply("update", 1, "error")),
        (b"update-result|1|error|no|database", Reply("update", 1, "error", "no|database")),
        (b"check-result|e5862859|not-found", Reply("check", 0xE5862859, "not-found")),
        (b"check-result|F|found", Reply("check", 15, "found")),
        (b"lookup-result|f993c74|found|1000:1000:/home/op", Reply("lookup", 0xF993C74, "found", "1000:1000:/home/op")),
        (b"lookup-result|1|found|a|b", Reply("lookup", 1, "found", "a|b")),
        (b"lookup-result|1|error|x", Reply("lookup", 1, "error", "x")),
        (b"fetch-result|1|found|192.168.1.7", Reply("fetch", 1, "found", "192.168.1.7")),
        (b"fetch-result|1|not-found", Reply("fetch", 1, "not-found")),
    ],
)
def test_answers_as_in_the_manual(line: bytes, reply: Reply) -> None:
    """A value is the whole rest of the line."""
    assert parse_reply(line) == reply


@pytest.mark.parametrize(
    "line",
    [
        b"", b"hello", b"|", b"lookup-result", b"lookup-result|1", b"lookup-result|1|", b"lookup-result||found|x",
        b"lookup-result|123456789|found|x", b"lookup-result|-1|found|x", b"lookup-result|0x1|found|x",
        b"lookup-result|g|found|x", b"lookup-result|1|found|", b"lookup-result|1|found", b"lookup-result|1|ok",
        b"update-result|1|found", b"update-result|1|not-found", b"update-result|1|ok|x", b"check-result|1|maybe",
        b"check-result|1|not-found|x", b"fetch-result|1|found", b"table-result|1|found|x", b"register|alias",
        b"lookup-result|1|found|\xff", b"lookup-result|1|found|a\0b", b"lookup-result|\xc2\xb2|found|x",
        b"lookup-result| 1|found|x", b"lookup-result|1 |found|x", b"lookup-result|1_0|found|x",
    ],
)  # fmt: skip
def test_rubbish_is_an_error(line: bytes) -> None:
    """It never becomes an answer."""
    with pytest.raises(ProtocolError):
        parse_reply(line)


@given(
    st.one_of(
        st.binary(max_size=80),
        st.tuples(
            st.sampled_from([b"lookup-result", b"check-result", b"fetch-result", b"update-result", b"x"]),
            st.binary(max_size=10),
            st.sampled_from([b"found", b"not-found", b"error", b"ok", b""]),
            st.binary(max_size=20),
        ).map(b"|".join),
    )
)
def test_no_line_does_harm(line: bytes) -> None:
    """An answer or a ProtocolError, and nothing else."""
    try:
        reply = parse_reply(line)
    except ProtocolError as error:
        assert str(error).isprintable()
        return
    assert 0 <= reply.number < 2**32
    assert reply.status == "found" or not (reply.status == "not-found" and reply.text)


@given(st.binary(max_size=40))
def test_no_line_of_a_handshake_does_harm(line: bytes) -> None:
    """A service, the end, or a ProtocolError."""
    try:
        assert registered(line) in (*SERVICES, None)
    except ProtocolError as error:
        assert str(error).isprintable()


def test_a_fetch_may_be_answered_in_two_ways() -> None:
    """The manual's example says lookup-result, OpenSMTPD's code wants fetch-result."""
    for line in (b"fetch-result|1|found|x", b"lookup-result|1|found|x"):
        assert answers(parse_reply(line), "fetch")
    assert not answers(parse_reply(b"fetch-result|1|found|x"), "lookup")
    assert not answers(parse_reply(b"check-result|1|found"), "fetch")


def test_what_is_missing_is_named() -> None:
    """Of alternatives one will do."""
    needed = (("alias",), ("auth", "credentials"), ("domain",))
    assert missing(needed, ("credentials", "alias")) == ("domain",)  # type: ignore[arg-type]
    assert missing(needed, ()) == ("alias", "auth or credentials", "domain")  # type: ignore[arg-type]
