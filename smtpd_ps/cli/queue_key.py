"""The key of `queue encryption`: from smtpd.conf, from standard input, or asked for on the terminal.

Runs in the parent before it goes to the background. The key goes to queue with its set-up and nowhere else;
a running queue keeps its key over a reload, which can therefore neither bring nor change one.
"""

import os
import sys

from smtpd_ps.config.directives.limits import QUEUE_KEY_BYTES
from smtpd_ps.config.model import Options

PROMPT = "queue key: "


class KeyProblem(Exception):
    """There is no key, or none of the right length; the text never has the key in it."""


def key_at_start(options: Options) -> bytes:
    """The key, b"" where nothing is encrypted. Raises KeyProblem."""
    match options.queue_encryption:
        case None:
            return b""
        case "":
            text, source = _asked(), "the terminal"
        case "stdin":
            text, source = _read(), "standard input"
        case key:
            text, source = os.fsencode(key), "smtpd.conf"
    if len(text) != QUEUE_KEY_BYTES:
        raise KeyProblem(f"queue encryption: the key has {QUEUE_KEY_BYTES} characters, from {source} came {len(text)}")
    return text


def refuse_reload(options: Options, key: bytes) -> str:
    """Why a queue that was started with `key` cannot take these options; "" where it can."""
    given = options.queue_encryption
    if given is None:
        return ""
    if not key:
        return "queue encryption is turned on by a restart: a queue that runs cannot be given a key"
    if given not in ("", "stdin") and os.fsencode(given) != key:
        return "the key of queue encryption does not change while smtpd_ps runs"
    return ""


def _read() -> bytes:
    return sys.stdin.buffer.readline(4096).rstrip(b"\r\n") if sys.stdin is not None else b""


def _asked() -> bytes:
    import getpass  # for this alone; the parent stays small

    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
        return os.fsencode(getpass.getpass(PROMPT))
    except (OSError, EOFError):
        raise KeyProblem("queue encryption: there is no terminal to ask for the key") from None
