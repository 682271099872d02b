"""The header block of a message that is received: its syntax, its hops, what a submission lacks.

Runs in smtp on the bytes of remote clients. As lenient as OpenSMTPD's parser: a header line is
anything with a colon that does not begin with a blank; a message may end within its header
(QUIRKS 9).
"""

import re
from dataclasses import dataclass

from smtpd_ps.pure.header_addresses import find_fields

MAX_HEADER_BYTES = 262_144
MAX_HOPS = 100

# Possessive, so that the scan is linear and stops where the block stops being a header.
_FIELD = rb"[^ \t\r\n:][^\r\n:]*+:[^\r\n]*+\r\n(?:[ \t][^\r\n]*+\r\n)*+"
_BLOCK = re.compile(rb"(?:" + _FIELD + rb")*+").match
_BCC = re.compile(rb"(?i:^bcc[ \t]*+:)[^\r\n]*+\r\n(?:[ \t][^\r\n]*+\r\n)*+", re.MULTILINE)


class HeaderError(ValueError):
    """Not a header block."""


class LoopError(ValueError):
    """A hundred Received headers: the message goes round."""


@dataclass(frozen=True, slots=True)
class Header:
    """What stands at the beginning of a message."""

    end: int  # where the block ends and the blank line begins, if there is one
    has_date: bool
    has_message_id: bool
    has_bcc: bool
    fields: list[tuple[bool, int, int]]  # with addresses (pure/header_addresses)


def header_complete(data: bytes | bytearray) -> bool:
    """Whether the blank line after the header block is there, within MAX_HEADER_BYTES."""
    return data.startswith(b"\r\n") or data.find(b"\r\n\r\n", 0, MAX_HEADER_BYTES) >= 0


def examine(data: bytes | bytearray) -> Header:
    """The header block of `data`, which holds at least all of it. Raises HeaderError, LoopError."""
    match = _BLOCK(data)
    end = match.end() if match is not None else 0
    if end < len(data) and not data.startswith(b"\r\n", end):
        raise HeaderError(f"line at byte {end} is no header")
    names = b"\n" + bytes(data[:end]).lower()
    if names.count(b"\nreceived:") >= MAX_HOPS:
        raise LoopError(f"{MAX_HOPS} Received headers")
    return Header(end, b"\ndate:" in names, b"\nmessage-id:" in names, b"\nbcc" in names, find_fields(names))


def without_bcc(block: bytes) -> bytes:
    """A header block without its Bcc fields."""
    return _BCC.sub(b"", block)
