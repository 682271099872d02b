"""Constant databases and the seal of makemap's, good ones and damaged ones."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.pure.cdb import HEADER_BYTES, CdbError, CdbReader, CdbWriter, cdb_hash
from smtpd_ps.pure.table_db import SEAL_BYTES, TableDb, TableDbWriter, is_pattern, open_table_db


def cdb(records: list[tuple[bytes, bytes]]) -> bytes:
    parts: list[bytes] = []
    writer = CdbWriter(parts.append)
    for key, value in records:
        writer.add(key, value)
    header, end = writer.finish()
    data = header + b"".join(parts)
    assert (len(header), end) == (HEADER_BYTES, len(data))
    return data


def reader(data: bytes) -> CdbReader:
    return CdbReader(lambda position, size: data[position : position + size], len(data))


def table_db(records: dict[str, str], kind: str = "map") -> bytes:
    parts: list[bytes] = []
    writer = TableDbWriter(parts.append, kind)  # type: ignore[arg-type]
    for key, value in records.items():
        writer.add(key, value)
    header = writer.finish()
    return header + b"".join(parts)


def opened(data: bytes) -> TableDb:
    return open_table_db(lambda position, size: data[position : position + size], len(data))


def test_the_format_is_cdb() -> None:
    """As cdb(5) has it: the hash, 256 pairs, records, tables of twice as many slots as records."""
    assert cdb_hash(b"") == 5381
    assert cdb_hash(b"one") == ((((5381 * 33 ^ 111) * 33 ^ 110) * 33) ^ 101) & 0xFFFFFFFF
    data = cdb([(b"one", b"Hello")])
    assert data[HEADER_BYTES : HEADER_BYTES + 16] == struct.pack("<II", 3, 5) + b"oneHello"
    at, slots = struct.unpack_from("<II", data, 8 * (cdb_hash(b"one") & 255))
    assert (at, slots, len(data)) == (HEADER_BYTES + 16, 2, HEADER_BYTES + 32)
    found = struct.unpack_from("<IIII", data, at)
    assert sorted(found) == sorted((0, 0, cdb_hash(b"one"), HEADER_BYTES))


@given(st.dictionaries(st.binary(max_size=20), st.binary(max_size=40), max_size=60), st.binary(max_size=20))
def test_what_is_written_is_found(records: dict[bytes, bytes], other: bytes) -> None:
    """Every key has its value, another one none, and all come in the order in which they were written."""
    made = reader(cdb(list(records.items())))
    assert {key: made.get(key) for key in records} == records
    assert made.get(other) == records.get(other)
    assert list(made.items()) == list(records.items())


def test_large_records() -> None:
    """Records that do not fit into what is read at once, between small ones."""
    records = [(b"%d" % n, b"v" * (n * 9001)) for n in range(20)]
    made = reader(cdb(records))
    assert list(made.items()) == records
    assert made.get(b"19") == b"v" * (19 * 9001)


@given(st.data())
def test_a_damaged_cdb_is_an_error_at_worst(data: st.DataObject) -> None:
    """Wherever bytes are changed, or the end is lost: an answer or CdbError, and it ends."""
    good = cdb([(b"key%d" % n, b"value%d" % n) for n in range(30)])
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(bad) - 1))
        bad[at] = data.draw(st.integers(0, 255))
    cut = bytes(bad[: data.draw(st.integers(0, len(bad)))])
    for damaged in (bytes(bad), cut):
        try:
            made = reader(damaged)
            for n in range(30):
                made.get(b"key%d" % n)
            assert sum(1 for _ in made.items()) <= len(damaged)
        except CdbError as error:
            assert str(error)


def test_a_file_that_shrinks_while_it_is_open() -> None:
    """A read that gives less than was asked for is an error."""
    good = cdb([(b"key", b"value")])
    left = [good]
    made = CdbReader(lambda position, size: left[0][position : position + size], len(good))
    left[0] = good[:100]
    with pytest.raises(CdbError, match="shorter than it was"):
        made.get(b"key")


def test_more_than_a_cdb_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions have 32 bits."""
    monkeypatch.setattr("smtpd_ps.pure.cdb.MAX_POSITION", 4000)
    writer = CdbWriter(lambda _data: None)
    writer.add(b"a", b"b" * 1900)
    with pytest.raises(CdbError, match="more than 4 GiB"):
        writer.add(b"c", b"d" * 100)


def test_what_makemap_notes() -> None:
    """Kind, number of entries, keys that match more than what equals them, beginnings of hashes."""
    db = opened(table_db({"a": "$6$x$y", "*.b": "u:$2b$05$z", "10/8": "x", "192.0.2.1": "$y", "c": "$argon2id$v=19$"}))
    assert (db.kind, db.entries) == ("map", 5)
    assert db.patterns == ("*.b", "10/8")
    assert db.hash_starts == ("$2b$", "$6$", "$argon2id$", "$y$")
    assert db.cdb.get(b"*.b") == b"u:$2b$05$z"
    empty = opened(table_db({}, "list"))
    assert (empty.kind, empty.entries, empty.patterns, empty.hash_starts) == ("list", 0, (), ())
    assert list(empty.cdb.items()) == []


@pytest.mark.parametrize(
    ("key", "pattern"),
    [
        ("example.org", False), ("*.example.org", True), ("user@*.example.org", True), ("user@example.org", False),
        ("@example.org", False), ("@", True), ("user@", True), ("192.0.2.1", False), ("192.0.2.0/24", True),
        ("10.0.0.0/8", True), ("192.0.2.1/32", True), ("2001:db8::1", False), ("2001:db8:0::1", True),
        ("[2001:db8::1]", True), ("[192.0.2.1]", True), ("ipv6:::1", True), ("a/b", False), ("a:b", False),
    ],
)  # fmt: skip
def test_keys_that_match_more_than_what_equals_them(key: str, pattern: bool) -> None:
    """Globs, networks, and addresses that are not in their usual form; not what only looks like one."""
    assert is_pattern(key) is pattern


@given(st.data())
def test_the_seal_tells_damage(data: st.DataObject) -> None:
    """A changed byte, a lost end and an end that is too much are known before the first look-up."""
    good = table_db({"key": "value", "*.org": "x", "a": "b" * 50})
    at = data.draw(st.integers(0, len(good) - 1))
    by = data.draw(st.integers(1, 255))
    bad = good[:at] + bytes((good[at] ^ by,)) + good[at + 1 :]
    for damaged in (bad, good[:at], good + b"\0", good + good[-SEAL_BYTES:]):
        with pytest.raises(CdbError, match=r"it is damaged|it was not made by makemap"):
            opened(damaged)
    assert opened(good).cdb.get(b"key") == b"value"
