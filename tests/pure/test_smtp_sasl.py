"""pure/sasl: PLAIN and LOGIN responses."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpd_ps.pure.sasl import SaslError, decode_base64, decode_plain, decode_text


def b64(data: bytes) -> bytes:
    return base64.b64encode(data)


def test_plain() -> None:
    """User and password come out; the authorization identity does not matter."""
    assert decode_plain(b64(b"\0user\0pass word")) == ("user", "pass word")
    assert decode_plain(b64(b"other\0user\0p")) == ("user", "p")
    assert decode_plain(b64("\0jürgen\0pässword".encode())) == ("jürgen", "pässword")


@pytest.mark.parametrize(
    "response",
    [
        b"", b"=", b"*", b"!!!!", b"QQ", b"QQ=", b"QUJD\r", b" QUJD", b64(b"user\0pass"), b64(b"\0\0pass"),
        b64(b"\0user\0"), b64(b"\0u\0p\0x"), b64(b"\0u\nv\0p"), b64(b"\0u\0p\r\n"), b64(b"\0u\x7f\0p"),
        b64(b"\0\xff\0p"), b64(b"\0" + b"u" * 256 + b"\0p"), b64(b"\0u\0" + b"p" * 1025),
    ],
)  # fmt: skip
def test_plain_refused(response: bytes) -> None:
    """Bad base64, missing parts, controls (the table-program newline of 7.8.0p1) and overlong values."""
    with pytest.raises(SaslError):
        decode_plain(response)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_base64_round_trip(data: bytes) -> None:
    """Whatever was encoded is decoded."""
    if data:
        assert decode_base64(b64(data)) == data


@settings(deadline=None)
@given(st.binary(max_size=100))
def test_any_response_is_decoded_or_refused(response: bytes) -> None:
    """Only SaslError is raised, and text that comes out is clean."""
    try:
        text = decode_text(response, 64)
    except SaslError:
        return
    assert 0 < len(text) <= 64
    assert not any(ord(c) < 32 for c in text)
