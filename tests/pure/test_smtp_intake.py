"""pure/smtp_intake: what is stored, and what is refused, does not depend on how the bytes came."""

from zlib import crc32

from hypothesis import given, settings
from hypothesis import strategies as st

from smtpd_ps.contract.values import INLINE_BODY_BYTES
from smtpd_ps.pure import smtp_replies as say
from smtpd_ps.pure.header_addresses import AddressFields
from smtpd_ps.pure.smtp_intake import Intake

RECEIVED = b"Received: from x\r\n\tby y; z\r\n"


def take_in(wire: bytes, step: int, max_bytes: int = 10**9, date: str = "") -> tuple[bytes, bytes, bool]:
    """Refusal, stored bytes and whether there was a file, as the session would have it."""
    intake = Intake(max_bytes, RECEIVED, AddressFields("mx.example.com"), date)
    out = b""
    for at in range(0, len(wire), step):
        assert not intake.done
        block = intake.feed(wire[at : at + step])
        if block:
            out += block
        elif intake.outgrown:
            out += intake.spill()
    assert intake.done
    if not intake.in_file and not intake.refusal():
        out += intake.take()
    if intake.refusal():
        return intake.refusal(), b"", False
    assert intake.stored == len(out)
    assert intake.crc == (crc32(out) if intake.in_file else 0)
    return b"", out, intake.in_file


PIECES = st.lists(
    st.tuples(
        st.sampled_from(
            [
                b"A: b\r\n",
                b"\r\n",
                b"text\r\n",
                b" fold\r\n",
                b"Received: x\r\n",
                b"bare\nx\r\n",
                b"\0\r\n",
                b"\xe9\r\n",
            ]
        ),
        st.sampled_from([1, 1, 1, 50, 9_000, 40_000]),
    ),
    max_size=6,
)


@settings(deadline=None)
@given(PIECES, st.sampled_from([1_000, 16_384, 65_536, 10**9]), st.sampled_from([1_000, 65_536, 300_000]))
def test_any_chunking_gives_the_same(pieces: list[tuple[bytes, int]], step: int, max_bytes: int) -> None:
    """The reply and the stored bytes are those of a message that came in one block."""
    wire = b"".join(piece * count for piece, count in pieces) + b".\r\n"
    refusal, stored, in_file = take_in(wire, step, max_bytes)
    assert (refusal, stored) == take_in(wire, len(wire), max_bytes)[:2]
    if not refusal:
        assert stored == RECEIVED + wire[:-3]
        assert in_file or len(stored) <= INLINE_BODY_BYTES


@settings(deadline=None)
@given(st.integers(INLINE_BODY_BYTES - 400, INLINE_BODY_BYTES + 400), st.sampled_from([700, 65_536]))
def test_inline_bodies_fit_their_message(size_bytes: int, step: int) -> None:
    """Around the limit, what is not in a file is never larger than a Commit may be."""
    wire = (b"A: b\r\n\r\n" + b"0123456\r\n" * (size_bytes // 9))[: size_bytes - 2].rstrip(b"\r") + b"\r\n.\r\n"
    _refusal, stored, in_file = take_in(wire, step, date="Date: Thu, 1 Jan 1970 00:00:00 +0000 (UTC)\r\n")
    assert in_file or len(stored) <= INLINE_BODY_BYTES
    assert b"\r\nDate: " in stored


def test_a_reason_that_is_not_in_the_bytes() -> None:
    """A refusal from outside holds, and nothing is kept any more."""
    intake = Intake(1000, RECEIVED, AddressFields("mx.example.com"))
    intake.refuse(say.NO_ROOM)
    assert intake.feed(b"A: b\r\n.\r\n") == b""
    assert intake.done
    assert intake.refusal() == say.NO_ROOM


def test_a_message_without_end_is_hopeless() -> None:
    """Beyond twice the limit and 64 MiB nobody need read on."""
    intake = Intake(10, RECEIVED, AddressFields("mx.example.com"))
    block = b"x" * 998 + b"\r\n"
    for _ in range(70):
        intake.feed(block * 1024)
    assert intake.hopeless
    assert intake.refusal() == say.TOO_BIG
