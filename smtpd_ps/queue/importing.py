"""Takes messages of an OpenSMTPD spool into ours, each once.

Runs in the importer, a process that is confined as queue is and holds its spool while the daemon is stopped;
parses what is in the old files (pure/opensmtpd_spool). A message becomes one of ours in one transaction; a line
in the file "imported" remembers it for the next run, when ours may long be delivered.
"""

import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from smtpd_ps.contract.values import INLINE_BODY_BYTES, message_id_text
from smtpd_ps.pure.opensmtpd_spool import BadEnvelope, OldEnvelope, network_body, parse_envelope
from smtpd_ps.queue.bodies import BodyFiles
from smtpd_ps.queue.store.embedded import EmbeddedStore
from smtpd_ps.queue.store.protocol import Group, Insert
from smtpd_ps.queue.store.records import (
    RECORD_VERSION,
    EnvelopeState,
    StoredEnvelope,
    StoredMessage,
    checksum,
)

IMPORTED = "imported"
MAX_BODY_BYTES = 256 * 1024 * 1024
MAX_ENVELOPE_PLAIN_BYTES = 65_536
SECOND_MS = 1000
_GZIP = b"\x1f\x8b"
_ENCRYPTED = b"\x01"  # the version of OpenSMTPD's encryption
_NONCE_BYTES, _TAG_BYTES = 12, 16
_STATES = {"failed": EnvelopeState.FAILED, "delivered": EnvelopeState.DELIVERED}


class Key(Protocol):
    """As osdep.aes_gcm.Key."""

    def decrypt(self, nonce: bytes, associated: bytes, data: bytes) -> bytes | None:
        """The plain text of ciphertext and tag, or None."""


class NotTaken(Exception):
    """A message that cannot be imported; the text says why. It stays where it is."""


class Importer:
    """`directory` is our spool's. Raises StoreError, OSError."""

    def __init__(self, directory: Path, key: Key | None, now_ms: int) -> None:
        self._key = key
        self._now_ms = now_ms
        self._store = EmbeddedStore(directory / "queue.db")
        self._bodies = BodyFiles(directory / "bodies")
        self._list = os.open(directory / IMPORTED, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with open(self._list, "rb", closefd=False) as file:
            self._known = set(file.read().decode("ascii", "replace").split("\n"))

    def take(self, old_msgid: int, body: bytes, envelopes: Mapping[int, bytes]) -> int:
        """Import a message: its envelopes, 0 where that was done before. Raises NotTaken, StoreError, OSError."""
        mark = f"{message_id_text(old_msgid)} {zlib.crc32(body):08x}"
        if mark in self._known:
            return 0
        plain = network_body(self._plain(body, MAX_BODY_BYTES))
        parsed = [self._envelope(evpid, data) for evpid, data in sorted(envelopes.items())]
        kept = [one for one in parsed if one.bounce != "delayed"]  # a notice: the mail itself waits beside it
        if not kept:
            raise NotTaken("it has no envelope")
        message = self._message(old_msgid, plain, kept)
        if message is not None:
            if message.in_file:
                self._bodies.remove(message.msgid)  # left by a run that was killed
                self._bodies.write(message.msgid, plain)
            self._store.write(Group([Insert(message, None if message.in_file else plain)], [], []))
        os.write(self._list, f"{mark}\n".encode())
        os.fsync(self._list)
        self._known.add(mark)
        return len(kept) if message is not None else 0

    def _message(self, old_msgid: int, plain: bytes, kept: list[OldEnvelope]) -> StoredMessage | None:
        """What is to be stored; None where a run that was killed has stored it."""
        crc, created_ms = checksum(plain), min(one.created_secs for one in kept) * SECOND_MS
        msgid = old_msgid & 0x7FFFFFFF or 1
        while self._store.has(msgid):
            (there,) = self._store.load([msgid])
            if isinstance(there, StoredMessage) and (there.body_crc, there.created_ms) == (crc, created_ms):
                return None
            msgid = msgid % 0x7FFFFFFF + 1
        return StoredMessage(
            RECORD_VERSION, msgid, created_ms, len(plain), not plain.isascii(), len(plain) > INLINE_BODY_BYTES, crc,
            {msgid << 32 | number: self._stored(one) for number, one in enumerate(kept, 1)},
        )  # fmt: skip

    def _stored(self, one: OldEnvelope) -> StoredEnvelope:
        state = _STATES.get(one.bounce, EnvelopeState.PENDING)
        return StoredEnvelope(
            one.envelope, self._now_ms, state, one.tries, one.last_try_secs * SECOND_MS,
            text=one.text or ("5.0.0 Permanent failure" if state is EnvelopeState.FAILED else ""),
        )  # fmt: skip

    def _envelope(self, evpid: int, data: bytes) -> OldEnvelope:
        try:
            return parse_envelope(self._plain(data, MAX_ENVELOPE_PLAIN_BYTES))
        except BadEnvelope as error:
            raise NotTaken(f"envelope {evpid:016x}: {error}") from None

    def _plain(self, data: bytes, most_bytes: int) -> bytes:
        """Decrypted and decompressed, where it is encrypted or compressed: OpenSMTPD's files do not say which."""
        if self._key is not None and data[:1] == _ENCRYPTED:
            opened = self._key.decrypt(data[1 : 1 + _NONCE_BYTES], b"", data[1 + _NONCE_BYTES :])
            if opened is None:
                raise NotTaken("it is not encrypted with this key, or damaged")
            data = opened
        if data[:2] == _GZIP:
            unpacking = zlib.decompressobj(31)
            try:
                data = unpacking.decompress(data, most_bytes)
            except zlib.error as error:
                raise NotTaken(f"it is not compressed as OpenSMTPD does: {error}") from None
            if not unpacking.eof:
                raise NotTaken("it is cut off, or very large")
        elif data[:1] == _ENCRYPTED and self._key is None:
            raise NotTaken("it is encrypted: give the key")
        return data

    def close(self) -> None:
        """Finish. Raises StoreError."""
        self._store.close()
        self._bodies.close()
        os.close(self._list)
