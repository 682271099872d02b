"""The terms of SPF records that name addresses."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.pure.spf_terms import Term, Unfollowable, is_spf, parse_term


@pytest.mark.parametrize(
    ("text", "term"),
    [
        ("ip4:192.0.2.1", Term("address", "192.0.2.1")),
        ("+ip4:192.0.2.0/24", Term("address", "192.0.2.0/24")),
        ("ip6:2001:db8::/32", Term("address", "2001:db8::/32")),
        ("a", Term("a", "x.example")),
        ("?a/28", Term("a", "x.example", 28)),
        ("a:h.example", Term("a", "h.example")),
        ("A:H.example/24//64", Term("a", "h.example", 24, 64)),
        ("mx", Term("mx", "x.example")),
        ("mx:m.example//64", Term("mx", "m.example", -1, 64)),
        ("include:i.example.", Term("include", "i.example")),
        ("redirect=r.example", Term("include", "r.example")),
        ("exists:e.example", Term("a", "e.example")),
        ("-all", None), ("~a", None), ("all", None), ("ptr", None), ("exp=e.example", None), ("", None), ("ip4", None),
    ],
)  # fmt: skip
def test_terms(text: str, term: Term | None) -> None:
    """What may send is followed; what may not, or names nothing, is left."""
    assert parse_term(text, "x.example") == term


@pytest.mark.parametrize(
    "text",
    ["ip4:2001:db8::1", "ip6:192.0.2.1", "ip4:x", "a:%{d}.example", "include:", "a:h.example/33", "a:h/x", "mx:a;b"],
)
def test_what_cannot_be_followed(text: str) -> None:
    """It is said, not guessed."""
    with pytest.raises(Unfollowable):
        parse_term(text, "x.example")


@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    """A term, nothing, or Unfollowable."""
    try:
        parse_term(text, "x.example")
    except Unfollowable:
        return


@pytest.mark.parametrize(("text", "yes"), [("v=spf1 -all", True), ("V=SPF1", True), ("v=spf10", False), ("x", False)])
def test_records(text: str, yes: bool) -> None:
    """By its version."""
    assert is_spf(text) == yes
