"""The Authentication-Results field: written so that others read it, recognized however it is written."""

import re

import authres
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpd_ps.pure.authentication_results import MethodResult, authserv_id, without_ours, written


@pytest.mark.parametrize("value, expected", [
    (b" here.example; none", "here.example"), (b" HERE.example 1; spf=pass", "here.example"),
    (b"\r\n\there.example;\r\n\tspf=pass", "here.example"), (b' "here.example" ; none', "here.example"),
    (b' "he\\re.example"; none', "here.example"), (b" (a (nested) \\) comment) here.example; x", "here.example"),
    (b"here.example", "here.example"), (b" here.example(comment); x", "here.example"), (b"", None), (b" ; none", None),
    (b" (never ends", None), (b' "never ends', None), (b" there.example; (here.example)", "there.example"),
    (b" here.example.evil; none", "here.example.evil"),
])  # fmt: skip
def test_who_claims_to_have_written_it(value: bytes, expected: str | None) -> None:
    """Folded, quoted, with comments."""
    assert authserv_id(value) == expected


def test_only_ours_are_removed() -> None:
    """With their continuation lines; what cannot be read goes too, and the body stays."""
    kept = [
        b"A: 1\r\n",
        b"Authentication-Results: there.example; none\r\n",
        b"B: Authentication-Results: here.example\r\n",
    ]
    forged = [b"Authentication-Results: here.example;\r\n\tspf=pass\r\n",
              b"authentication-results : Here.Example; x\r\n",
              b"Authentication-Results: (\r\n"]  # fmt: skip
    body = b"\r\nAuthentication-Results: here.example; none\r\n"
    message = b"".join([kept[0], forged[0], kept[1], forged[1], forged[2], kept[2], body])
    pieces, removed = without_ours(message, "here.example")
    assert (b"".join(pieces), removed) == (b"".join(kept) + body, 3)


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_nothing_is_lost(message: bytes) -> None:
    """A message without the field's name comes out as it went in."""
    if b"authentication-results" not in message.lower():
        pieces, removed = without_ours(message, "here.example")
        assert (b"".join(pieces), removed) == (message, 0)


@settings(deadline=None)
@given(st.lists(st.text(max_size=20), min_size=3, max_size=3))
def test_what_is_written_is_read(texts: list[str]) -> None:
    """By authres, whatever the comment and the values are; no line of it is new."""
    comment, user, domain = texts
    made = written("here.example", [
        MethodResult("spf", "pass", comment, (("smtp.mailfrom", domain),)),
        MethodResult("auth", "pass", "", (("smtp.auth", user),)),
    ])  # fmt: skip
    assert made.isascii() and all(line.startswith((b"Auth", b"\t")) for line in made.split(b"\r\n")[:-1])
    unfolded = re.sub(r"\r\n(?=\t)", "", made.decode()).strip()
    parsed = authres.AuthenticationResultsHeader.parse(unfolded)
    assert [result.method for result in parsed.results] == ["spf", "auth"]


def test_no_result() -> None:
    """There is still a field, which says so."""
    assert written("here.example", []) == b"Authentication-Results: here.example;\r\n\tnone\r\n"
