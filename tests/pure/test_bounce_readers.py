"""Bounces as programs that read them see them: Python's email package, and flufl.bounce, Mailman's reader."""

import email
import email.policy
from email.message import EmailMessage

import pytest

from smtpd_ps.pure.bounce import Notice, NoticeAction, NoticeRecipient, build_notice

ORIGINAL = b"From: ann@example.com\r\nSubject: caf\xc3\xa9\r\nMessage-ID: <1@example.com>\r\n\r\nbody\r\n"
ACTIONS: tuple[NoticeAction, ...] = ("failed", "delayed", "delivered", "relayed")
TEXTS = (
    "550 5.1.1 <bob@example.org>: no such user",
    "452 4.2.2 mailbox full",
    "5.4.6 Loop detected",
    "Connection refused",
    "250 2.0.0 \u00fcber; \x07 odd\r\nSecond: line",
)


def notice(action: NoticeAction, full: bool = False, texts: tuple[str, ...] = TEXTS) -> bytes:
    recipients = tuple(
        NoticeRecipient(f"user{number}@example.org", f"dest{number}@example.org", text, "192.0.2.1 (mx.example.org)",
                        f"rfc822;user{number}@example.org", 1_700_000_100, 1_700_400_000)
        for number, text in enumerate(texts)
    )  # fmt: skip
    return build_notice(
        Notice(action, "mx.example.com", "ann@example.com", recipients, 1_700_000_000, 1_700_000_200, "1.2", ORIGINAL,
               full, "envid-1")
    )[0]  # fmt: skip


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("full", [False, True])
def test_the_email_package_reads_all_of_it(action: NoticeAction, full: bool) -> None:
    """No defect anywhere; three parts of the right types; a group of fields for each recipient."""
    message = email.message_from_bytes(notice(action, full), policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert (message.get_content_type(), message.get_param("report-type")) == (
        "multipart/report", "delivery-status",
    )  # fmt: skip
    parts = list(message.iter_parts())
    assert not any(part.defects for part in message.walk())
    assert [part.get_content_type() for part in parts][:2] == ["text/plain", "message/delivery-status"]
    assert parts[2].get_content_type() == ("message/rfc822" if full else "text/rfc822-headers")
    groups = parts[1].get_payload()
    assert len(groups) == 1 + len(TEXTS)
    assert groups[0]["Reporting-MTA"] == "dns; mx.example.com"
    for number, group in enumerate(groups[1:]):
        assert group["Final-Recipient"].partition(";")[2].strip() == f"dest{number}@example.org"
        assert group["Action"] == action
        assert group["Status"][0] in {"failed": "45", "delayed": "4"}.get(action, "2")  # 4 where it expired
    assert message["Auto-Submitted"].startswith("auto-replied") and message["To"] == "ann@example.com"


@pytest.mark.parametrize("action", ACTIONS)
def test_flufl_bounce_reads_who_failed_and_who_waits(action: NoticeAction) -> None:
    """Failed recipients are permanent failures, delayed ones temporary; success is no failure at all. They
    are called what their sender called them.
    """
    bounce = pytest.importorskip("flufl.bounce", reason="flufl.bounce is not installed (pip install .[test])")
    temporary, permanent = bounce.all_failures(email.message_from_bytes(notice(action)))
    everyone = {f"user{number}@example.org".encode() for number in range(len(TEXTS))}
    assert set(permanent) == (everyone if action == "failed" else set())
    assert set(temporary) == (everyone if action == "delayed" else set())


def test_one_recipient() -> None:
    """The common case, through flufl.bounce's simple door."""
    bounce = pytest.importorskip("flufl.bounce", reason="flufl.bounce is not installed (pip install .[test])")
    found = bounce.scan_message(email.message_from_bytes(notice("failed", texts=TEXTS[:1])))
    assert set(found) == {b"user0@example.org"}
