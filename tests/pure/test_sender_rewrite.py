"""The sender that a relay shows."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.config.directives.relay import mail_from_valid
from smtpd_ps.pure.address import mailbox_valid
from smtpd_ps.pure.sender_rewrite import rewrite_sender


@pytest.mark.parametrize(
    ("sender", "mail_from", "shown"),
    [
        ("a@b.org", "", "a@b.org"),
        ("a@b.org", "x@y.org", "x@y.org"),
        ("a+t@b.org", "@y.org", "a+t@y.org"),
        ("", "x@y.org", ""),
        ("", "@y.org", ""),
        ("", "", ""),
    ],
)
def test_what_is_shown(sender: str, mail_from: str, shown: str) -> None:
    """A whole address replaces the sender, "@domain" keeps its user, and the null sender always stays."""
    assert rewrite_sender(sender, mail_from) == shown


@pytest.mark.parametrize("text", ["", "@", "user", "user@", "@a b", "a b@c", "@a@b", "x@y\r\nRCPT", "@-"])
def test_what_no_sender_can_be_made_of(text: str) -> None:
    """Such texts are refused by the configuration."""
    assert not mail_from_valid(text)


@given(st.sampled_from(["a@b.org", "a+b@[192.0.2.1]", "x.y@z"]), st.text("ab@.[]-", max_size=8))
def test_a_valid_sender_stays_valid(sender: str, mail_from: str) -> None:
    """Whatever the configuration may say, what goes out is an address."""
    if mail_from_valid(mail_from):
        assert mailbox_valid(rewrite_sender(sender, mail_from))
