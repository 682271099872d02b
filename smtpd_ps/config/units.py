"""Delays and sizes of smtpd.conf.

Runs in the parent and in `smtpd_ps -n`.
"""

import re
from fractions import Fraction

MAX_DELAY_SECS = 10**9  # contract.settings.Seconds
MAX_SIZE_BYTES = 2**63 - 1
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DELAY = re.compile(r"([0-9]{1,10})([smhd])")
_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{0,19})?|\.[0-9]{1,19})([BKMGTPE]?)", re.IGNORECASE)
_POWERS = "BKMGTPE"


def delay_secs(text: str) -> int | None:
    """Seconds of "4d": a positive number and one of s, m, h, d (parse.y, delaytonum); None if it is not that."""
    match = _DELAY.fullmatch(text)
    if match is None:
        return None
    secs = int(match[1]) * _SECONDS[match[2]]
    return secs if 0 < secs <= MAX_DELAY_SECS else None


def size_bytes(text: str) -> int | None:
    """Bytes of "35M", fractions allowed (scan_scaled(3)); None if it is not that."""
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    scale = 1024 ** _POWERS.index(match[2].upper()) if match[2] else 1
    size = int(Fraction("0" + match[1] + "0" if "." in match[1] else match[1]) * scale)
    return size if size <= MAX_SIZE_BYTES else None
