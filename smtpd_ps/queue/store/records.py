"""What is stored of a message: its envelopes with their state, as a checked record.

Runs in queue; parses bytes that came back from the disk, which may have rotted. A record is
MessagePack of `StoredMessage`; it names its own message id and carries the checksum of the body,
so that a row can be told from another's and a body from a damaged one.
"""

import zlib
from enum import IntEnum
from typing import Literal, Protocol

import msgspec

from smtpd_ps.contract.values import U8, U32, U63, Envelope, Line, Name

RECORD_VERSION = 1
CODED_MARK = b"\xc1"  # begins what is coded; MessagePack never uses it, so that no plain record begins so


PAUSED_MS = 1 << 62  # is added to the due time of a paused envelope, which so is not due before it is resumed


class EnvelopeState(IntEnum):
    """What is to be done with an envelope; a finished one is not there any more."""

    PENDING = 0  # to be delivered
    FAILED = 1  # to be bounced, then removed
    DELIVERED = 2  # the sender asked to hear of it (NOTIFY=SUCCESS); then removed
    RELAYED = 3  # the same, by a host without DSN


class StoredEnvelope(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """One envelope with its history. Times are Unix milliseconds."""

    envelope: Envelope
    due_ms: U63
    state: EnvelopeState = EnvelopeState.PENDING
    tries: U32 = 0
    last_try_ms: U63 = 0
    warnings: U8 = 0  # "delayed" notices sent
    notice_tries: U32 = 0  # of finding a route for its bounce
    text: Line = ""  # the last error
    relay: Name = ""

    @property
    def paused(self) -> bool:
        """Whether the operator keeps it from being tried."""
        return self.due_ms >= PAUSED_MS

    @property
    def next_try_ms(self) -> int:
        """When it is due, or would be if it were not paused."""
        return self.due_ms & (PAUSED_MS - 1)

    def pause(self) -> None:
        """Keep it from being tried."""
        self.due_ms |= PAUSED_MS

    def resume(self) -> None:
        """Let it be tried again."""
        self.due_ms &= PAUSED_MS - 1


class StoredMessage(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """One message: everything but its body. `envelopes` are those not finished, by evpid."""

    version: int
    msgid: U32
    created_ms: U63
    size_bytes: U63
    eight_bit: bool
    in_file: bool  # the body is a file, not in the store
    body_crc: U32
    envelopes: dict[U63, StoredEnvelope]
    coded: bool = False  # the body is compressed or encrypted (store/coding); size and checksum are of the plain one

    @property
    def due_ms(self) -> int:
        """When the first of the envelopes is due."""
        return min([one.due_ms for one in self.envelopes.values()])


class DamagedRecord(Exception):
    """A record or a body that is not what was stored."""


class NoKey(DamagedRecord):
    """Encrypted, and there is no key: nothing is known to be wrong with it."""


class Decoder(Protocol):
    """As much of coding.Coder as is needed to read a record."""

    def decode(self, part: Literal["record", "body"], msgid: int, data: bytes) -> bytes:
        """What was coded. Raises DamagedRecord."""


checksum = zlib.crc32
encode_record = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(StoredMessage).decode


def decode_record(msgid: int, data: object, crc: object, decoder: Decoder | None = None) -> StoredMessage:
    """The message of a record. Raises DamagedRecord, saying why."""
    if not isinstance(data, bytes) or checksum(data) != crc:
        raise DamagedRecord("record checksum")
    if decoder is not None and data[:1] == CODED_MARK:
        data = decoder.decode("record", msgid, data)
    try:
        message = _decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DamagedRecord(f"record: {error}") from None
    if message.version != RECORD_VERSION:
        raise DamagedRecord(f"record version {message.version}")
    if message.msgid != msgid or not message.envelopes:
        raise DamagedRecord("record of another message" if message.envelopes else "record without envelopes")
    if any(evpid >> 32 != msgid for evpid in message.envelopes):
        raise DamagedRecord("envelope of another message")
    return message
