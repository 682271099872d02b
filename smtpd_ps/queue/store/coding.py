"""How records and bodies lie on the disk: as they are, compressed, encrypted, or both.

Runs in queue; parses bytes that came back from the disk, which may have rotted or been changed by
somebody without the key. What is coded says so itself (MARK and how), so that turning compression or
encryption on or off strands nothing:

    MARK, how (1 compressed, 2 encrypted), and then
    how 1: zlib; how 2, 3: nonce (12 bytes), AES-256-GCM of the bytes (3: of the zlib), tag (16 bytes)

The message's id and what it is of the message are the associated data: nothing can be put in the
place of something else. A nonce is 8 random bytes of this run and a counter of 4: within a run none is
used twice, and two runs share those 8 bytes once in 2^64.
"""

import os
import zlib
from collections.abc import Callable, Iterator
from enum import IntFlag
from typing import BinaryIO, Literal, Protocol, Self

from smtpd_ps.queue.store.records import CODED_MARK, DamagedRecord, NoKey

HEAD_BYTES = 2
NONCE_BYTES, TAG_BYTES = 12, 16
CHUNK_BYTES = 256 * 1024
LEVEL = 1  # of zlib: four times as fast as the usual 6, for a tenth more bytes of mail
WORTHWHILE_BYTES = 256  # below, nothing is compressed
MOST_BYTES = 16 * 1024 * 1024  # that a record or a small body may become; beyond, it is damaged

Part = Literal["record", "body", "check"]


class Coded(IntFlag):
    """How something was coded."""

    COMPRESSED = 1
    ENCRYPTED = 2


class WrongKey(Exception):
    """The key is not the one that the queue was encrypted with, or there is none."""


class Encryption(Protocol):
    """As osdep.aes_gcm.Encryption."""

    def __enter__(self) -> Self:
        """Is freed at the end."""

    def __exit__(self, *_error: object) -> None:
        """Free it."""

    def update(self, data: bytes) -> bytes:
        """The ciphertext."""

    def finish(self) -> bytes:
        """The tag."""


class Decryption(Protocol):
    """As osdep.aes_gcm.Decryption."""

    def __enter__(self) -> Self:
        """Is freed at the end."""

    def __exit__(self, *_error: object) -> None:
        """Free it."""

    def update(self, data: bytes) -> bytes:
        """The plain text, not to be believed yet."""

    def finish(self, tag: bytes) -> bool:
        """Whether it is to be believed."""


class Key(Protocol):
    """As osdep.aes_gcm.Key, which is loaded only where there is a key."""

    def encryption(self, nonce: bytes, associated: bytes) -> Encryption:
        """One encryption."""

    def decryption(self, nonce: bytes, associated: bytes) -> Decryption:
        """One decryption."""

    def encrypt(self, nonce: bytes, associated: bytes, data: bytes) -> bytes:
        """Ciphertext and tag."""


class Coder:
    """`key` None can read and write what is not encrypted; with a key `encrypt` says whether new things are."""

    def __init__(self, compress: bool = False, key: Key | None = None) -> None:
        self.compress = compress
        self.encrypt = key is not None
        self._key = key
        self._run = b""
        self._count = 0

    @property
    def has_key(self) -> bool:
        """Whether what is encrypted can be read."""
        return self._key is not None

    @property
    def active(self) -> bool:
        """Whether anything is to be done with new mail."""
        return self.compress or self.encrypt

    def _nonce(self) -> bytes:
        if not self._run or self._count >= 0xFFFFFFFF:
            self._run, self._count = os.urandom(NONCE_BYTES - 4), 0
        self._count += 1
        return self._run + self._count.to_bytes(4, "big")

    @staticmethod
    def _associated(part: Part, msgid: int) -> bytes:
        return f"smtpd_ps 1 {part} {msgid:08x}".encode()

    # In one piece.

    def encode(self, part: Part, msgid: int, data: bytes) -> bytes | None:
        """`data` coded; None where it is best left as it is."""
        how = Coded(0)
        if self.compress and len(data) >= WORTHWHILE_BYTES:
            packed = zlib.compress(data, LEVEL)
            if len(packed) < len(data):
                data, how = packed, Coded.COMPRESSED
        if self.encrypt and self._key is not None:
            how |= Coded.ENCRYPTED
            nonce = self._nonce()
            data = nonce + self._key.encrypt(nonce, self._associated(part, msgid), data)
        return CODED_MARK + bytes((how,)) + data if how else None

    def decode(self, part: Part, msgid: int, data: bytes) -> bytes:
        """What was coded. Raises DamagedRecord."""
        pieces = []
        size_bytes = 0
        for piece in self.decoded(part, msgid, len(data), _reader(data)):
            size_bytes += len(piece)
            if size_bytes > MOST_BYTES:
                raise DamagedRecord(f"{part} of more than {MOST_BYTES} bytes")
            pieces.append(piece)
        return b"".join(pieces)

    # In pieces.

    def encode_file(self, msgid: int, source: BinaryIO, target: BinaryIO) -> None:
        """A large body, coded whatever it gains. Raises OSError."""
        how = (Coded.COMPRESSED if self.compress else Coded(0)) | (Coded.ENCRYPTED if self.encrypt else Coded(0))
        target.write(CODED_MARK + bytes((how,)))
        packing = zlib.compressobj(LEVEL) if self.compress else None
        if not self.encrypt or self._key is None:
            for piece in _packed(source, packing):
                target.write(piece)
            return
        nonce = self._nonce()
        target.write(nonce)
        with self._key.encryption(nonce, self._associated("body", msgid)) as sealing:
            for piece in _packed(source, packing):
                target.write(sealing.update(piece))
            target.write(sealing.finish())

    def decoded(self, part: Part, msgid: int, size_bytes: int, read: Callable[[int], bytes]) -> Iterator[bytes]:
        """The pieces of what `read` gives, `size_bytes` long; to be used when all have come, and no
        DamagedRecord was raised. A piece is at most CHUNK_BYTES long, give or take.
        """
        head = read(HEAD_BYTES)
        if len(head) < HEAD_BYTES or head[:1] != CODED_MARK or not 1 <= head[1] <= 3:
            raise DamagedRecord(f"{part} coded in an unknown way")
        how, left = Coded(head[1]), size_bytes - HEAD_BYTES
        pieces = self._opened(part, msgid, left, read) if Coded.ENCRYPTED in how else _chunks(part, left, read)
        yield from _unpacked(part, pieces) if Coded.COMPRESSED in how else pieces

    def _opened(self, part: Part, msgid: int, left: int, read: Callable[[int], bytes]) -> Iterator[bytes]:
        if self._key is None:
            raise NoKey(f"{part} is encrypted, and there is no key")
        nonce = read(NONCE_BYTES)
        left -= NONCE_BYTES + TAG_BYTES
        if left < 0 or len(nonce) < NONCE_BYTES:
            raise DamagedRecord(f"{part} is cut off")
        with self._key.decryption(nonce, self._associated(part, msgid)) as opening:
            for piece in _chunks(part, left, read):
                yield opening.update(piece)
            if not opening.finish(read(TAG_BYTES)):
                raise DamagedRecord(f"{part} is not what was encrypted")

    # The key.

    def check_value(self) -> bytes:
        """What only this key can read."""
        return self.encode("check", 0, b"smtpd_ps") or b""

    def check(self, value: bytes) -> None:
        """Raises WrongKey where another key made `value`."""
        try:
            self.decode("check", 0, value)
        except DamagedRecord:
            raise WrongKey("the key of queue encryption is not the one that the queue was encrypted with") from None


def _reader(data: bytes) -> Callable[[int], bytes]:
    at = 0

    def read(most: int) -> bytes:
        nonlocal at
        piece = data[at : at + most]
        at += len(piece)
        return piece

    return read


def _chunks(part: Part, left: int, read: Callable[[int], bytes]) -> Iterator[bytes]:
    while left > 0:
        piece = read(min(left, CHUNK_BYTES))
        if not piece:
            raise DamagedRecord(f"{part} is cut off")
        left -= len(piece)
        yield piece


def _packed(source: BinaryIO, packing: "zlib._Compress | None") -> Iterator[bytes]:
    while piece := source.read(CHUNK_BYTES):
        yield piece if packing is None else packing.compress(piece)
    if packing is not None:
        yield packing.flush()


def _unpacked(part: Part, pieces: Iterator[bytes]) -> Iterator[bytes]:
    unpacking = zlib.decompressobj()
    try:
        for piece in pieces:
            while piece:
                yield unpacking.decompress(piece, CHUNK_BYTES)
                piece = unpacking.unconsumed_tail
        yield unpacking.flush()
    except zlib.error as error:
        raise DamagedRecord(f"{part}: {error}") from None
    if not unpacking.eof or unpacking.unused_data:
        raise DamagedRecord(f"{part} is cut off")
