"""What the end of a command means, and which line of its output is kept."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.contract.values import Status
from smtpd_ps.pure.mda_result import MAX_LINE_BYTES, LastLine, judge, timed_out


@pytest.mark.parametrize(
    ("exit_code", "status", "code"),
    [
        (0, Status.OK, ""), (1, Status.PERMFAIL, "5.3.0"), (64, Status.PERMFAIL, "5.3.0"),
        (67, Status.PERMFAIL, "5.3.0"),
        (71, Status.TEMPFAIL, "4.3.0"), (75, Status.TEMPFAIL, "4.3.0"), (77, Status.PERMFAIL, "5.3.0"),
        (127, Status.PERMFAIL, "5.3.0"), (128, Status.PERMFAIL, "5.3.0"), (129, Status.TEMPFAIL, "4.3.0"),
        (137, Status.TEMPFAIL, "4.3.0"), (192, Status.TEMPFAIL, "4.3.0"), (193, Status.PERMFAIL, "5.3.0"),
        (255, Status.PERMFAIL, "5.3.0"), (-9, Status.TEMPFAIL, "4.3.0"), (-15, Status.TEMPFAIL, "4.3.0"),
    ],
)  # fmt: skip
def test_exit_codes(exit_code: int, status: Status, code: str) -> None:
    """71, 75, a signal, and a shell's 128 and a signal: later; 0: delivered; all else: never."""
    verdict = judge(exit_code, "why")
    assert verdict.status is status
    if status is Status.OK:
        assert verdict.text == "Delivered"
    else:
        assert verdict.text.startswith(f"{code} ") and verdict.text.endswith(': "why"')
    assert judge(exit_code, "").text.endswith('"') is False


def test_a_timeout_is_temporary() -> None:
    """What takes too long may be faster another time."""
    assert timed_out("").status is Status.TEMPFAIL and timed_out("x").text == '4.3.0 terminated; timeout: "x"'


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=6))
def test_the_last_line_however_the_output_is_cut(output: bytes, cuts: list[int]) -> None:
    """The beginning of the last line that is not blank, the same whatever the pieces."""
    last = LastLine()
    places = sorted({0, len(output), *(cut for cut in cuts if cut < len(output))})
    for begin, end in itertools.pairwise(places):
        last.feed(output[begin:end])
    lines = [line[:MAX_LINE_BYTES] for line in output.split(b"\n") if line[:MAX_LINE_BYTES].strip()]
    wanted = lines[-1].strip().decode(errors="backslashreplace") if lines else ""
    assert last.text == wanted


def test_output_is_bounded() -> None:
    """A line without end does not fill the memory."""
    last = LastLine()
    last.feed(b"kept\n")
    for _ in range(100):
        last.feed(b"x" * 65_536)
    assert last.text == "x" * MAX_LINE_BYTES
