"""pure/received: the Received header and dates."""

import email.utils
from datetime import datetime, timedelta, timezone

from hypothesis import given, settings
from hypothesis import strategies as st

from smtpd_ps.pure.received import date_text, protocol, received_header


def test_received_header_of_a_plain_session() -> None:
    """The form of OpenSMTPD's header (FEATURES A9), with our name."""
    header = received_header(
        helo="client.example", name="mx.example", address="192.0.2.1", hostname="host.example",
        protocol="ESMTP", msgid=0xABC, tls="", recipient="a@b.example", date="Thu, 1 Jan 1970 00:00:00 +0000 (UTC)",
    )  # fmt: skip
    assert header == (
        b"Received: from client.example (mx.example [192.0.2.1])\r\n"
        b"\tby host.example (smtpd_ps) with ESMTP id 00000abc\r\n"
        b"\tfor <a@b.example>;\r\n"
        b"\tThu, 1 Jan 1970 00:00:00 +0000 (UTC)\r\n"
    )


def test_received_header_with_tls_and_several_recipients() -> None:
    """TLS is named in parentheses, and no recipient when there are several."""
    header = received_header(
        helo="[::1]", name="<unknown>", address="::1", hostname="h", protocol="ESMTPSA", msgid=1,
        tls="TLSv1.3:TLS_AES_256_GCM_SHA384:256:NO", recipient="", date="D",
    )  # fmt: skip
    assert b"(<unknown> [::1])" in header
    assert b"id 00000001 (TLSv1.3:TLS_AES_256_GCM_SHA384:256:NO);\r\n\tD\r\n" in header
    assert b"for" not in header


def test_protocol_words() -> None:
    """RFC 3848's words."""
    assert protocol(False, False, False) == "SMTP"
    assert protocol(True, False, False) == "ESMTP"
    assert protocol(True, True, False) == "ESMTPS"
    assert protocol(True, True, True) == "ESMTPSA"


@settings(deadline=None)
@given(st.integers(0, 4_102_444_800), st.integers(-12 * 60, 14 * 60))
def test_dates_are_those_of_the_standard_library(unix_secs: int, offset_mins: int) -> None:
    """Any moment in any zone comes out as datetime would have it."""
    zone = timezone(timedelta(minutes=offset_mins))
    text = date_text(unix_secs, offset_mins * 60)
    when = datetime.fromtimestamp(unix_secs, zone)
    assert email.utils.parsedate_to_datetime(text) == when
    assert text.startswith(when.strftime("%a, "))
    assert text.endswith(when.strftime("%z"))


def test_zone_name_is_a_comment() -> None:
    """The zone's name stands in parentheses; one that could break the header is left out."""
    assert date_text(0, 3600, "CET") == "Thu, 1 Jan 1970 01:00:00 +0100 (CET)"
    assert date_text(0, 0, "x)\r\ny") == "Thu, 1 Jan 1970 00:00:00 +0000"
