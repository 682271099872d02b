"""SASL responses of clients: PLAIN (RFC 4616) and LOGIN, in base64.

Runs in smtp on the bytes of remote clients. User names and passwords with control characters are
refused here, before they reach any line protocol.
"""

import binascii

MAX_USER = 255
MAX_PASSWORD = 1024


class SaslError(ValueError):
    """Not a response we can use: 501."""


def decode_base64(response: bytes) -> bytes:
    """Decode strictly; "=" alone is the empty response (RFC 4954 4). Raises SaslError."""
    if response == b"=":
        return b""
    try:
        return binascii.a2b_base64(response, strict_mode=True)
    except binascii.Error:
        raise SaslError("bad base64") from None


def decode_text(response: bytes, limit: int) -> str:
    """One base64 value that is clean text of 1 to `limit` characters. Raises SaslError."""
    return _clean(decode_base64(response), limit)


def decode_plain(response: bytes) -> tuple[str, str]:
    """User and password of a PLAIN response.

    The authorization identity before the first NUL is ignored, as OpenSMTPD does: nobody acts for
    another here. Raises SaslError.
    """
    parts = decode_base64(response).split(b"\0")
    if len(parts) != 3:
        raise SaslError("not three parts")
    return _clean(parts[1], MAX_USER), _clean(parts[2], MAX_PASSWORD)


def _clean(value: bytes, limit: int) -> str:
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        raise SaslError("not UTF-8") from None
    if not 0 < len(text) <= limit or any(c < " " or c == "\x7f" for c in text):
        raise SaslError("empty, too long, or with control characters")
    return text
