"""`smtpctl_ps explain`: its options, and the lines it prints."""

from typing import get_args

import pytest

from smtpd_ps.cli.explain import request_of, step_line
from smtpd_ps.cli.words import WordError
from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import StepKind

NEEDED = ["--from", "192.0.2.1", "--sender", "<a@x.org>", "--rcpt", "b@y.org"]


def test_a_request() -> None:
    """All options; addresses may stand in brackets."""
    assert request_of(NEEDED) == m.Explain(0, "192.0.2.1", "localhost", "", False, "", "a@x.org", "b@y.org")
    more = ["--helo", "h.org", "--user=u", "--tls", "--tag", "t"]
    assert request_of([*more, *NEEDED]) == m.Explain(0, "192.0.2.1", "h.org", "u", True, "t", "a@x.org", "b@y.org")
    assert request_of(["--from", "local", "--sender", "<>", "--rcpt", "b"]).sender == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "explain needs --from, --sender, --rcpt"),
        (NEEDED[:4], "explain needs --rcpt"),
        ([*NEEDED, "more"], "unexpected 'more'"),
        ([*NEEDED, "--colour"], "--colour"),
        ([*NEEDED, "--helo", "h" * 256], "too long"),
        ([*NEEDED, "--helo", "h\udcff"], "not text"),
    ],
)
def test_wrong_words(words: list[str], said: str) -> None:
    """What is missing or too much is named."""
    with pytest.raises(WordError, match=said):
        request_of(words)


def test_lines() -> None:
    """Every kind of step has a line; a control character is escaped."""
    for kind in get_args(StepKind):
        assert step_line(m.ExplainStep(0, 0, kind, "sub", "text")).strip()
    assert step_line(m.ExplainStep(0, 1, "user", "bob", "from l@x")) == "  bob (from l@x)"
    assert step_line(m.ExplainStep(0, 0, "entry", "k", "in table t: \x1b[1m")) == "  entry k in table t: \\x1b[1m"
    assert step_line(m.ExplainStep(0, 0, "refused", "x@y", "550 No")) == "=> refused: 550 No"
