"""A message on its way in: what the client sends becomes what queue stores.

Runs in smtp on the bytes of remote clients. Keeps a message in memory until it is known to be
small (it then travels in one Commit) or outgrows that (it then goes to a spool file, block by
block), checks its header and puts the Received header on top. A message that must be refused is
swallowed to its end and refused once.
"""

from zlib import crc32

from smtpd_ps.contract.values import INLINE_BODY_BYTES
from smtpd_ps.pure import smtp_replies as say
from smtpd_ps.pure.header_addresses import MAX_GROWTH_BYTES, AddressFields
from smtpd_ps.pure.smtp_data import ChunkReader, DataReader, Fault, MessageReader
from smtpd_ps.pure.smtp_header import (
    MAX_HEADER_BYTES,
    Header,
    HeaderError,
    LoopError,
    examine,
    header_complete,
    without_bcc,
)  # fmt: skip

_ADDED_BYTES = 512 + MAX_GROWTH_BYTES  # Date, Message-ID and domains: no more is added but Received
SWALLOW_BYTES = 64 << 20  # beyond twice the limit; then the connection is closed

_FAULTS = (
    (Fault.BARE, say.BARE_LINE_END),
    (Fault.NUL, say.NUL_BYTE),
    (Fault.LONG_LINE, say.DATA_LINE_TOO_LONG),
    (Fault.TOO_BIG, say.TOO_BIG),
)


class Intake:
    """One message. `received` goes on top; `date` and `message_id`, header lines, are added where
    the message lacks them ("" to leave it alone), and `addresses` says what becomes of To, Cc and From. A
    `chunked` one ends with `finish`, another by itself.
    """  # fmt: skip

    __slots__ = (
        "_addresses", "_date", "_kept", "_max_bytes", "_message_id", "_reader", "_received", "_refusal",
        "crc", "in_file", "stored",
    )  # fmt: skip

    def __init__(
        self,
        max_bytes: int,
        received: bytes,
        addresses: AddressFields,
        date: str = "",
        message_id: str = "",
        *,
        chunked: bool = False,
    ) -> None:
        self._reader: MessageReader = ChunkReader(max_bytes) if chunked else DataReader(max_bytes)
        self._max_bytes = max_bytes
        self._received = received
        self._addresses = addresses
        self._date = date
        self._message_id = message_id
        self._kept = bytearray()
        self._refusal = b""
        self.in_file = False  # the header is through, and `feed` returns what goes to the file
        self.stored = 0  # bytes that were handed out
        self.crc = 0  # of what goes to the file

    @property
    def done(self) -> bool:
        """Whether the end of the message was seen."""
        return self._reader.done

    @property
    def rest(self) -> bytes:
        """What the client sent after the end."""
        return self._reader.rest

    @property
    def eight_bit(self) -> bool:
        """Whether the message has bytes above 127."""
        return self._reader.eight_bit

    @property
    def hopeless(self) -> bool:
        """Whether the client goes on and on with a message that is too big."""
        return self._reader.size_bytes > 2 * self._max_bytes + SWALLOW_BYTES

    @property
    def size_bytes(self) -> int:
        """The message's size as the client sent it."""
        return self._reader.size_bytes

    def refusal(self) -> bytes:
        """The reply that refuses the message, b"" while there is nothing against it."""
        faults = self._reader.faults
        if faults:
            return next(line for fault, line in _FAULTS if faults & fault)
        return self._refusal

    def refuse(self, line: bytes) -> None:
        """Refuse it for a reason that is not in its bytes."""
        self._refusal = self._refusal or line
        self._kept.clear()

    def feed(self, data: bytes) -> bytes:
        """Take what arrived; return what is to be appended to the spool file (if it is `in_file`)."""
        return self._add(self._reader.feed(data))

    def finish(self) -> bytes:
        """The last chunk has come; the same of what its end adds."""
        return self._add(self._reader.finish())

    def _add(self, block: bytes) -> bytes:
        if self._reader.faults or self._refusal:
            self._kept.clear()
            return b""
        if self.in_file:
            self.stored += len(block)
            self.crc = crc32(block, self.crc)
            return block
        self._kept += block
        return b""

    @property
    def outgrown(self) -> bool:
        """Whether it is time to ask for a spool file; `spill` then returns its first block."""
        kept = self._kept
        if self.in_file or len(kept) + len(self._received) + _ADDED_BYTES <= INLINE_BODY_BYTES:
            return False
        return self.done or len(kept) > MAX_HEADER_BYTES or header_complete(kept)

    def take(self) -> bytes:
        """All that is kept, Received on top and the header completed; b"" when it is refused."""
        header = self._check()
        if header is None:
            return b""
        added = f"{'' if header.has_date else self._date}{'' if header.has_message_id else self._message_id}"
        before = bytes(self._kept[: header.end])
        block = self._addresses.rewrite(before, header.fields)
        if added or header.has_bcc or block is not before:
            if header.has_bcc:
                block = without_bcc(block)
            data = b"".join((self._received, block, added.encode("ascii", "replace"), self._kept[header.end :]))
        else:
            data = b"".join((self._received, self._kept))
        self._kept.clear()
        self.stored += len(data)
        return data

    def spill(self) -> bytes:
        """`take`, and from now on `feed` returns what follows."""
        data = self.take()
        self.crc = crc32(data)
        self.in_file = not self._refusal
        return data

    def _check(self) -> Header | None:
        kept = self._kept
        too_big = len(kept) > MAX_HEADER_BYTES and not header_complete(kept)
        try:
            header = examine(kept[: kept.rfind(b"\n", 0, MAX_HEADER_BYTES) + 1] if too_big else kept)
        except HeaderError:
            self.refuse(say.BAD_MESSAGE)
        except LoopError:
            self.refuse(say.LOOP)
        else:
            if not too_big:
                return header
            self.refuse(say.HEADER_TOO_BIG)
        return None


class FilteredIntake(Intake):
    """A message whose bytes pass through filter programs: read with `feed_through`, stored as they come back."""

    __slots__ = ("_back_bytes", "_back_eight_bit", "ended")

    def __init__(
        self,
        max_bytes: int,
        received: bytes,
        addresses: AddressFields,
        date: str = "",
        message_id: str = "",
        *,
        chunked: bool = False,
    ) -> None:
        super().__init__(max_bytes, received, addresses, date, message_id, chunked=chunked)
        self.ended = False  # all has come back
        self._back_bytes = 0
        self._back_eight_bit = False

    @property
    def done(self) -> bool:
        """Whether all has come back."""
        return self.ended

    @property
    def sent_all(self) -> bool:
        """Whether the client has sent the end of the message."""
        return self._reader.done

    @property
    def eight_bit(self) -> bool:
        """Whether what the programs made of it has bytes above 127."""
        return self._back_eight_bit

    def feed_through(self, data: bytes) -> bytes:
        """Take what the client sent; return what the programs are to see of it."""
        block = self._reader.feed(data)
        return b"" if self.refusal() else block

    def take_back(self, data: bytes) -> bytes:
        """Take what came back; return what is to be appended to the spool file (if it is `in_file`)."""
        self._back_bytes += len(data)
        if self._back_bytes > 2 * self._max_bytes + MAX_HEADER_BYTES:
            self.refuse(say.TOO_BIG)  # a program that goes on and on
        if not self._back_eight_bit and not data.isascii():
            self._back_eight_bit = True
        return self._add(data)
