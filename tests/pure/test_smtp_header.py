"""pure/smtp_header: the header block of a received message."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpd_ps.pure.smtp_header import HeaderError, LoopError, examine, header_complete, without_bcc


@pytest.mark.parametrize(
    ("message", "end"),
    [
        (b"", 0),
        (b"\r\nbody\r\n", 0),
        (b"Subject: x\r\n", 12),
        (b"Subject: x\r\n\r\nbody", 12),
        (b"A: b\r\n c: d\r\n\te\r\n\r\n", 17),
        (b"From someone Thu Jan  1 00:00:00 1970\r\nA: b\r\n\r\n", 45),
        (b"odd name : x\r\n\r\n", 14),
        (b"A:\r\n\r\n", 4),
        (b"A: \xff\xfe\r\n\r\n", 7),
    ],
)
def test_header_blocks(message: bytes, end: int) -> None:
    """What OpenSMTPD's parser takes is taken, and the end of the block found."""
    assert examine(message).end == end


@pytest.mark.parametrize(
    "message",
    [b"no header\r\n", b"A: b\r\nno header\r\n\r\n", b" A: b\r\n\r\n", b": x\r\n\r\n", b"A: b\r\nbody text\r\n"],
)
def test_no_header(message: bytes) -> None:
    """A line without colon, a fold without a header: 550 (QUIRKS 9)."""
    with pytest.raises(HeaderError):
        examine(message)


def test_hops() -> None:
    """100 Received headers are a loop, 99 are not; the body does not count."""
    line = b"received: by x\r\n"
    assert examine(line * 99 + b"\r\n" + line * 50).end == 99 * len(line)
    with pytest.raises(LoopError):
        examine(line * 50 + b"RECEIVED: by y\r\n" * 50 + b"\r\n")


def test_what_a_submission_lacks() -> None:
    """Date, Message-ID and Bcc are found in any case, only in the header, only at a line's start."""
    found = examine(b"DATE: x\r\nmessage-id: <x@y>\r\nbCc: a\r\n\r\n")
    assert (found.has_date, found.has_message_id, found.has_bcc) == (True, True, True)
    found = examine(b"X-Date: x\r\nY: z\r\n Date: folded\r\n\r\nDate: in body\r\nBcc: in body\r\n")
    assert (found.has_date, found.has_message_id, found.has_bcc) == (False, False, False)


def test_bcc_is_dropped_with_its_folds() -> None:
    """Bcc, folded or repeated, goes; everything else stays."""
    block = b"Bcc: a@b,\r\n c@d\r\nTo: x\r\nbcc : e@f\r\nX-Bcc: y\r\nBccc: z\r\n"
    assert without_bcc(block) == b"To: x\r\nX-Bcc: y\r\nBccc: z\r\n"


def test_header_complete() -> None:
    """The blank line may be the first line."""
    assert header_complete(b"\r\nx")
    assert header_complete(b"A: b\r\n\r\n")
    assert not header_complete(b"A: b\r\n\r")
    assert not header_complete(b"")


def test_the_scan_is_linear() -> None:
    """Sixteen times 256 KiB of hostile header take well under the test's time limit."""
    for piece in (b"a" * 31 + b"\r\n", b"a: b\r\n", b"a:\r\n ", b" \t\r\n", b"::\r\n", b"a"):
        data = piece * (262_144 // len(piece))
        try:
            examine(data)
        except (HeaderError, LoopError):
            continue
        assert data.startswith(b"a")


@settings(deadline=None)
@given(st.lists(st.sampled_from([b"A", b":", b" ", b"\r\n", b"\t", b"bcc", b"Date"]), max_size=20).map(b"".join))
def test_any_block_is_taken_or_refused(data: bytes) -> None:
    """The end is at a line's beginning and everything before it is header lines."""
    try:
        header = examine(data)
    except HeaderError:
        return
    assert header.end in (0, len(data)) or data[header.end - 2 : header.end + 2] == b"\r\n\r\n"
    for line in data[: header.end].split(b"\r\n")[:-1]:
        assert line[:1] in (b" ", b"\t") or b":" in line
