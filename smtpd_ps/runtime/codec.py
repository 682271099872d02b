"""Frames: the OpenBSD imsg header and a strictly typed payload.

Runs in every process; parses bytes of the peer process, which may have been taken over.
A frame is `=IIII` (type, length of the whole frame with the top bit as the descriptor mark,
peerid, pid) and a MessagePack array that msgspec decodes into exactly the declared type:
wrong types, missing or extra fields, trailing bytes and exceeded bounds are all refused.
"""

import struct

import msgspec

from smtpd_ps.contract.messages import Message
from smtpd_ps.contract.routes import BY_NUMBER, BY_TYPE

HEADER = struct.Struct("=IIII")
HEADER_BYTES = HEADER.size
FD_MARK = 1 << 31


class ContractViolation(Exception):
    """A peer said what the contract does not let it say."""


_encode = msgspec.msgpack.Encoder().encode
_DECODERS: dict[int, msgspec.msgpack.Decoder[Message]] = {
    number: msgspec.msgpack.Decoder(route.message) for number, route in BY_NUMBER.items()
}


def encode(message: Message, pid: int = 0) -> bytes:
    """The frame of `message`. Raises ContractViolation where it exceeds its own bound."""
    route = BY_TYPE[type(message)]
    payload = _encode(message)
    if len(payload) > route.max_bytes:
        raise ContractViolation(f"{type(message).__name__} of {len(payload)} bytes is over its bound")
    length = HEADER_BYTES + len(payload)
    if route.fds:
        length |= FD_MARK
    return HEADER.pack(route.number, length, 0, pid) + payload


def decode(number: int, payload: bytes | memoryview) -> Message:
    """The message of type `number`. Raises ContractViolation."""
    try:
        return _DECODERS[number].decode(payload)
    except KeyError:
        raise ContractViolation(f"unknown message type {number}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        name = BY_NUMBER[number].message.__name__
        raise ContractViolation(f"malformed {name}: {error}") from None
