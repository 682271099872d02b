"""pure/header_addresses: domains for bare names, and From as the sender."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.pure.header_addresses import MAX_GROWTH_BYTES, AddressFields, find_fields

SENDER = "own@example.org"


def rewritten(block: bytes, sender: str = "") -> bytes:
    """The block as the server mx.example.com stores it."""
    return AddressFields("mx.example.com", sender).rewrite(block, find_fields(b"\n" + block.lower()))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"To: a\r\n", b"To: a@mx.example.com\r\n"),
        (b"to:a\r\n", b"to:a@mx.example.com\r\n"),
        (b"TO : a\r\n", b"TO : a@mx.example.com\r\n"),
        (b"From: a\r\nCc: b\r\n", b"From: a@mx.example.com\r\nCc: b@mx.example.com\r\n"),
        (b"To: a, b@c.example, d\r\n", b"To: a@mx.example.com, b@c.example, d@mx.example.com\r\n"),
        (b"To: a,\r\n\tb\r\nX: y\r\n", b"To: a@mx.example.com,\r\n\tb@mx.example.com\r\nX: y\r\n"),
        (b"To:\r\n a\r\n", b"To:\r\n a@mx.example.com\r\n"),
        (b"To: A B <a>\r\n", b"To: A B <a@mx.example.com>\r\n"),
        (b"To: A B < a >\r\n", b"To: A B < a@mx.example.com >\r\n"),
        (b"To: a (comment, with @ (nested))\r\n", b"To: a@mx.example.com (comment, with @ (nested))\r\n"),
        (b"To: (x\\)@) a\r\n", b"To: (x\\)@) a@mx.example.com\r\n"),
        (b'To: "a, b@c" <d>\r\n', b'To: "a, b@c" <d@mx.example.com>\r\n'),
        (b'To: "quoted \\" name"\r\n', b'To: "quoted \\" name"@mx.example.com\r\n'),
        (b'To: "x@y" <b>, "z" <c@d>\r\n', b'To: "x@y" <b@mx.example.com>, "z" <c@d>\r\n'),
        (b"To: =?utf-8?q?J=C3=BC?= <j>\r\n", b"To: =?utf-8?q?J=C3=BC?= <j@mx.example.com>\r\n"),
        (b"To: a, team: b, c;, d\r\n", b"To: a@mx.example.com, team: b, c;, d@mx.example.com\r\n"),
        (b"To: \xc3\xbc\r\n", b"To: \xc3\xbc@mx.example.com\r\n"),
    ],
)
def test_bare_names_get_our_domain(before: bytes, after: bytes) -> None:
    """In To, Cc and From, in every form that RFC 5322 has; all else stays as it is (QUIRKS 27)."""
    assert rewritten(before) == after


@pytest.mark.parametrize(
    "block",
    [
        b"",
        b"Subject: a\r\nReply-To: a\r\nX-To: b\r\n",
        b"To: a@b.example\r\n",
        b"To: A <a@b.example>, \"x\" <c@d.example> , e@f\r\n",
        b"To: A\r\n\tB <a@b.example>\r\n",
        b"To: <@x,@y:a@b.example>\r\n",
        b"To: a@[192.0.2.1], <b@[IPv6:::1]>\r\n",
        b"To: a @ b.example\r\n",
        b"To: a(c)@(d)b\r\n",
        b"To: undisclosed-recipients:;\r\n",
        b"To: team: a, b;\r\n",
        b"To: \r\n",
        b"To: <>\r\n",
        b"To: Two Words\r\n",
        b"To: =?utf-8?q?J=C3=BC?=\r\n",
        b"To: a <b> c\r\n",
        b'To: "open\r\n',
        b"To: (open\r\n",
        b"To: a) b\r\n",
        b"To: <a\r\n",
        b"To: a>\r\n",
        b"To: a;\r\n",
        b"To: x: y: a;\r\n",
        b"To: team: a\r\n",
        b"To: a\\b\r\n",
        b"Subject: folded\r\n To: a\r\n",
        b"From someone Thu Jan  1 00:00:00 1970\r\n",
    ],
)  # fmt: skip
def test_what_stays(block: bytes) -> None:
    """Addresses with a domain, groups, other fields, and whatever is no list of addresses."""
    assert rewritten(block) == block


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"From: a@b.example\r\n", b"From: own@example.org\r\n"),
        (b"From: a\r\n", b"From: own@example.org\r\n"),
        (b"from : The Boss <boss@b.example>\r\n", b"from : The Boss <own@example.org>\r\n"),
        (
            b"From:\r\n =?utf-8?b?SsO8?=\r\n <boss@b.example>\r\n",
            b"From:\r\n =?utf-8?b?SsO8?=\r\n <own@example.org>\r\n",
        ),
        (
            b'From: "boss@b.example" (x) <boss@b.example> (y)\r\n',
            b'From: "boss@b.example" (x) <own@example.org> (y)\r\n',
        ),
        (b"From: boss(x)@b.example (The Boss)\r\n", b"From: own@example.org (The Boss)\r\n"),
        (b"From: <@x,@y:a@b.example>\r\n", b"From: <own@example.org>\r\n"),
        (b"From: a@b, C <c@d>\r\n", b"From: own@example.org, C <own@example.org>\r\n"),
        (b"From: bosses: a@b, C <c@d>;\r\n", b"From: bosses: own@example.org, C <own@example.org>;\r\n"),
        (
            b"From: a@b\r\nSubject: x\r\nFrom: c@d\r\n",
            b"From: own@example.org\r\nSubject: x\r\nFrom: own@example.org\r\n",
        ),
        (b"From: nobody:;\r\n", b"From: own@example.org\r\n"),
        (b"From: \r\n", b"From: own@example.org\r\n"),
        (b"From: Two Words\r\n", b"From: own@example.org\r\n"),
        (b"From: boss@b.example (open\r\n", b"From: own@example.org\r\n"),
        (b'From: "x" <boss@b.example\r\n', b"From: own@example.org\r\n"),
        (b"From: <a@b> boss@b.example\r\n", b"From: own@example.org\r\n"),
        (b"From: =?utf-8?q?boss=40b.example?=\r\n", b"From: own@example.org\r\n"),
        (b"From: a@b\r\nTo: c\r\n", b"From: own@example.org\r\nTo: c@mx.example.com\r\n"),
    ],
)
def test_masquerade(before: bytes, after: bytes) -> None:
    """Every address of every From is the sender; a From that cannot be read is replaced as a whole."""
    assert rewritten(before, SENDER) == after


def test_a_message_grows_only_so_much() -> None:
    """A long list of bare names does not become a mountain; a From that would is one address."""
    block = b"To: " + b",".join([b"a"] * 10_000) + b"\r\n"
    grown = len(rewritten(block)) - len(block)
    assert MAX_GROWTH_BYTES - 20 < grown <= MAX_GROWTH_BYTES
    assert rewritten(b"From: " + b",".join([b"a@b"] * 10_000) + b"\r\n", SENDER) == b"From: own@example.org\r\n"
    huge = b"From: " + b"(x)" * 30_000 + b"a@b\r\n"
    assert rewritten(huge, SENDER) == b"From: own@example.org\r\n"


_PIECES = st.lists(
    st.sampled_from(
        [b"a", b"a@b.example", b"<", b">", b"@", b",", b":", b";", b"(", b")", b'"', b"\\", b" ", b"\r\n ", b"[", b"]",
         b"=?utf-8?q?x?=", b"\xc3\xbc", b"<a@b>", b'"x y"', b"(c)"]
    ),
    max_size=14,
)  # fmt: skip


@given(_PIECES, st.booleans())
def test_completion_only_adds_domains(pieces: list[bytes], is_from: bool) -> None:
    """Take the added domains out, and the client's bytes are there again; doing it twice changes nothing more."""
    value = b"".join(pieces)
    block = (b"From:" if is_from else b"Cc:") + value + b"\r\n"
    once = rewritten(block)
    assert once.replace(b"@mx.example.com", b"") == block
    assert rewritten(once) == once


@given(_PIECES)
def test_no_address_of_the_client_survives_a_masquerade(pieces: list[bytes]) -> None:
    """Outside comments, quotes and encoded words, From has the sender's address and no other, whatever was there."""
    block = b"From:" + b"".join(pieces) + b"\r\n"
    once = rewritten(block, "own@example.org")
    assert once.startswith(b"From:")
    assert once.endswith(b"\r\n")
    assert b"own@example.org" in once
    assert rewritten(once, "own@example.org") == once
    visible = once
    for opening, closing in ((b'"', b'"'), (b"(", b")")):
        while (start := visible.find(opening)) >= 0 and (end := visible.find(closing, start + 1)) >= 0:
            visible = visible[:start] + visible[end + 1 :]
    assert b"a@b" not in visible.replace(b"\\", b"")
