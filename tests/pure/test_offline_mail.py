"""The file of a message that is kept: what is written is read, and nothing else is."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.pure.offline_mail import MAX_RECIPIENTS, Envelope, OfflineError, format_head, name_valid, parse_head

NAME = "0123456789abcdef" * 2
WORD = st.text(max_size=40).filter(str.isprintable)


@given(
    st.builds(
        Envelope, WORD, st.lists(WORD, min_size=1, max_size=4).map(tuple), st.integers(0, 15),
        st.sampled_from(["", "FULL", "HDRS"]), WORD, st.booleans(),
    ),
    st.binary(max_size=40),
)  # fmt: skip
def test_there_and_back(envelope: Envelope, body: bytes) -> None:
    """What is written is read, and the body begins behind it."""
    data = format_head(NAME, envelope) + body
    found, start = parse_head(NAME, data)
    assert (found, data[start:]) == (envelope, body)


@pytest.mark.parametrize("text", ["a\nrcpt b", "a\rb", "a\0", "\x85", "\u2028"])
def test_line_breaks_are_refused(text: str) -> None:
    """No value can become another line."""
    for envelope in (Envelope(text, ("a",)), Envelope("", ("a", text)), Envelope("", ("a",), envid=text)):
        with pytest.raises(OfflineError):
            format_head(NAME, envelope)


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    """What is no such file is an error, nothing else."""
    for text in (data, b"smtpd_ps offline 1 " + NAME.encode() + b"\n" + data):
        try:
            parse_head(NAME, text)
        except OfflineError as error:
            assert str(error).isprintable()


GOOD = format_head(NAME, Envelope("a", ("b",))).decode()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (NAME, NAME[::-1]), ("sender a\n", ""), ("sender a", "sender a\nsender b"), ("rcpt b\n", ""),
        ("notify 0", "notify 16"), ("notify 0", "notify -1"), ("notify 0", "notify \u0661"), ("ret ", "ret X"),
        ("eight-bit 0", "eight-bit 2"), ("rcpt b\n", "rcpt b\n" * (MAX_RECIPIENTS + 1)), ("envid ", "else "),
        ("rcpt b", "rcpt \x07"), ("\n\n", "\n"),
    ],
)  # fmt: skip
def test_damage(old: str, new: str) -> None:
    """Another name, a missing, repeated or wrong value, no end: nothing of it is believed."""
    assert parse_head(NAME, GOOD.encode())
    with pytest.raises(OfflineError):
        parse_head(NAME, GOOD.replace(old, new, 1).encode())


def test_names() -> None:
    """Only names that sendmail gives."""
    assert name_valid(NAME)
    assert not any(map(name_valid, ("", "." + NAME, NAME[1:], NAME + "0", NAME.upper(), "../" + NAME[3:], NAME + "\n")))
