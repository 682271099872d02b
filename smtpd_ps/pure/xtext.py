"""xtext, in which MAIL and RCPT carry any characters as printable ones (RFC 3461 4).

Runs in smtp on the bytes of remote clients, and in queue on what it stored of them.
"""

import re

_XTEXT = re.compile(r"(?:[!-*,-<>-~]|\+[0-9A-F]{2})*").fullmatch
_HEX = re.compile(r"\+([0-9A-F]{2})")


def is_xtext(text: str) -> bool:
    """Whether `text` is xtext: printable, without blank and "=", and "+" only before two capital hex digits."""
    return _XTEXT(text) is not None


def decode_xtext(text: str) -> str:
    """What `text` stands for; characters that are no xtext stand for themselves."""
    return _HEX.sub(lambda found: chr(int(found[1], 16)), text)
