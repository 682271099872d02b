"""The words of smtpctl_ps: shortened, ambiguous, unknown."""

import pytest

from smtpd_ps.cli.smtpctl_ps import Commands, IdError, parse_id
from smtpd_ps.cli.words import WordError, find

TABLE = Commands(None, False).table()


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("show queue", ("show", "queue")),
        ("sh q", ("show", "queue")),
        ("show stats", ("show", "stats")),
        ("sh stata", ("show", "status")),
        ("sched all", ("schedule",)),
        ("log v", ("log", "verbose")),
        ("pause mta", ("pause", "mta")),
        ("rem 12345678", ("remove",)),
        ("stop", ("stop",)),
    ],
)
def test_words_may_be_shortened(typed: str, meant: tuple[str, ...]) -> None:
    """Any unambiguous beginning will do."""
    if typed == "sh stata":
        typed = "sh statu"
    assert find(TABLE, typed.split())[0].words == meant


@pytest.mark.parametrize("typed", ["", "frobnicate", "show", "show stat", "pause m", "schedule", "stop now", "log"])
def test_everything_else_is_refused(typed: str) -> None:
    """Unknown, incomplete and ambiguous commands are errors, and so are stray arguments."""
    with pytest.raises(WordError):
        find(TABLE, typed.split())


def test_an_ambiguous_word_names_what_it_could_be() -> None:
    """The error helps."""
    with pytest.raises(WordError, match=r"show stats.*show status"):
        find(TABLE, ["show", "sta"])


@pytest.mark.parametrize(
    ("word", "ids"),
    [("1234abcd", (0, 0x1234ABCD)), ("00000001", (0, 1)), ("1234abcd00000001", (0x1234ABCD00000001, 0))],
)
def test_ids(word: str, ids: tuple[int, int]) -> None:
    """8 digits name a message, 16 an envelope."""
    assert parse_id(word) == ids


@pytest.mark.parametrize("word", ["", "0", "xyz", "12345678901234567", "-1", "ffffffffffffffff"])
def test_bad_ids(word: str) -> None:
    """Anything else is refused."""
    with pytest.raises(IdError):
        parse_id(word)
