"""Messages of local programs: header and body told apart, recipients, what is added and what is encoded."""

import quopri

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.pure.mail_draft import (
    MAX_PLAIN_LINE_BYTES,
    DraftError,
    author,
    compose,
    mailbox,
    parse_addresses,
    read_draft,
    recipients,
)
from smtpd_ps.pure.smtp_header import examine

DATE = "Sun, 22 Nov 2026 15:00:00 +0000"


def message(data: bytes) -> bytes:
    """The message that a program's bytes become."""
    return b"".join(compose(read_draft(data), b"bob", DATE))


@pytest.mark.parametrize(
    ("data", "header", "body"),
    [
        (b"Subject: a\n\nhi\n", b"Subject: a\r\n", b"hi\r\n"),
        (b"Subject: a\r\n\r\nhi\r\n", b"Subject: a\r\n", b"hi\r\n"),
        (b"Subject: a\n b\n\thi\n\nx", b"Subject: a\r\n b\r\n\thi\r\n", b"x\r\n"),
        (b"hello\nthere", b"", b"hello\r\nthere\r\n"),
        (b"error: the disk is full\n\nhelp", b"", b"error: the disk is full\r\n\r\nhelp\r\n"),
        (b"X-Own: yes\n\nhi\n", b"X-Own: yes\r\n", b"hi\r\n"),
        (b"Subject: a\nno header line\nTo: b\n", b"Subject: a\r\n", b"no header line\r\nTo: b\r\n"),
        (b"From bob Mon Jan 1 10:00:00\nSubject: a\n\nFrom me\n", b"Subject: a\r\n", b"From me\r\n"),
        (b"Subject: a\nReturn-Path: <x>\nBCC: y,\n z\n\n\n\n", b"Subject: a\r\n", b"\r\n\r\n"),
        (b"Subject: a\rBcc: b\0c\n\n", b"Subject: a Bcc: b c\r\n", b""),
        (b"", b"", b""),
        (b"\nbody\n", b"", b"\r\nbody\r\n"),
        (b"Subject: a", b"Subject: a\r\n", b""),
    ],
)
def test_header_and_body(data: bytes, header: bytes, body: bytes) -> None:
    """Where the header ends, and what of it is not sent: Bcc, Return-Path, an mbox's line, NUL and CR."""
    assert message(data) == header + b"From: bob\r\nDate: " + DATE.encode() + b"\r\n\r\n" + body


def test_what_is_there_is_kept() -> None:
    """From and Date are added only where they are missing."""
    assert message(b"date: d\nFROM: f\n\nx") == b"date: d\r\nFROM: f\r\n\r\nx\r\n"


def test_recipients() -> None:
    """Those of To, Cc and Bcc with names, groups, comments and folds; each once, in order."""
    draft = read_draft(
        b'To: Ann <ann@a.test>, "B, (x)" <bob@b.test> (c),\n staff: carl, dora@d.test;\n'
        b"Cc: ann@a.test, eve\nBcc: secret@s.test\nTo: undisclosed:;\nFrom: Me <me@m.test>, you\n\n"
    )
    assert recipients(draft) == ["ann@a.test", "bob@b.test", "carl", "dora@d.test", "eve", "secret@s.test"]
    assert author(draft) == "me@m.test"
    assert author(read_draft(b"From: (\n\n")) == author(read_draft(b"To: a\n\n")) == ""


@pytest.mark.parametrize(
    "value", ["<a", "a b c", "a@b, (", "<a b@c>", 'x "', "a\xff@b", "<a\x01@b>", "bob@x zz@y", '"a b"@c', "a;b"]
)
def test_addresses_that_are_none(value: str) -> None:
    """What is no address list, or has an address that could not stand on a command line, is an error."""
    with pytest.raises(DraftError, match="To: not a"):
        parse_addresses(value.encode("latin-1"), "To")


@given(st.text(max_size=300))
def test_the_name_stays_in_its_field(name: str) -> None:
    """From is one field that ends with the address, whatever the name; control characters are refused."""
    try:
        value = mailbox(name, "bob@x.test")
    except DraftError:
        assert len(name) > 255 or not name.isprintable()
        return
    assert value.isascii() and value.endswith(b"bob@x.test>" if name.strip() else b"bob@x.test")
    assert b"\r" not in value and value.replace(b"\n ", b"").isascii() and b"\n" not in value.replace(b"\n ", b"")
    assert parse_addresses(value.replace(b"\n", b""), "From") == ["bob@x.test"]
    assert all(len(line) <= 300 for line in value.split(b"\n"))


def test_names() -> None:
    """Plain words stay, others are quoted or encoded (RFC 5322 3.2.5, RFC 2047)."""
    assert mailbox("Bob Smith", "b") == b"Bob Smith <b>"
    assert mailbox('B. "O" Smith\\', "b") == b'"B. \\"O\\" Smith\\\\" <b>'
    assert mailbox("J\u00fcrgen", "b") == b"=?utf-8?b?SsO8cmdlbg==?= <b>"
    assert mailbox("=?x?q?y?=", "b") == b'"=?x?q?y?=" <b>'


LINES = st.one_of(st.binary(max_size=80), st.binary(min_size=1200, max_size=1300))


@given(st.lists(LINES, max_size=5).map(b"\n".join))
def test_any_body_arrives(body: bytes) -> None:
    """Lines are short and end with CRLF, there is neither NUL nor bare CR, and decoding gives what was meant."""
    sent = message(b"Subject: a\n\n" + body)
    header, _, rest = sent.partition(b"\r\n\r\n")
    assert all(len(line) < MAX_PLAIN_LINE_BYTES for line in rest.split(b"\r\n"))
    assert b"\0" not in sent and sent.count(b"\r") == sent.count(b"\n") == sent.count(b"\r\n")
    wanted = body.replace(b"\r\n", b"\n")
    wanted += b"" if wanted.endswith(b"\n") or not wanted else b"\n"
    if b"quoted-printable" in header:
        rest = quopri.decodestring(rest)
        assert all(len(line) <= 76 for line in sent.partition(b"\r\n\r\n")[2].split(b"\r\n"))
    assert rest.replace(b"\r\n", b"\n") == wanted


def test_what_is_encoded() -> None:
    """Only what must be, never what has an encoding or parts of its own; the character set is named."""
    long = b"x" * MAX_PLAIN_LINE_BYTES
    assert b"quoted-printable" not in message(b"Subject: a\n\n" + b"x" * (MAX_PLAIN_LINE_BYTES - 1) + b"\n\xff\n")
    assert b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=us-ascii\r\n" in message(b"Subject: a\n\n" + long)
    assert b"charset=utf-8" in message("Subject: a\n\n\u00fc".encode() + long)
    assert b"charset=unknown-8bit" in message(b"Subject: a\n\n\xff" + long)
    own = message(b"MIME-Version: 1.0\nContent-Type: text/html\n\n" + long)
    assert own.count(b"MIME-Version") == own.count(b"Content-Type") == 1 and b"quoted-printable" in own
    for kind in (
        b"Content-Transfer-Encoding: 8bit",
        b"Content-Type: multipart/mixed",
        b"content-type:\n MESSAGE/rfc822",
    ):
        assert message(kind + b"\n\n" + long + b"\ra\n").endswith(b"\r\n\r\n" + long + b"\r\na\r\n")


@given(st.binary(max_size=400))
def test_any_bytes_make_a_message(data: bytes) -> None:
    """The header is one that the server takes, whatever a program writes."""
    sent = message(data)
    header = examine(sent)
    assert sent[header.end :].startswith(b"\r\n") and header.has_date and not header.has_bcc


@given(st.lists(st.sampled_from([b"Bcc", b"To", b"x", b":", b"\n", b" ", b"\r", b"From ", b"a", b"\0"])).map(b"".join))
def test_pieces_of_headers(data: bytes) -> None:
    """The same for bytes that are nearly headers."""
    sent = message(data)
    header = examine(sent)
    assert sent[header.end :].startswith(b"\r\n") and not header.has_bcc
