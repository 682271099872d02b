"""Values of alias and virtual tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.pure.expand_targets import Target, TargetError, parse_targets


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("cyrus", [("user", "cyrus")]),
        ("alice, bob@example.com ,carol", [("user", "alice"), ("address", "bob@example.com"), ("user", "carol")]),
        ("alice,,alice,", [("user", "alice")]),
        ("\\root", [("user", "root")]),
        ("error:550 gone away", [("error", "550 gone away")]),
        (":error:450 later", [("error", "450 later")]),
        ("/var/mail/x", [("file", "/var/mail/x")]),
        ("|prog", [("command", "prog")]),
        ('"|prog a, b"', [("command", "prog a, b")]),
        (":include:/etc/list", [("include", "/etc/list")]),
        ("include:/etc/list", [("include", "/etc/list")]),
        ("a+b", [("user", "a+b")]),
        (" , ", []),
        ("", []),
    ],
)
def test_targets(value: str, expected: list[tuple[str, str]]) -> None:
    """Each form of aliases(5), each target once and in order."""
    assert list(parse_targets(value)) == [Target(kind, text) for kind, text in expected]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    [
        "a b", "@example.com", "x@", "x@y@z", '"open', "tail\\", "error:200 fine", "error:55", "x@[1.2.3.4]", "\u00fc",
        "error:550 a\x1b[m", "l" * 256 + "@x", "x@" + "d" * 256,
    ],
)  # fmt: skip
def test_bad_values(value: str) -> None:
    """What is no list of targets is an error, not a guess."""
    with pytest.raises(TargetError):
        parse_targets(value)


@given(st.text(max_size=60))
def test_any_text(value: str) -> None:
    """Any text parses or raises TargetError."""
    try:
        targets = parse_targets(value)
    except TargetError:
        return
    assert len(set(targets)) == len(targets)
