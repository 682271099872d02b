"""The notice a sender gets, read back with the standard library's parser."""

import email
import email.policy
import email.utils

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.pure.bounce import (
    MAX_HEADER_BYTES,
    Notice,
    NoticeRecipient,
    build_notice,
    date_text,
    escape,
    fold,
    header_of,
    status_code,
)

ORIGINAL = b"From: ann@example.com\r\nSubject: hi\r\n\r\nthe body\r\n"


def notice(action="failed", original=ORIGINAL, full=False, envid="", sender="ann@example.com", **recipient):
    fields = {"rcpt": "bob@example.org", "dest": "bob@example.org", "text": "550 5.1.1 no such user"} | recipient
    return Notice(
        action, "mx.example.com", sender, (NoticeRecipient(**fields),), 1_700_000_000, 1_700_000_100, "0abc.1",
        original, full, envid,
    )  # fmt: skip


def parsed(made: Notice):
    raw, _eight_bit = build_notice(made)
    assert b"\n" not in raw.replace(b"\r\n", b"") and b"\r" not in raw.replace(b"\r\n", b"")
    return email.message_from_bytes(raw, policy=email.policy.default)


def status_fields(message):
    """The two blocks of the delivery-status part."""
    _text, status, _original = message.iter_parts()
    return [dict(block.items()) for block in status.get_payload()]


def test_it_is_a_report_of_three_parts():
    """RFC 6522: multipart/report; text, delivery-status, header of the original."""
    message = parsed(notice())
    assert not message.defects
    assert message.get_content_type() == "multipart/report"
    assert message.get_param("report-type") == "delivery-status"
    kinds = [part.get_content_type() for part in message.iter_parts()]
    assert kinds == ["text/plain", "message/delivery-status", "text/rfc822-headers"]


def test_its_header_says_whose_it_is():
    """From MAILER-DAEMON, to the sender, auto-replied (RFC 3834), with Date and Message-ID."""
    message = parsed(notice())
    assert message["From"].addresses[0].addr_spec == "MAILER-DAEMON@mx.example.com"
    assert message["To"].addresses[0].addr_spec == "ann@example.com"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["MIME-Version"] == "1.0"
    assert message["Message-ID"] == "<0abc.1.bounce@mx.example.com>"
    assert message["Date"].datetime.timestamp() == 1_700_000_100


def test_the_status_fields_are_those_of_rfc_3464():
    """Per message and per recipient, ORCPT and ENVID echoed."""
    made = notice(
        envid="id+20x", orcpt="rfc822;Bob@example.org", dest="bob@inside", relay="192.0.2.9 (mx.example.org)",
        last_try_secs=1_700_000_050,
    )  # fmt: skip
    whole, one = status_fields(parsed(made))
    assert whole["Reporting-MTA"] == "dns; mx.example.com"
    assert whole["Original-Envelope-Id"] == "id x"
    assert email.utils.parsedate_to_datetime(whole["Arrival-Date"]).timestamp() == 1_700_000_000
    assert one["Original-Recipient"] == "rfc822;Bob@example.org"
    assert one["Final-Recipient"] == "rfc822; bob@inside"
    assert (one["Action"], one["Status"]) == ("failed", "5.1.1")
    assert one["Diagnostic-Code"] == "smtp; 550 5.1.1 no such user"
    assert one["Remote-MTA"] == "dns; mx.example.org"
    assert email.utils.parsedate_to_datetime(one["Last-Attempt-Date"]).timestamp() == 1_700_000_050


def test_absent_facts_make_no_fields():
    """No ORCPT, no ENVID, no relay: no such lines."""
    whole, one = status_fields(parsed(notice()))
    assert "Original-Envelope-Id" not in whole
    assert not {"Original-Recipient", "Remote-MTA", "Will-Retry-Until", "Last-Attempt-Date"} & set(one)


@pytest.mark.parametrize("action", ["delayed", "delivered", "relayed"])
def test_other_actions(action):
    """The action is told as it is, with a status of its class."""
    _whole, one = status_fields(parsed(notice(action, text="", retry_until_secs=1_700_300_000)))
    assert one["Action"] == action
    assert one["Status"] == ("4.0.0" if action == "delayed" else "2.0.0")
    assert ("Will-Retry-Until" in one) is (action == "delayed")


def test_full_returns_the_whole_message():
    """RET=FULL: message/rfc822 with the body."""
    returned = list(parsed(notice(full=True)).iter_parts())[2]
    assert returned.get_content_type() == "message/rfc822"
    assert returned.get_content().get_content() == "the body\r\n"


def test_the_default_returns_the_header_only():
    """Not a byte of the body."""
    raw, _ = build_notice(notice())
    assert b"Subject: hi" in raw
    assert b"the body" not in raw


def test_eight_bit_originals_are_declared():
    """Bytes above 127 travel unchanged and are announced; without them nothing is."""
    original = "Subject: gr\u00fc\u00dfe\r\n\r\n".encode()
    raw, eight_bit = build_notice(notice(original=original))
    assert eight_bit and "gr\u00fc\u00dfe".encode() in raw
    assert raw.count(b"Content-Transfer-Encoding: 8bit") == 2
    raw, eight_bit = build_notice(notice())
    assert not eight_bit and b"8bit" not in raw


def test_remote_text_is_escaped_and_bounded():
    """A reply with line breaks, escape sequences and great length forges nothing (CVE-2020-8794)."""
    evil = "550 no\r\nAction: delivered\r\n\r\n--0abc.1/report\x1b[2J" + "x" * 5000
    message = parsed(notice(text=evil))
    _whole, one = status_fields(message)
    assert one["Action"] == "failed"
    assert len(list(message.iter_parts())) == 3
    raw, _ = build_notice(notice(text=evil))
    assert b"\x1b" not in raw
    assert max(map(len, raw.split(b"\r\n"))) <= 998


def test_an_original_that_contains_the_boundary_does_not_end_its_part():
    """The boundary is chosen so that the original has it not."""
    original = b"Subject: x\r\n\r\n--0abc.1/report--\r\nmore\r\n"
    parts = list(parsed(notice(original=original, full=True)).iter_parts())
    assert len(parts) == 3
    assert "more" in parts[2].get_content().get_content()


@given(
    text=st.text(max_size=300), rcpt=st.text(max_size=100), relay=st.text(max_size=50), orcpt=st.text(max_size=50),
    original=st.binary(max_size=300), full=st.booleans(), envid=st.text(max_size=30),
)  # fmt: skip
def test_any_strangers_text_gives_the_same_form(text, rcpt, relay, orcpt, original, full, envid):
    """Whatever is quoted: ASCII around the original, three parts, two blocks of status."""
    made = notice(text=text, rcpt=rcpt, relay=relay, orcpt=orcpt, envid=envid, original=original, full=full)
    raw, eight_bit = build_notice(made)
    returned = original if full else header_of(original)
    at = raw.rindex(returned) if returned else len(raw)
    assert raw[:at].isascii()
    assert eight_bit is not raw.isascii()
    boundary = email.message_from_bytes(raw).get_boundary()
    assert raw.count(b"\r\n--" + boundary.encode() + b"\r\n") == 3
    head = raw[:at].decode()
    assert head.count("\r\nAction: failed\r\n") == 1
    assert max(map(len, head.split("\r\n"))) <= 998


@pytest.mark.parametrize(
    ("text", "action", "code"),
    [
        ("550 5.1.1 no", "failed", "5.1.1"),
        ("5.7.26 policy", "failed", "5.7.26"),
        ("550-5.7.26 policy", "failed", "5.7.26"),
        ("4.4.7 Envelope expired", "failed", "4.4.7"),
        ("550 no code", "failed", "5.0.0"),
        ("550 host 5.1.2.3 said", "failed", "5.0.0"),
        ("550 5.1.1 no", "delayed", "4.0.0"),
        ("451 4.7.1 later", "delayed", "4.7.1"),
        ("550 5.1000.1 x", "failed", "5.0.0"),
        ("", "failed", "5.0.0"),
    ],
)
def test_the_status_comes_from_the_reply(text, action, code):
    """The enhanced code of the reply where it fits the action (RFC 3463)."""
    assert status_code(text, action) == code


@given(st.integers(0, 4_102_444_800))
def test_dates_are_those_of_the_standard_library(secs):
    """1970 to 2100."""
    assert date_text(secs) == email.utils.formatdate(secs).replace("-0000", "+0000")


def test_header_of_stops_at_the_blank_line_and_at_its_bound():
    """Whole lines only; a message without a header gives none."""
    assert header_of(ORIGINAL) == b"From: ann@example.com\r\nSubject: hi\r\n"
    assert header_of(b"\r\nbody") == b""
    cut = header_of(b"A: b\r\n" * 20_000)
    assert len(cut) <= MAX_HEADER_BYTES + 2 and cut.endswith(b"A: b\r\n")


def test_escape_and_fold():
    """Printable ASCII stays; all else is escaped; long lines are cut and indented."""
    assert escape("plain") == "plain"
    assert escape("a\r\n\x00\u00e9") == "a\\x0d\\x0a\\x00\\xe9"
    assert escape("\ud800") == "\\ud800"
    assert [len(piece) for piece in fold("x" * 2000)] == [900, 901, 201]
