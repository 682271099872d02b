"""DMARC records and policies where the comparison with others does not reach."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpd_ps.pure.dmarc import DmarcError, DmarcVerdict, Record, evaluate, parse, strictest
from smtpd_ps.pure.dns_asking import Answer, answered


@pytest.mark.parametrize("text, record", [
    ("v=DMARC1; p=reject", Record("reject", "reject", False, False, 100)),
    ("v=DMARC1;P=Reject;SP=none;ADKIM=s;aspf=S;pct=20;", Record("reject", "none", True, True, 20)),
    ("v=DMARC1; p=quarantine; sp=what; pct=x", Record("quarantine", "quarantine", False, False, 100)),
    ("v=DMARC1; rua=mailto:a@b", Record("none", "none", False, False, 100)),
    ("v=DMARC1; p=what", None), ("v=DMARC1", None),
    ("v=DMARC1; p=none; pct=900", Record("none", "none", False, False, 100)),
])  # fmt: skip
def test_records(text: str, record: Record | None) -> None:
    """A policy that is missing is none where reports are wanted, else there is no record (RFC 7489, 6.6.3)."""
    assert parse(text) == record


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_a_record_or_not(text: str) -> None:
    """And nothing else happens."""
    try:
        parse("v=DMARC1;" + text)
    except DmarcError as error:
        assert str(error)


def test_no_answer_is_a_temporary_error() -> None:
    """It is not the same as no policy."""
    made = answered(evaluate("a.test", "a.test", (), lambda domain: domain), lambda _question: Answer(failed=True))
    assert made.result == "temperror"


def test_the_strictest_policy_of_several_authors() -> None:
    """Of those that fail."""
    fails, passes = DmarcVerdict("fail", "a", "quarantine"), DmarcVerdict("pass", "b", "reject")
    assert strictest([passes, fails, DmarcVerdict("fail", "c", "none")]) == fails
    assert strictest([DmarcVerdict("none", "d"), passes]) == passes
    assert strictest([]) is None
