"""pure/line_ends: bare CR and LF, and long lines, against the slow way to see them."""

from hypothesis import example, given
from hypothesis import strategies as st

from smtpd_ps.pure.line_ends import find_line_dot, has_bare_line_end, has_long_line

PIECES = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"a", b"\0", b"\x0b", b"\x85", b"\xff"]), max_size=30)


@given(PIECES.map(b"".join))
@example(b"\r")
@example(b"\n")
@example(b"a\r\n\r")
@example(b"\r\n\n")
@example(b"\r\r\n")
def test_a_bare_line_end_is_a_cr_or_lf_outside_crlf(block: bytes) -> None:
    """What is left when every CRLF is taken out has neither."""
    rest = block.replace(b"\r\n", b"|")
    assert has_bare_line_end(block) == (b"\r" in rest or b"\n" in rest)


def test_a_bare_line_end_is_found_behind_many_good_ones() -> None:
    """Every kind of line end occurring, the last one counts too."""
    good = b"some text\r\n" * 10_000
    assert not has_bare_line_end(good)
    assert has_bare_line_end(good + b"\n")
    assert has_bare_line_end(good + b"x\r")
    assert has_bare_line_end(b"\n" + good)


@given(st.lists(st.binary(max_size=12), max_size=30).map(b"\n".join), st.integers(1, 15))
def test_a_long_line_is_one_of_more_than_the_maximum(block: bytes, max_bytes: int) -> None:
    """The LF counts; the last line counts without one."""
    lines = block.split(b"\n")
    assert has_long_line(block, max_bytes) == (
        any(len(line) + 1 > max_bytes for line in lines[:-1]) or len(lines[-1]) > max_bytes
    )


@given(st.lists(st.sampled_from([b"\r\n", b".", b"\r\n.", b"a", b"\n"]), max_size=12).map(b"".join), st.integers(0, 30))
@example(b"\r\n.", 2)
@example(b"\r\n.", 3)
def test_a_dot_in_front_is_found_before_the_end(block: bytes, end: int) -> None:
    """As by searching what is before the end."""
    assert find_line_dot(block, end) == block[:end].find(b"\r\n.")
