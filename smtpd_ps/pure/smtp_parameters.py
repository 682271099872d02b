"""The parameters of MAIL and RCPT: SIZE, BODY, AUTH, SMTPUTF8, and those of delivery status notifications.

Runs in smtp on the bytes of remote clients, made text before. Codes, words and limits are
OpenSMTPD's (QUIRKS "SMTP" 4, 7; FEATURES A9); what it takes without a look and RFC 3461 does not
allow is refused.
"""

from typing import NamedTuple

from smtpd_ps.contract.values import Notify
from smtpd_ps.pure import smtp_replies as say
from smtpd_ps.pure.xtext import is_xtext

MAX_ENVID = 100
MAX_ORCPT = 500
_MAX_SIZE_DIGITS = 20  # RFC 1870 4
_NOTIFY = {"SUCCESS": Notify.SUCCESS, "FAILURE": Notify.FAILURE, "DELAY": Notify.DELAY, "NEVER": Notify.NEVER}


class ParameterError(ValueError):
    """The reply that refuses the command."""

    def __init__(self, reply: bytes) -> None:
        super().__init__(reply)
        self.reply = reply


class MailParameters(NamedTuple):
    """What MAIL says of the transaction; 8BITMIME is seen in the data, and AUTH is passed over."""

    ret: str = ""  # FULL or HDRS
    envid: str = ""  # xtext
    utf8: bool = False  # RFC 6531


NONE = MailParameters()


def declares_utf8(options: str) -> bool:
    """Whether MAIL says SMTPUTF8, so that its address need not be ASCII."""
    return bool(options) and any(option.upper() == "SMTPUTF8" for option in options.split(" "))


def mail_parameters(options: str, max_bytes: int, dsn: bool) -> MailParameters:
    """What stands behind the path of MAIL; `dsn` says whether notifications are offered. Raises ParameterError."""
    ret = envid = ""
    utf8 = False
    for option, keyword, value in _each(options):
        if keyword == "SIZE":
            if not (value.isascii() and value.isdigit()) or len(value) > _MAX_SIZE_DIGITS:
                raise ParameterError(say.BAD_SIZE)
            if int(value) > max_bytes:
                raise ParameterError(say.SIZE_TOO_BIG)
        elif keyword == "SMTPUTF8" and option == keyword:
            utf8 = True
        elif keyword == "RET" and dsn:
            ret = value.upper()
            if ret not in ("FULL", "HDRS"):
                raise ParameterError(say.BAD_RET)
        elif keyword == "ENVID" and dsn:
            envid = value
            if len(envid) > MAX_ENVID:
                raise ParameterError(say.ENVID_TOO_LONG)
            if not envid or not is_xtext(envid):
                raise ParameterError(say.BAD_ENVID)
        elif not (keyword == "BODY" and value.upper() in ("7BIT", "8BITMIME")) and not (keyword == "AUTH" and value):
            raise ParameterError(say.reply(503, f"5.5.4 Invalid command arguments: Unsupported option {option[:200]}"))
    return MailParameters(ret, envid, utf8)


def rcpt_parameters(options: str, dsn: bool) -> tuple[int, str]:
    """What stands behind the path of RCPT: NOTIFY, and ORCPT as "type;xtext". Raises ParameterError."""
    notify, orcpt = 0, ""
    for option, keyword, value in _each(options):
        if keyword == "NOTIFY" and dsn:
            for word in value.upper().split(","):
                if word not in _NOTIFY:
                    raise ParameterError(say.BAD_NOTIFY)
                notify |= _NOTIFY[word]
            if notify & Notify.NEVER and notify != Notify.NEVER:
                raise ParameterError(say.NOTIFY_NEVER)
        elif keyword == "ORCPT" and dsn:
            kind, semicolon, address = value.partition(";")
            if not (kind and semicolon and address and is_xtext(kind) and is_xtext(address)) or len(value) > MAX_ORCPT:
                raise ParameterError(say.BAD_ORCPT)
            orcpt = value
        else:
            raise ParameterError(say.reply(503, f"Unsupported option {option[:200]}"))
    return int(notify), orcpt


def _each(options: str) -> list[tuple[str, str, str]]:
    """Each option, its keyword in capitals and its value. Raises ParameterError for one that comes twice."""
    found = []
    seen = set()
    for option in options.split(" "):
        if not option:
            continue
        keyword, _, value = option.partition("=")
        keyword = keyword.upper()
        if keyword in seen:
            raise ParameterError(say.OPTION_TWICE)
        seen.add(keyword)
        found.append((option.upper() if not value else option, keyword, value))
    return found
