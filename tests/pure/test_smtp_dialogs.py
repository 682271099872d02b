"""The dialogue scripts of tests/dialogs, run against the SMTP server's core."""

import pytest
from smtp_dialogue import Runner
from support.dialogue_cases import Case, load_cases, plays_under_tls

CASES = load_cases()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_dialogue(case: Case) -> None:
    """The server says what the script says."""
    Runner(case).run()


@pytest.mark.parametrize("case", [c for c in CASES if "whole" not in c.title], ids=lambda case: case.name)
def test_dialogue_byte_by_byte(case: Case) -> None:
    """It says the same when every byte comes in a segment of its own."""
    Runner(case, segmented=True).run()


@pytest.mark.parametrize("case", [c for c in CASES if plays_under_tls(c)], ids=lambda case: case.name)
@pytest.mark.parametrize("secured", ["implicit", "offer"])
def test_dialogue_under_tls(case: Case, secured: str) -> None:
    """It says the same under implicit TLS, and after STARTTLS, which forgets all that was before."""
    Runner(case, secured=secured).run()


def test_there_are_dialogues() -> None:
    """The scripts are found, most of them play under TLS too, and none is there twice."""
    assert len(CASES) >= 250
    assert len([case for case in CASES if plays_under_tls(case)]) >= 150
    assert len({case.name for case in CASES}) == len(CASES)
