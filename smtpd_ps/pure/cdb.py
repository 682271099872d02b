"""Constant databases: the file format of D. J. Bernstein's cdb, read and written.

A reader looks a key up with two or three small reads and holds nothing but the 2 KiB of the header, however
large the file is. Runs in lookup, confined, on files of the operator, and in makemap, which writes them. Reads
and writes are handed in; every offset is checked against the end of the file, so that a damaged one gives a
CdbError and no more.

The file: 256 pairs (position, slots) of the hash tables; the records, each (key bytes, value bytes), key,
value; the hash tables, each slot (hash, position of the record), position 0 for an empty one. All numbers are
32 bits, little endian.
"""

import struct
from array import array
from collections.abc import Callable, Iterator

HEADER_BYTES = 2048
MAX_POSITION = 2**32 - 1
_PAIR = struct.Struct("<II")
_SLOTS_A_READ = 16
_CHUNK = 1 << 16

Read = Callable[[int, int], bytes]  # position, bytes; fewer only at the end of the file


class CdbError(ValueError):
    """The file is damaged, or no cdb; or, when writing, too large to be one."""


def cdb_hash(key: bytes) -> int:
    """The hash of a key."""
    value = 5381
    for byte in key:
        value = (value * 33 & 0xFFFFFFFF) ^ byte
    return value


class CdbReader:
    """Looks keys up in the first `end` bytes of a file. Every method may raise CdbError and what `read` raises."""

    def __init__(self, read: Read, end: int) -> None:
        self._read, self._end = read, end
        header = self._exactly(0, HEADER_BYTES)
        self._tables = tuple(_PAIR.iter_unpack(header))
        for position, slots in self._tables:
            if position < HEADER_BYTES or position + 8 * slots > end:
                raise CdbError("a hash table is not in the file")
        self._records_end = min(position for position, _slots in self._tables)

    def _exactly(self, position: int, size: int) -> bytes:
        if position < 0 or position + size > self._end:
            raise CdbError(f"position {position} is not in the file")
        data = self._read(position, size)
        if len(data) != size:
            raise CdbError("the file is shorter than it was")
        return data

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""
        wanted = cdb_hash(key)
        position, slots = self._tables[wanted & 255]
        if not slots:
            return None
        start = (wanted >> 8) % slots
        left = slots
        while left:
            number = min(_SLOTS_A_READ, left, slots - start)
            for hashed, at in _PAIR.iter_unpack(self._exactly(position + 8 * start, 8 * number)):
                if not at:
                    return None
                if hashed == wanted:
                    value = self._value(at, key)
                    if value is not None:
                        return value
            left -= number
            start = (start + number) % slots
        return None

    def _value(self, at: int, key: bytes) -> bytes | None:
        """The value of the record there if its key is `key`."""
        key_bytes, value_bytes = _PAIR.unpack(self._exactly(at, 8))
        if at < HEADER_BYTES or at + 8 + key_bytes + value_bytes > self._records_end:
            raise CdbError(f"the record at {at} is not in the file")
        if key_bytes != len(key) or self._exactly(at + 8, key_bytes) != key:
            return None
        return self._exactly(at + 8 + key_bytes, value_bytes)

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """All records in the order in which they were written."""
        at, data = HEADER_BYTES, b""
        here = 0  # in data
        while at + here < self._records_end:
            if len(data) - here < 8:
                at, data, here = at + here, self._more(at + here, 8), 0
            key_bytes, value_bytes = _PAIR.unpack_from(data, here)
            size = 8 + key_bytes + value_bytes
            if len(data) - here < size:
                at, data, here = at + here, self._more(at + here, size), 0
            yield data[here + 8 : here + 8 + key_bytes], data[here + 8 + key_bytes : here + size]
            here += size

    def _more(self, at: int, least: int) -> bytes:
        """A chunk of the records, `least` bytes or more."""
        if at + least > self._records_end:
            raise CdbError(f"the record at {at} is not in the file")
        return self._exactly(at, min(max(least, _CHUNK), self._records_end - at))


class CdbWriter:
    """Writes the records from HEADER_BYTES on, and then the hash tables; the header, known last, is the caller's."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._position = HEADER_BYTES
        self._buckets = [array("Q") for _ in range(256)]  # hash and position, in one number

    def add(self, key: bytes, value: bytes) -> None:
        """One record. Of several with one key the first is found."""
        hashed = cdb_hash(key)
        self._buckets[hashed & 255].append(hashed << 32 | self._position)
        self._put(_PAIR.pack(len(key), len(value)) + key + value)

    def _put(self, data: bytes) -> None:
        self._position += len(data)
        if self._position > MAX_POSITION:
            raise CdbError("more than 4 GiB")
        self._write(data)

    def finish(self) -> tuple[bytes, int]:
        """Write the hash tables. The header, and where the file ends."""
        header = bytearray()
        for bucket in self._buckets:
            slots = 2 * len(bucket)
            header += _PAIR.pack(self._position, slots)
            table = bytearray(8 * slots)
            taken = bytearray(slots)
            for both in bucket:
                hashed = both >> 32
                at = (hashed >> 8) % slots
                while taken[at]:
                    at = (at + 1) % slots
                taken[at] = 1
                _PAIR.pack_into(table, 8 * at, hashed, both & 0xFFFFFFFF)
            self._put(bytes(table))
        return bytes(header), self._position
