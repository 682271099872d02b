"""SPF records and macros where the comparison with pyspf does not reach."""

from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpd_ps.pure.dns_asking import Answer, Question, answered
from smtpd_ps.pure.spf_check import MAX_LOOKUPS, check_host
from smtpd_ps.pure.spf_record import Macros, SpfError, expand, parse

# RFC 7208, section 7.4
MACROS = Macros("strong-bad@email.example.com", "email.example.com", "192.0.2.3", "in-addr", "mx.example.org")


@pytest.mark.parametrize("text, expected", [
    ("%{s}", "strong-bad@email.example.com"), ("%{o}", "email.example.com"), ("%{d}", "email.example.com"),
    ("%{d4}", "email.example.com"), ("%{d3}", "email.example.com"), ("%{d2}", "example.com"), ("%{d1}", "com"),
    ("%{dr}", "com.example.email"), ("%{d2r}", "example.email"), ("%{l}", "strong-bad"), ("%{l-}", "strong.bad"),
    ("%{lr}", "strong-bad"), ("%{lr-}", "bad.strong"), ("%{l1r-}", "strong"),
    ("%{ir}.%{v}._spf.%{d2}", "3.2.0.192.in-addr._spf.example.com"),
    ("%{lr-}.lp._spf.%{d2}", "bad.strong.lp._spf.example.com"),
    ("%{ir}.%{v}.%{l1r-}.lp._spf.%{d2}", "3.2.0.192.in-addr.strong.lp._spf.example.com"),
    ("%{d2}.trusted-domains.example.net", "example.com.trusted-domains.example.net"),
    ("a%%b%-c.%{S}", "a%b%20c.strong-bad%40email.example.com"),
])  # fmt: skip
def test_macros(text: str, expected: str) -> None:
    """The examples of the RFC."""
    assert expand(text, MACROS) == expected


def test_a_long_name_loses_its_left_labels() -> None:
    """Until it can be a name."""
    assert len(expand("x" * 60 + ".%{d}" * 20, MACROS)) <= 253


@settings(deadline=None)
@given(st.lists(st.sampled_from(
    ["a", "mx", "ptr", "all", "include", "exists", "ip4", "ip6", "redirect", ":", "=", "/", "//", "24", "%{i}", "%{",
     "%%",
     "192.0.2.1", "::1", "x.test", "-", "~", " ", "é", "\x00"],
), max_size=12))  # fmt: skip
def test_any_text_is_a_record_or_an_error(parts: list[str]) -> None:
    """And a check with it ends, within its bounds."""
    text = "v=spf1 " + "".join(parts)
    try:
        parse(text)
    except SpfError as error:
        assert str(error)
    asked: list[Question] = []

    def ask(question: Question) -> Answer:
        asked.append(question)
        return Answer((text,) if question.kind == "TXT" else ("10.0.0.1",))

    verdict = answered(check_host(ip_address("192.0.2.1"), "a@x.test", "h.test"), ask)
    assert verdict.result in ("pass", "fail", "softfail", "neutral", "permerror")
    assert len(asked) <= 12 * (MAX_LOOKUPS + 2)


def test_mapped_addresses_are_of_ipv4() -> None:
    """As a dual-stack socket shows them."""
    made = answered(
        check_host(ip_address("::ffff:192.0.2.1"), "a@x.test", "h.test"),
        lambda _question: Answer(("v=spf1 ip4:192.0.2.1 -all",)),
    )
    assert made.result == "pass"
