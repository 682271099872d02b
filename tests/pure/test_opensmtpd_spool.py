"""Envelopes of OpenSMTPD's version 3, and its bodies."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.contract.values import Notify
from smtpd_ps.pure.opensmtpd_spool import BadEnvelope, network_body, parse_envelope

MDA = b"""\
version: 3
dispatcher: local
tag: outside
type: mda
smtpname: mx.example.com
helo: client.example.net
hostname: client.example.net
username: ann
errorline: 451 4.3.0 later
sockaddr: [2001:db8::1]
sender: ann@example.net
rcpt: bob+x@example.com
dest: bob@example.com
ctime: 1700000000
last-try: 1700000400
ttl: 345600
retry: 2
flags: authenticated internal
dsn-notify: 5
dsn-ret: HDRS
dsn-envid: abc
dsn-orcpt: rfc822;bob@example.com
mda-user: bob
"""


def test_every_key_has_its_place() -> None:
    """What we keep of an envelope is what OpenSMTPD kept."""
    old = parse_envelope(MDA)
    one = old.envelope
    assert (one.action, one.sender, one.rcpt, one.dest, one.user) == (
        "local", "ann@example.net", "bob+x@example.com", "bob@example.com", "bob",
    )  # fmt: skip
    assert (one.client.address, one.client.name, one.client.user, one.client.tag) == (
        "2001:db8::1", "client.example.net", "ann", "outside",
    )  # fmt: skip
    assert (old.created_secs, old.last_try_secs, old.tries, old.text) == (1700000000, 1700000400, 2, "451 4.3.0 later")
    assert one.dsn.notify == Notify.SUCCESS | Notify.DELAY and one.dsn.ret == "HDRS" and one.dsn.envid == "abc"
    assert one.forwarded and not one.internal and not old.bounce


@pytest.mark.parametrize(
    ("extra", "check"),
    [
        (b"sender: @\n", lambda old: old.envelope.sender == ""),
        (b"type: bounce\nbounce-type: failed\n", lambda old: old.bounce == "failed"),
        (b"type: bounce\nbounce-type: delayed\n", lambda old: old.bounce == "delayed"),
        (b"flags: bounce\n", lambda old: old.envelope.internal),
        (b"sockaddr: local\n", lambda old: old.envelope.client.address == "local"),
        (b"mda-exec: /usr/bin/vacation bob\n", lambda old: old.envelope.target == "|/usr/bin/vacation bob"),
        (b"dsn-notify: 8\n", lambda old: old.envelope.dsn.notify == Notify.NEVER),
        (b"unknown: x\n", lambda old: True),
    ],
)  # fmt: skip
def test_variations(extra: bytes, check) -> None:
    """The null sender, bounces under way, local mail, commands."""
    assert check(parse_envelope(MDA + extra))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (MDA.replace(b"version: 3", b"version: 2"), "version '2', expected 3"),
        (MDA.replace(b"version: 3\n", b""), "version 'missing'"),
        (MDA.replace(b"type: mda", b"type: x"), "type 'x'"),
        (MDA.replace(b"dispatcher: local\n", b""), "no dispatcher"),
        (MDA.replace(b"rcpt: bob+x@example.com\n", b""), "rcpt ''"),
        (MDA + b"flags: new\n", "flags 'new'"),
        (MDA + b"ctime: -1\n", "ctime '-1'"),
        (MDA + b"dsn-notify: 16\n", "dsn-notify '16'"),
        (MDA + b"no key\n", "a line without a key"),
        (MDA + b"errorline: a\x07b\n", "control characters in errorline"),
        (b"\xff\xfe", "not text"),
        (MDA + b"x" * 70_000, "longer than"),
    ],
)
def test_what_is_no_envelope(data: bytes, why: str) -> None:
    """It is said why."""
    with pytest.raises(BadEnvelope, match=why.replace("(", r"\(")):
        parse_envelope(data)


@given(st.one_of(st.binary(max_size=400), st.text(max_size=400).map(str.encode)))
def test_any_bytes(data: bytes) -> None:
    """An envelope or BadEnvelope."""
    try:
        parse_envelope(MDA + data)
    except BadEnvelope:
        return


@given(st.binary(max_size=200))
def test_bodies_have_network_line_ends(data: bytes) -> None:
    """Every CR and LF is part of a CRLF, and nothing else changes."""
    made = network_body(data)
    assert b"\r" not in made.replace(b"\r\n", b"") and b"\n" not in made.replace(b"\r\n", b"")
    assert made.translate(None, b"\r\n") == data.translate(None, b"\r\n")
