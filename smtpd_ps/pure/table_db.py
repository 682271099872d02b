"""Table databases: a cdb that makemap made, and what it noted behind the cdb for who looks things up.

Runs in lookup, confined, on files of the operator, and in makemap. Behind the cdb come the notes, and at the
end of the file a seal: whether it is a list or a mapping, how many entries there are, where the notes are, and
a CRC-32 of all before it, by which a damaged or unfinished file is known before it is used.

The notes are lines: the beginnings of the password hashes among the values ("$6$"), with blanks between them,
and then each key that matches more than what equals it (a glob, a network, an address in another form than
the usual). With these a rule over a million domains or addresses needs none of the others in memory.
"""

import struct
from binascii import crc32
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from smtpd_ps.pure.cdb import HEADER_BYTES, CdbError, CdbReader, CdbWriter, Read
from smtpd_ps.pure.match_tables import parse_network
from smtpd_ps.pure.table import TableKind

MAGIC = b"smtpd_ps table 1"
MAX_NOTES_BYTES = 64 * 1024 * 1024
MAX_HASH_START = 32
_SEAL = struct.Struct("<16sIIIII")  # magic, 1 for a list, entries, position and length of the notes, crc
SEAL_BYTES = _SEAL.size
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class TableDb:
    """An open database whose seal was right. `patterns` are the keys that match more than what equals them."""

    kind: TableKind
    entries: int
    patterns: tuple[str, ...]
    hash_starts: tuple[str, ...]
    cdb: CdbReader


def is_pattern(key: str) -> bool:
    """Whether a key of a table may match what is not equal to it, whatever the table is used for."""
    if "*" in key or key.endswith("@"):
        return True
    network = parse_network(key) if "/" in key or "[" in key or ":" in key else None
    if network is None:
        return False
    version, value, ignored = network
    return ignored > 0 or str(IPv4Address(value) if version == 4 else IPv6Address(value)) != key


def open_table_db(read: Read, size: int) -> TableDb:
    """Check the seal, reading all of the file once. Raises CdbError, and what `read` raises."""
    if size < HEADER_BYTES + SEAL_BYTES:
        raise CdbError("it was not made by makemap")
    end = size - SEAL_BYTES
    seal = read(end, SEAL_BYTES)
    if len(seal) != SEAL_BYTES or seal[: len(MAGIC)] != MAGIC:
        raise CdbError("it was not made by makemap")
    _magic, is_list, entries, notes_at, notes_bytes, checksum = _SEAL.unpack(seal)
    if notes_at < HEADER_BYTES or notes_at + notes_bytes != end or notes_bytes > MAX_NOTES_BYTES:
        raise CdbError("it is damaged")
    found = 0
    for start in range(HEADER_BYTES, end, _CHUNK):
        found = crc32(read(start, min(_CHUNK, end - start)), found)
    found = crc32(seal[:-4], crc32(read(0, HEADER_BYTES), found))
    if found != checksum:
        raise CdbError("it is damaged")
    try:
        starts, *patterns = read(notes_at, notes_bytes).decode().split("\n")
    except UnicodeDecodeError:
        raise CdbError("it is damaged") from None
    kind: TableKind = "list" if is_list else "map"
    return TableDb(kind, entries, tuple(patterns), tuple(starts.split()), CdbReader(read, notes_at))


class TableDbWriter:
    """Writes a database from HEADER_BYTES on; `finish` gives what stands before."""

    def __init__(self, write: Callable[[bytes], object], kind: TableKind) -> None:
        self._write = write
        self._kind = kind
        self._crc = 0
        self._cdb = CdbWriter(self._put)
        self._patterns: list[str] = []
        self._hash_starts: set[str] = set()
        self.entries = 0

    def _put(self, data: bytes) -> None:
        self._crc = crc32(data, self._crc)
        self._write(data)

    def add(self, key: str, value: str) -> None:
        """One entry; the key in lower case, no other like it."""
        self.entries += 1
        if is_pattern(key):
            self._patterns.append(key)
        start = value[value.find(":") + 1 :] if ":" in value else value
        if start.startswith("$"):
            self._hash_starts.add(f"${start[1:MAX_HASH_START].partition('$')[0]}$")
        self._cdb.add(key.encode(), value.encode())

    def finish(self) -> bytes:
        """Write the rest. The header, which belongs at the beginning of the file."""
        header, end = self._cdb.finish()
        starts = sorted(start for start in self._hash_starts if start.isprintable() and " " not in start)
        notes = "\n".join((" ".join(starts), *self._patterns)).encode()
        if len(notes) > MAX_NOTES_BYTES:
            raise CdbError("too many globs and networks")
        self._put(notes)
        self._crc = crc32(header, self._crc)
        seal = _SEAL.pack(MAGIC, self._kind == "list", self.entries, end, len(notes), 0)[:-4]
        self._write(seal + struct.pack("<I", crc32(seal, self._crc)))
        return header
