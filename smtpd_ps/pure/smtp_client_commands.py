"""The command lines of one transaction.

Pure; runs in delivery. Addresses were validated when the message came in; what could leave its
brackets is refused here all the same, because a spool may have been changed by someone else.
"""

from smtpd_ps.contract.values import Dsn, Notify
from smtpd_ps.pure.smtp_client_ehlo import Offers
from smtpd_ps.pure.smtp_client_events import Mail

_NOTIFY_WORDS = ((Notify.NEVER, "NEVER"), (Notify.SUCCESS, "SUCCESS"), (Notify.FAILURE, "FAILURE"),
                 (Notify.DELAY, "DELAY"))  # fmt: skip


def is_safe_path(address: str) -> bool:
    """Whether `address` can stand in angle brackets on a command line."""
    return address.isprintable() and " " not in address and "<" not in address and ">" not in address


def mail_command(mail: Mail, offers: Offers) -> str:
    """`MAIL FROM:<..>` with the parameters that the server offers (RFC 1870, 6152, 6531, 3461)."""
    line = f"MAIL FROM:<{mail.sender}>"
    if offers.size and mail.size_bytes:
        line += f" SIZE={mail.size_bytes}"
    if mail.eight_bit and offers.eight_bit:
        line += " BODY=8BITMIME"
    if offers.smtputf8 and needs_smtputf8(mail):
        line += " SMTPUTF8"
    if mail.dsn and offers.dsn:
        first = mail.dsn[0]  # RET and ENVID are the transaction's: all recipients have the same
        if first.ret:
            line += f" RET={first.ret}"
        if is_word(first.envid):
            line += f" ENVID={first.envid}"
    return line + "\r\n"


def rcpt_command(mail: Mail, at: int, offers: Offers) -> str:
    """`RCPT TO:<..>` of the recipient numbered `at`."""
    line = f"RCPT TO:<{mail.recipients[at]}>"
    if mail.dsn and offers.dsn:
        line += dsn_parameters(mail.dsn[at])
    return line + "\r\n"


def dsn_parameters(dsn: Dsn) -> str:
    """NOTIFY and ORCPT (RFC 3461 4.1, 4.2), or nothing."""
    out = ""
    if dsn.notify:
        out = " NOTIFY=" + ",".join(word for flag, word in _NOTIFY_WORDS if dsn.notify & flag)
    if is_word(dsn.orcpt):
        out += f" ORCPT={dsn.orcpt}"
    return out


def is_word(text: str) -> bool:
    """Whether `text` is a parameter value: something printable in ASCII without a blank."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def needs_smtputf8(mail: Mail) -> bool:
    """Whether an address is not ASCII (RFC 6531)."""
    return not (mail.sender.isascii() and all(address.isascii() for address in mail.recipients))


def pipelined_head(mail: Mail, offers: Offers) -> bytes:
    """MAIL, every RCPT and DATA at once (RFC 2920 3.1)."""
    rcpts = [rcpt_command(mail, at, offers) for at in range(len(mail.recipients))]
    return f"{mail_command(mail, offers)}{''.join(rcpts)}DATA\r\n".encode()
