"""The notice that tells a sender what became of a message: multipart/report by hand.

Pure; used in queue. Quotes addresses, remote replies and the original message, all of them bytes
of strangers: addresses and replies are escaped and bounded here, the original travels as a part
of its own behind a boundary that it does not contain.

Sources: RFC 6522 (multipart/report), RFC 3464 (message/delivery-status), RFC 3461 6 (what
NOTIFY, RET, ENVID and ORCPT ask for), RFC 3463 (status codes), RFC 3834 5 (Auto-Submitted).
"""

import re
from dataclasses import dataclass
from typing import Literal

from smtpd_ps.pure.xtext import decode_xtext

NoticeAction = Literal["failed", "delayed", "delivered", "relayed"]

MAX_TEXT = 1000  # characters quoted of a remote reply
MAX_HEADER_BYTES = 32 * 1024  # quoted of the original when only its header is
_FOLD = 900  # below RFC 5322's 998

_STATUS = re.compile(r"(?:^|[^0-9.])([245])\.([0-9]{1,3})\.([0-9]{1,3})(?![0-9.])")
_REPLY = re.compile(r"^[245][0-9][0-9][ -]")
_CLASS = {"failed": "5", "delayed": "4", "delivered": "2", "relayed": "2"}
_DAYS = ("Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

_INTRO = {
    "failed": "Your message could not be delivered to these recipients:",
    "delayed": "Your message has not been delivered to these recipients yet.\r\n"
    "Further attempts follow; there is nothing that you need to do:",
    "delivered": "Your message was delivered to these recipients:",
    "relayed": "Your message was passed on for these recipients, to a server that\r\ndoes not confirm deliveries:",
}


@dataclass(frozen=True, slots=True)
class NoticeRecipient:
    """What became of one recipient. `text` is the last reply or error, `relay` who gave it."""

    rcpt: str  # as the sender wrote it
    dest: str  # after expansion
    text: str
    relay: str = ""
    orcpt: str = ""  # RFC 3461 4.2, "type;address"
    last_try_secs: int = 0
    retry_until_secs: int = 0  # of a delayed one


@dataclass(frozen=True, slots=True)
class Notice:
    """Everything a notice is made from. Times are Unix seconds."""

    action: NoticeAction
    hostname: str
    sender: str  # whom it is for
    recipients: tuple[NoticeRecipient, ...]
    created_secs: int  # when the original arrived
    now_secs: int
    unique: str  # letters and digits, never used before
    original: bytes  # the whole message, or what begins with its header
    full: bool  # return the whole message (RET=FULL), else its header
    envid: str = ""


def build_notice(notice: Notice) -> tuple[bytes, bool]:
    """The message with CRLF line ends, and whether it has bytes above 127."""
    original = notice.original if notice.full else header_of(notice.original)
    eight_bit = not original.isascii()
    boundary = _boundary(notice.unique, original)
    head = [
        f"From: Mail Delivery Subsystem <MAILER-DAEMON@{escape(notice.hostname)}>",
        f"To: <{escape(notice.sender)}>",
        f"Subject: Delivery status notification: {notice.action}",
        f"Date: {date_text(notice.now_secs)}",
        f"Message-ID: <{notice.unique}.bounce@{escape(notice.hostname)}>",
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{boundary}"',
    ]
    if eight_bit:
        head.append("Content-Transfer-Encoding: 8bit")
    lines = [
        *head, "", "This is a MIME-encapsulated message.",
        "", f"--{boundary}", "Content-Type: text/plain; charset=us-ascii", "", *_plain(notice),
        "", f"--{boundary}", "Content-Type: message/delivery-status", "", *_status_part(notice),
        f"--{boundary}",
        f"Content-Type: {'message/rfc822' if notice.full else 'text/rfc822-headers'}",
        *(["Content-Transfer-Encoding: 8bit"] if eight_bit else []),
        "", "",
    ]  # fmt: skip
    return "\r\n".join(lines).encode("ascii") + original + f"\r\n--{boundary}--\r\n".encode("ascii"), eight_bit


def _boundary(unique: str, original: bytes) -> str:
    boundary, n = f"{unique}/report", 0
    while boundary.encode("ascii") in original:
        n += 1
        boundary = f"{unique}{n}/report"
    return boundary


def _plain(notice: Notice) -> list[str]:
    lines = [
        f"This is the mail system at {escape(notice.hostname)}.",
        "",
        *_INTRO[notice.action].split("\r\n"),
        "",
    ]
    for one in notice.recipients:
        shown = escape(one.rcpt)
        if one.dest and one.dest != one.rcpt:
            shown += f" (as {escape(one.dest)})"
        lines += [*fold(f"    {shown}: {escape(one.text)}", "        "), ""]
    lines.append(f"The {'message' if notice.full else 'header of the message'} follows below.")
    return lines


def _status_part(notice: Notice) -> list[str]:
    lines = []
    if notice.envid:
        lines += fold(f"Original-Envelope-Id: {escape(decode_xtext(notice.envid))}")
    lines += [f"Reporting-MTA: dns; {escape(notice.hostname)}", f"Arrival-Date: {date_text(notice.created_secs)}", ""]
    for one in notice.recipients:
        if one.orcpt:
            lines += fold(f"Original-Recipient: {escape(decode_xtext(one.orcpt))}")
        lines += fold(f"Final-Recipient: rfc822; {escape(one.dest or one.rcpt)}")
        lines += [f"Action: {notice.action}", f"Status: {status_code(one.text, notice.action)}"]
        if one.relay:
            lines += fold(f"Remote-MTA: dns; {escape(_remote_name(one.relay))}")
        if one.text and notice.action in ("failed", "delayed"):
            kind = "smtp" if _REPLY.match(one.text) else "x-smtpd-ps"
            lines += fold(f"Diagnostic-Code: {kind}; {escape(one.text)}")
        if one.last_try_secs:
            lines.append(f"Last-Attempt-Date: {date_text(one.last_try_secs)}")
        if notice.action == "delayed" and one.retry_until_secs:
            lines.append(f"Will-Retry-Until: {date_text(one.retry_until_secs)}")
        lines.append("")
    return lines


def _remote_name(relay: str) -> str:
    """`relay` is "address (name)"; the name where there is one, else the address as a literal."""
    address, _, name = relay.partition(" ")
    name = name.strip("()")
    return name or f"[{address}]"


def status_code(text: str, action: NoticeAction) -> str:
    """The x.y.z of a reply, if it fits the action, else x.0.0 (RFC 3463)."""
    wanted = _CLASS[action]
    found = _STATUS.search(text[:64])
    if found is not None and (found[1] == wanted or (action == "failed" and found[1] == "4")):
        return f"{found[1]}.{int(found[2])}.{int(found[3])}"
    return f"{wanted}.0.0"


def escape(text: str) -> str:
    """`text` as printable ASCII, one line, at most MAX_TEXT characters of it."""
    text = text[:MAX_TEXT]
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isascii() and c.isprintable() else _escaped(ord(c)) for c in text)[:MAX_TEXT]


def _escaped(code: int) -> str:
    """By hand: the codec for it would be imported at its first use, after confinement."""
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def fold(line: str, indent: str = " ") -> list[str]:
    """`line` in pieces of less than 998 characters (RFC 5322 2.1.1), the later ones indented."""
    pieces = [line[:_FOLD]]
    pieces += [indent + line[at : at + _FOLD] for at in range(_FOLD, len(line), _FOLD)]
    return pieces


def header_of(message: bytes) -> bytes:
    """The header of `message` up to its blank line, whole lines only, bounded."""
    end = message.find(b"\r\n\r\n")
    header = message if end < 0 else message[: end + 2]
    if message.startswith(b"\r\n"):
        return b""
    if len(header) > MAX_HEADER_BYTES:
        header = header[: header.rfind(b"\r\n", 0, MAX_HEADER_BYTES) + 2]
    return header


def date_text(secs: int) -> str:
    """Unix seconds as an RFC 5322 date in UTC."""
    days, rest = divmod(secs, 86400)
    # Days since 0000-03-01, so that a leap day ends its year and its 400-year era.
    era, day_of_era = divmod(days + 719468, 146097)
    year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    month_from_march = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * month_from_march + 2) // 5 + 1
    month = month_from_march + 3 if month_from_march < 10 else month_from_march - 9
    year = year_of_era + era * 400 + (month <= 2)
    clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}"
    return f"{_DAYS[days % 7]}, {day:02} {_MONTHS[month - 1]} {year:04} {clock} +0000"
