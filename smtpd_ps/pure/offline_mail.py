"""A message that sendmail keeps while the daemon is down, as a file: what is to be asked of it, then the body.

Pure; runs in sendmail, which writes it, and in the agent that submits it, both as the user whose file it
is. The first line says the file's own name, so that a link to it under another name is no mail.
"""

import re
from dataclasses import dataclass

from smtpd_ps.contract.values import Notify

EXIT_REFUSED = 65  # of the agent that submits it (sysexits: EX_DATAERR): never again
EXIT_LATER = 75
MAX_HEAD_BYTES = 1 << 20
MAX_RECIPIENTS = 1000
_MAGIC = "smtpd_ps offline 1 "
_NAME = re.compile(r"[0-9a-f]{32}").fullmatch
_RET = ("", "FULL", "HDRS")
_NOTIFY_ALL = Notify.NEVER | Notify.SUCCESS | Notify.FAILURE | Notify.DELAY


class OfflineError(ValueError):
    """Not such a file; one printable line."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """For whom a message is, and what its sender wants to hear of it (RFC 3461)."""

    sender: str
    recipients: tuple[str, ...]
    notify: int = 0
    ret: str = ""
    envid: str = ""
    eight_bit: bool = False


def name_valid(name: str) -> bool:
    """Whether a file of that name may hold a message: 32 hexadecimal digits."""
    return _NAME(name) is not None


def format_head(name: str, envelope: Envelope) -> bytes:
    """What stands before the body. Raises OfflineError where a value has a line break in it."""
    lines = [
        _MAGIC + name,
        f"sender {envelope.sender}",
        f"notify {envelope.notify}",
        f"ret {envelope.ret}",
        f"envid {envelope.envid}",
        f"eight-bit {envelope.eight_bit:d}",
        *(f"rcpt {recipient}" for recipient in envelope.recipients),
    ]
    for line in lines:
        if not line.isprintable():
            raise OfflineError(f"cannot be kept: {line!a}")
    return "\n".join((*lines, "", "")).encode()


def parse_head(name: str, data: bytes) -> tuple[Envelope, int]:
    """The envelope in a file called `name`, and where in it the body begins. Raises OfflineError.

    `data` is the beginning of the file, MAX_HEAD_BYTES of it at least or all there is.
    """
    end = data.find(b"\n\n")
    if end < 0:
        raise OfflineError("it has no end of its head")
    try:
        lines = data[:end].decode().split("\n")
    except UnicodeDecodeError:
        raise OfflineError("its head is no text") from None
    if not all(line.isprintable() for line in lines):
        raise OfflineError("its head has control characters")
    if lines[0] != _MAGIC + name:
        raise OfflineError("it is not what sendmail wrote under this name")
    values: dict[str, str] = {}
    recipients: list[str] = []
    for line in lines[1:]:
        key, _, value = line.partition(" ")
        if key == "rcpt":
            recipients.append(value)
        elif key in values:
            raise OfflineError(f"it has {key} twice")
        else:
            values[key] = value
    if set(values) != {"sender", "notify", "ret", "envid", "eight-bit"} or not 0 < len(recipients) <= MAX_RECIPIENTS:
        raise OfflineError("its head is not complete")
    notify = values["notify"]
    if not (notify.isascii() and notify.isdigit() and len(notify) < 4 and int(notify) <= _NOTIFY_ALL):
        raise OfflineError("its notify is none")
    if values["ret"] not in _RET or values["eight-bit"] not in ("0", "1"):
        raise OfflineError("its ret or eight-bit is none")
    envelope = Envelope(
        values["sender"], tuple(recipients), int(notify), values["ret"], values["envid"], values["eight-bit"] == "1"
    )
    return envelope, end + 2
