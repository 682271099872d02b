"""pure/smtp_data: the end of a message, its dots, and what is refused in it."""

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from smtpd_ps.pure.smtp_data import MAX_LINE, ChunkReader, DataReader, Fault


def slow_reference(wire: bytes) -> tuple[bytes, int, bytes] | None:
    """Byte by byte: message, faults and rest; None when the message does not end."""
    body = bytearray()
    at = 0
    start_of_line = True
    while at < len(wire):
        if start_of_line and wire[at : at + 3] == b".\r\n":
            return bytes(body), _faults(bytes(body)), wire[at + 3 :]
        if start_of_line and wire[at : at + 1] == b".":
            at += 1
            start_of_line = False
            continue
        body.append(wire[at])
        start_of_line = body.endswith(b"\r\n") and wire[at - 1 : at + 1] == b"\r\n"
        at += 1
    return None


def _faults(body: bytes) -> int:
    faults = 0
    stripped = body.replace(b"\r\n", b"")
    if b"\r" in stripped or b"\n" in stripped:
        faults |= Fault.BARE
    if b"\0" in body:
        faults |= Fault.NUL
    return faults


def read(wire: bytes, cuts: list[int], max_bytes: int = 10**9) -> tuple[DataReader, bytes]:
    """Feed `wire` cut at `cuts`; what follows the end is put together as `rest`."""
    reader = DataReader(max_bytes)
    body = b""
    edges = [0, *sorted(cut % (len(wire) + 1) for cut in cuts), len(wire)]
    for begin, end in itertools.pairwise(edges):
        if reader.done:
            reader.rest += wire[begin:end]
        else:
            body += reader.feed(wire[begin:end])
    return reader, body


SMTP_BYTES = st.lists(
    st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"\r\n.\r\n", b"a", b"\0", b"\xff", b"..", b"\r\n.."]),
    max_size=40,
).map(b"".join)


@settings(deadline=None)
@given(SMTP_BYTES, st.lists(st.integers(0, 200), max_size=12))
@example(b".\r\n", [1, 2])
@example(b"..\r\n.\r\n", [1])
@example(b"\r\n.\r\r\n.\r\n", [4])
def test_any_chunking_gives_what_the_slow_reference_gives(wire: bytes, cuts: list[int]) -> None:
    """Message, faults and rest do not depend on where the network cut the stream."""
    reader, body = read(wire, cuts)
    expected = slow_reference(wire)
    assert reader.done == (expected is not None)
    if expected is not None:
        assert (body, reader.faults, reader.rest) == expected
        assert reader.eight_bit == (not body.isascii())
        assert reader.size_bytes == len(body)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=20).filter(lambda b: b"\r" not in b and b"\n" not in b), max_size=20))
def test_stuffing_is_undone(lines: list[bytes]) -> None:
    """What a correct client sends comes out as it went in."""
    message = b"".join(line + b"\r\n" for line in lines)
    wire = b"".join((b"." if line.startswith(b".") else b"") + line + b"\r\n" for line in lines) + b".\r\n"
    reader, body = read(wire, [])
    assert reader.done
    assert body == message


@pytest.mark.parametrize(
    "end",
    [
        b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\n.\r", b"\r\n\0.\r\n", b"\r\n.\0\r\n",
        b"\r\r\n.\r\r\n", b"\r\n.\r\0\n",
    ],
)  # fmt: skip
@pytest.mark.parametrize("segmented", [False, True])
def test_smuggling_forms_do_not_end_the_message(end: bytes, segmented: bool) -> None:
    """CVE-2023-51764/5/6, CVE-2024-27305: only CRLF.CRLF ends it, and the forms are faults."""
    wire = b"Subject: x\r\n\r\nbody" + end + b"MAIL FROM:<evil@example.com>\r\n.\r\n"
    reader, body = read(wire, list(range(len(wire))) if segmented else [])
    assert reader.done
    assert reader.rest == b""
    assert reader.faults & (Fault.BARE | Fault.NUL)
    assert b"MAIL FROM" in body


@pytest.mark.parametrize("cuts", [[], [1, 5, 9], list(range(40))])
def test_size_counts_unstuffed_bytes(cuts: list[int]) -> None:
    """A message of exactly max_bytes passes, one byte more does not."""
    wire = b"..34567\r\n\r\n\r\n.\r\n"
    assert not read(wire, cuts, max_bytes=12)[0].faults
    assert read(wire, cuts, max_bytes=11)[0].faults == Fault.TOO_BIG


@pytest.mark.parametrize("cuts", [[], [70_000], [65_534, 65_535, 65_536, 65_537], [3, 30_000, 90_000]])
@pytest.mark.parametrize("before", [b"", b"short\r\n"])
def test_line_length_is_bounded(cuts: list[int], before: bytes) -> None:
    """65,535 bytes with the line end pass, more do not, wherever the line stands."""
    good = before + b"x" * (MAX_LINE - 2) + b"\r\nmore\r\n.\r\n"
    bad = before + b"x" * (MAX_LINE - 1) + b"\r\nmore\r\n.\r\n"
    assert not read(good, cuts)[0].faults
    assert read(bad, cuts)[0].faults == Fault.LONG_LINE


def test_empty_message() -> None:
    """A dot right away is an empty message."""
    reader, body = read(b".\r\nQUIT\r\n", [])
    assert reader.done
    assert body == b""
    assert reader.rest == b"QUIT\r\n"


def read_chunks(data: bytes, steps: list[int]) -> tuple[bytes, int, bool, int]:
    """The message of BDAT, whatever way it is cut: bytes, faults, eight_bit, size."""
    reader = ChunkReader(1000)
    out = b""
    for step in steps:
        out += reader.feed(data[:step])
        data = data[step:]
    out += reader.feed(data) + reader.finish()
    assert reader.done
    return out, reader.faults, reader.eight_bit, reader.size_bytes


_BYTES = st.lists(st.sampled_from([b"a", b".", b"\r\n", b"\r", b"\n", b"\0", b"\xff", b"x" * 300])).map(b"".join)


@given(_BYTES, st.lists(st.integers(0, 20)))
def test_chunks_may_be_cut_anywhere(data: bytes, steps: list[int]) -> None:
    """Bytes and faults are those of the whole message; a clean one is kept as it is, its last line closed."""
    whole = read_chunks(data, [])
    assert read_chunks(data, steps) == whole
    out, faults, eight_bit, size = whole
    if not faults:
        assert out == (data if not data or data.endswith(b"\r\n") else data + b"\r\n")
        assert size == len(out)
    assert eight_bit == (b"\xff" in data)
    assert bool(faults & Fault.NUL) == (b"\0" in data)
    bare = data.replace(b"\r\n", b"")
    assert bool(faults & Fault.BARE) == (b"\r" in bare or b"\n" in bare)


@given(st.lists(st.sampled_from([b"a", b".", b"..", b"", b"\xff.", b"x" * 30])))
def test_chunks_and_data_give_the_same_message(lines: list[bytes]) -> None:
    """A message is the same whether it comes by BDAT or, with its dots stuffed, by DATA."""
    message = b"".join(line + b"\r\n" for line in lines)
    reader = DataReader(10**6)
    by_data = reader.feed(b"".join((b"." if line[:1] == b"." else b"") + line + b"\r\n" for line in lines) + b".\r\n")
    assert reader.done
    assert read_chunks(message, [])[0] == by_data == message
