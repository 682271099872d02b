"""pure/smtp_parameters and pure/xtext: what stands behind the paths of MAIL and RCPT."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.contract.values import Dsn, Notify
from smtpd_ps.pure.smtp_parameters import (
    MAX_ENVID,
    MAX_ORCPT,
    MailParameters,
    ParameterError,
    declares_utf8,
    mail_parameters,
    rcpt_parameters,
)
from smtpd_ps.pure.xtext import decode_xtext, is_xtext


@pytest.mark.parametrize(
    ("text", "good"),
    [("", True), ("a@b.c", True), ("+2B", True), ("a+20b", True), ("+", False), ("+2", False), ("+2b", False),
     ("a=b", False), ("a b", False), ("\x7f", False), ("ü", False), ("+2B+", False)],
)  # fmt: skip
def test_xtext(text: str, good: bool) -> None:
    """Printable, no blank, no "=", "+" only before two capital hexadecimal digits (RFC 3461 4)."""
    assert is_xtext(text) is good


@given(st.text(st.characters(min_codepoint=0, max_codepoint=255)))
def test_xtext_carries_any_byte(text: str) -> None:
    """What is encoded is xtext, and decodes to what it was."""
    encoded = "".join(c if "!" <= c <= "~" and c not in "+=" else f"+{ord(c):02X}" for c in text)
    assert is_xtext(encoded)
    assert decode_xtext(encoded) == text


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", MailParameters()),
        ("SIZE=5 BODY=8BITMIME AUTH=<>", MailParameters()),
        ("ret=full  envid=a+20b", MailParameters("FULL", "a+20b")),
        ("SMTPUTF8", MailParameters(utf8=True)),
    ],
)
def test_mail(options: str, expected: MailParameters) -> None:
    """In any case and order, with any blanks between."""
    assert mail_parameters(options, 10, dsn=True) == expected


def test_utf8_is_seen_before_the_rest() -> None:
    """The word alone, in any case."""
    assert declares_utf8("SIZE=5 smtputf8")
    assert not declares_utf8("")
    assert not declares_utf8("SMTPUTF8=1 XSMTPUTF8")


def test_rcpt() -> None:
    """NOTIFY is a set, ORCPT is kept as it came."""
    assert rcpt_parameters("NOTIFY=DELAY,success ORCPT=rfc822;a+2Bb", dsn=True) == (
        Notify.DELAY | Notify.SUCCESS, "rfc822;a+2Bb",
    )  # fmt: skip
    assert rcpt_parameters("", dsn=True) == (0, "")


_WORDS = st.sampled_from(
    ["SIZE", "BODY", "RET", "ENVID", "NOTIFY", "ORCPT", "SMTPUTF8", "AUTH", "=", "7BIT", "FULL", "NEVER", ",", "DELAY",
     "rfc822;", "+2B", "+", "x" * 120, "x" * 600, " ", "9" * 30, "²", "5", "ü"]
)  # fmt: skip


@given(st.lists(_WORDS, max_size=12).map("".join), st.booleans())
def test_any_options(options: str, dsn: bool) -> None:
    """Options are taken within the bounds of the contract, or refused with one clean line."""
    for parse in (lambda: mail_parameters(options, 1000, dsn), lambda: rcpt_parameters(options, dsn)):
        try:
            found = parse()
        except ParameterError as error:
            assert error.reply[:1] == b"5"
            assert error.reply.isascii()
            assert error.reply.count(b"\r\n") == 1
            continue
        if isinstance(found, MailParameters):
            assert len(found.envid) <= MAX_ENVID
            assert found.ret in ("", "FULL", "HDRS")
            assert dsn or not (found.ret or found.envid)
        else:
            notify, orcpt = found
            assert len(orcpt) <= MAX_ORCPT
            Dsn(notify, orcpt)
            assert dsn or (notify, orcpt) == (0, "")
