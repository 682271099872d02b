"""The text of a filter's refusal: what may be sent to a client as a reply.

Used by the configuration, and in lookup on what filter programs answer.
"""

import re

MAX_REPLY = 480  # RFC 5321 4.5.3.1.5 bounds a line to 512 bytes

_REPLY = re.compile(r"[45][0-9][0-9] [ -~]*[!-~][ -~]*").fullmatch


class ReplyTextError(ValueError):
    """Not a refusal."""


def check_reply(text: str) -> None:
    """Raises ReplyTextError unless `text` is "4xx text" or "5xx text" on one printable ASCII line."""
    if _REPLY(text) is None:
        raise ReplyTextError('a reply starts with a code from 400 to 599 and a blank, as in "550 go away"')
    if len(text) > MAX_REPLY:
        raise ReplyTextError(f"a reply has at most {MAX_REPLY} characters")
