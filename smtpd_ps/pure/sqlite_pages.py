"""Rows out of the pages of a damaged SQLite database, without SQLite (sqlite.org/fileformat2.html).

Used by queue; parses a database of ours that has rotted, so any byte may be anything. SQLite gives up on
a page, or on a whole file, for one bit; here every row that can still be read is given, and whoever
stores a checksum with each row can tell which are right. Pages of one size, without reserved bytes.
"""

import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

PAGE_BYTES = 4096
FILE_HEADER_BYTES = 100
WAL_HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
FRAME_BYTES = FRAME_HEADER_BYTES + PAGE_BYTES

_LEAF = 0x0D
_INDEX_INTERIOR, _INDEX_LEAF = 0x02, 0x0A
_MAX_LOCAL_TABLE = PAGE_BYTES - 35
_MAX_LOCAL_INDEX = (PAGE_BYTES - 12) * 64 // 255 - 23
_MIN_LOCAL = (PAGE_BYTES - 12) * 32 // 255 - 23
_MAX_PAYLOAD_BYTES = 1 << 24
_MAX_COLUMNS = 64

Value = int | bytes | str | None
Fetch = Callable[[int], bytes]  # a page by its number, from 1; b"" where there is none


class Row(NamedTuple):
    """A row of a table (`rowid`) or of an index (0). `live`: the page says it is in use."""

    rowid: int
    values: tuple[Value, ...]
    live: bool
    of_index: bool


class _Unreadable(Exception):
    """Not a row, or not any more."""


def free_pages(fetch: Fetch, count: int) -> set[int]:
    """Pages that hold nothing, as far as the list of them can be followed."""
    first = fetch(1)
    free: set[int] = set()
    trunk = int.from_bytes(first[32:36], "big") if len(first) >= FILE_HEADER_BYTES else 0
    while 1 < trunk <= count and trunk not in free:
        free.add(trunk)
        page = fetch(trunk)
        if len(page) < PAGE_BYTES:
            break
        leaves = min(int.from_bytes(page[4:8], "big"), PAGE_BYTES // 4 - 2)
        free.update(leaf for leaf in struct.unpack_from(f">{leaves}I", page, 8) if 1 < leaf <= count)
        trunk = int.from_bytes(page[:4], "big")
    return free


def rows(number: int, fetch: Fetch) -> Iterator[Row]:
    """All that can be read as rows of a page: of tables and indices, in use or left over."""
    page = fetch(number)
    if len(page) < PAGE_BYTES:
        return
    start = FILE_HEADER_BYTES if number == 1 else 0
    kind = page[start]
    index = kind in (_INDEX_LEAF, _INDEX_INTERIOR)
    header = 12 if kind == _INDEX_INTERIOR else 8
    cells = int.from_bytes(page[start + 3 : start + 5], "big")
    content = int.from_bytes(page[start + 5 : start + 7], "big") or 65_536
    pointers = start + header
    # Pointers beyond the cells in use are left over from deleted rows, or the count is wrong.
    last = min(max(content, pointers + 2 * cells), PAGE_BYTES - 1)
    for at, place in enumerate(range(pointers, last - 1, 2)):
        offset = int.from_bytes(page[place : place + 2], "big")
        if not pointers <= offset < PAGE_BYTES:
            continue
        live = at < cells and (index or kind == _LEAF)
        try:
            rowid, values = _cell(page, offset + (4 if kind == _INDEX_INTERIOR else 0), fetch, index)
        except (_Unreadable, IndexError):
            continue
        yield Row(rowid, values, live, index)


def _cell(page: bytes, at: int, fetch: Fetch, index: bool) -> tuple[int, tuple[Value, ...]]:
    size, at = _varint(page, at)
    rowid = 0
    if not index:
        rowid, at = _varint(page, at)
    if not 0 < size <= _MAX_PAYLOAD_BYTES:
        raise _Unreadable
    most = _MAX_LOCAL_INDEX if index else _MAX_LOCAL_TABLE
    if size <= most:
        payload = page[at : at + size]
    else:
        local = _MIN_LOCAL + (size - _MIN_LOCAL) % (PAGE_BYTES - 4)
        local = local if local <= most else _MIN_LOCAL
        parts, left = [page[at : at + local]], size - local
        following = int.from_bytes(page[at + local : at + local + 4], "big")
        while left > 0:
            more = fetch(following) if following else b""
            if len(more) < PAGE_BYTES:
                raise _Unreadable
            parts.append(more[4 : 4 + left])
            left -= PAGE_BYTES - 4
            following = int.from_bytes(more[:4], "big")
        payload = b"".join(parts)
    if len(payload) != size:
        raise _Unreadable
    return rowid, _record(payload)


def _record(payload: bytes) -> tuple[Value, ...]:
    header_bytes, at = _varint(payload, 0)
    place = header_bytes
    values: list[Value] = []
    while at < header_bytes:
        kind, at = _varint(payload, at)
        size = _size(kind)
        content = payload[place : place + size]
        if len(content) != size or len(values) == _MAX_COLUMNS:
            raise _Unreadable
        place += size
        values.append(_value(kind, content))
    return tuple(values)


def _size(kind: int) -> int:
    if kind >= 12:
        return (kind - 12) // 2
    if kind in (10, 11):
        raise _Unreadable
    return (0, 1, 2, 3, 4, 6, 8, 8, 0, 0)[kind]


def _value(kind: int, content: bytes) -> Value:
    if kind >= 12:
        return content.decode("utf-8", "replace") if kind % 2 else content
    if kind in (0, 7):  # NULL; floats are not used here
        return None
    return kind - 8 if kind in (8, 9) else int.from_bytes(content, "big", signed=True)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for _ in range(8):
        byte = data[at]
        at += 1
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at
    return (value << 8 | data[at]) & (1 << 63) - 1, at + 1


def committed_frames(header: bytes, frame_headers: list[bytes]) -> list[tuple[int, int]]:
    """(page number, position) of a write-ahead log's frames, up to the last that ends a transaction.

    Checksums are not looked at: what counts is that the frame belongs to this round of the log.
    """
    salts = header[16:24]
    if frame_headers and not any(frame[8:16] == salts for frame in frame_headers):
        salts = frame_headers[0][8:16]
    found: list[tuple[int, int]] = []
    committed = 0
    for position, frame in enumerate(frame_headers):
        if frame[8:16] == salts:
            found.append((int.from_bytes(frame[:4], "big"), position))
            if int.from_bytes(frame[4:8], "big"):
                committed = len(found)
    return found[:committed]
