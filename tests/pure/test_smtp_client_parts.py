"""Replies, bodies and offers of the SMTP client: parsers of what strangers send."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.pure.delivery_headers import delivered_to, local_headers
from smtpd_ps.pure.duration import duration_text
from smtpd_ps.pure.lmtp_destination import parse_destination
from smtpd_ps.pure.smtp_client_body import BareLineEnd, Stuffer, stuffed
from smtpd_ps.pure.smtp_client_ehlo import parse_offers
from smtpd_ps.pure.smtp_client_replies import MAX_TEXT, ReplyError, ReplyReader


def cut(data: bytes, cuts: list[int]) -> list[bytes]:
    points = sorted({0, len(data), *(c % (len(data) + 1) for c in cuts)})
    return [data[a:b] for a, b in itertools.pairwise(points)]


LINES = st.lists(st.sampled_from([b"", b".", b"..", b".x", b"x.", b"text", b"\xff\x00"]))
CUTS = st.lists(st.integers(0, 10_000))


def unstuffed(wire: bytes) -> bytes:
    """What a server stores (RFC 5321 4.5.2)."""
    assert wire.endswith(b"\r\n.\r\n") or wire == b".\r\n"
    lines = wire[:-3].split(b"\r\n")
    assert b"." not in lines  # the end must not come early
    return b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines)


@given(LINES, st.booleans(), CUTS)
def test_dot_stuffing_round_trip(lines, ended, cuts):
    """Any body arrives as it was, however it is cut, and its end is the only lone dot."""
    body = b"\r\n".join(lines) + (b"\r\n" if ended else b"")
    wire = stuffed(body)
    whole = body if not body or body.endswith(b"\r\n") else body + b"\r\n"
    assert unstuffed(wire) == whole
    stuffer = Stuffer()
    assert b"".join(stuffer.feed(piece) for piece in cut(body, cuts)) + stuffer.finish() == wire


@given(st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"x"])).map(b"".join), CUTS)
def test_bare_line_ends_are_found(data, cuts):
    """At once and in pieces alike."""
    bare = b"\r" in data.replace(b"\r\n", b"") or b"\n" in data.replace(b"\r\n", b"")
    stuffer = Stuffer()

    def in_pieces() -> bytes:
        return b"".join([stuffer.feed(piece) for piece in cut(data, cuts)]) + stuffer.finish()

    if bare:
        with pytest.raises(BareLineEnd):
            stuffed(data)
        with pytest.raises(BareLineEnd):
            in_pieces()
    else:
        assert in_pieces() == stuffed(data)


@given(CUTS)
def test_replies_do_not_depend_on_segments(cuts):
    """The same replies whatever the cuts."""
    data = b"220 one\r\n250-a\r\n250-b\r\n250 c\r\n354\r\n421 bare lf\n"
    reader = ReplyReader()
    replies = [(r.code, r.lines) for piece in cut(data, cuts) for r in reader.feed(piece)]
    assert replies == [(220, [b"one"]), (250, [b"a", b"b", b"c"]), (354, [b""]), (421, [b"bare lf"])]
    assert reader.empty


@pytest.mark.parametrize(
    "data",
    [
        b"hello\r\n", b"99 x\r\n", b"600 x\r\n", b"2500 x\r\n", b"250_x\r\n", b"\r\n", b"250-a\r\n251 b\r\n",
        b"250 " + b"x" * 5000, b"250 " + b"x" * 5000 + b"\r\n", b"250-x\r\n" * 200,
        (b"250-" + b"x" * 4000 + b"\r\n") * 9,
        b"\xef\xbc\x92\xef\xbc\x95\xef\xbc\x90 x\r\n",
    ],
)  # fmt: skip
def test_what_is_no_reply(data):
    """Wrong codes, mixed codes, and anything without bound."""
    with pytest.raises(ReplyError) as caught:
        ReplyReader().feed(data)
    assert str(caught.value).isprintable()


def test_replies_before_an_error_count():
    """What was answered stays answered, whatever follows in the same segment."""
    reader = ReplyReader()
    (reply,) = reader.feed(b"250 taken\r\nrubbish\r\n")
    assert reply.text == "250 taken"
    assert str(reader.error) == "not an SMTP reply: rubbish"


@given(st.binary(max_size=300))
def test_any_bytes_give_replies_or_an_error(data):
    """Never anything else, and texts are one bounded printable line."""
    try:
        replies = ReplyReader().feed(data)
    except ReplyError as error:
        assert str(error).isprintable()
        return
    for reply in replies:
        assert reply.text.isprintable() and len(reply.text) <= MAX_TEXT + 4


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"250 2.0.0 ok\r\n", "250 2.0.0 ok"),
        (b"550-5.1.1 no\r\n550-5.1.1 such\r\n550 5.1.1 user\r\n", "550 5.1.1 no such user"),
        (b"550-no\r\n550 user\r\n", "550 no user"),
        (b"550 a\x1b[31mb\rc\r\n", "550 a\\x1b[31mb\\rc"),
        (b"550 caf\xc3\xa9 \xff\r\n", "550 café \\xff"),
    ],
)
def test_reply_text(data, text):
    """One line, escaped; a repeated enhanced code is given once (QUIRKS 43)."""
    (reply,) = ReplyReader().feed(data)
    assert reply.text == text


def test_offers_of_odd_servers():
    """Limits that are no number count as none told."""
    offers = parse_offers([b"x", b"SIZE big", b"", b"AUTH", b"\xff\xfe", b"X-ODD=1 2"])
    assert (offers.size, offers.max_size_bytes, offers.auth) == (True, 0, frozenset())


def test_local_headers_and_loops():
    """Return-Path unless the sender is null; Delivered-To is read in any case, in the header alone."""
    assert local_headers("a@b", "c@d") == b"Return-Path: <a@b>\r\nDelivered-To: c@d\r\n"
    assert local_headers("", "c@d") == b"Delivered-To: c@d\r\n"
    text = b"X: y\r\nDELIVERED-to:\tC@D \r\nDelivered-To: e@f\r\n\r\nDelivered-To: g@h\r\n"
    assert delivered_to(text) == {b"c@d", b"e@f"}
    assert delivered_to(b"Subject: Delivered-To: x@y\r\n\r\n") == frozenset()


@pytest.mark.parametrize(("secs", "text"), [(-1, "0s"), (0, "0s"), (59, "59s"), (60, "1m"), (93784, "1d2h3m4s")])
def test_durations(secs, text):
    """As OpenSMTPD's log has them."""
    assert duration_text(secs) == text


def test_lmtp_destinations():
    """A path, an address with its port, or a name that lookup resolves."""
    path = parse_destination("/run/lmtp")
    assert path is not None and (path.address, path.lmtp) == ("/run/lmtp", True)
    address = parse_destination("[::1]:24")
    assert address is not None and (address.address, address.port) == ("::1", 24)
    assert parse_destination("host.test:24") is None
