"""Words and values written so that the lexer reads the same values back.

Runs in `smtpd_ps -n -v` and in the parent. The counterpart of config/lexer, whose rules for quotes it inverts.
"""

import string
from collections.abc import Iterable

from smtpd_ps.config.tokens import KEYWORDS

_START = frozenset(string.ascii_letters + string.digits + "_:")
_BARE = frozenset(string.ascii_letters + string.digits + "_:./@+-*%")
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def word(text: str) -> str:
    """`text` as one value: bare where that is the same value, else in double quotes.

    `text` is a value that the lexer made, so it holds no control character but the tab.
    """
    if text and text[0] in _START and _BARE.issuperset(text) and text not in KEYWORDS and not text.isdigit():
        return text
    written = []
    before = ""
    for char in text:
        # A backslash stays one unless a character follows that it would escape.
        escaped = char == '"' or (before == "\\" and char in " \t")
        written.append(f"\\{char}" if escaped else char)
        before = char
    if before == "\\":
        written.append("\\\n")  # alone it would escape the closing quote; one before a line feed vanishes with it
    return f'"{"".join(written)}"'


def values(kind: str, entries: Iterable[tuple[str, str]], *, one_a_line: bool = False) -> str:
    """`{ a, b }` for a list, `{ k = v }` for a map."""
    written = [word(key) if kind == "list" else f"{word(key)} = {word(value)}" for key, value in entries]
    if one_a_line:
        return "{\n\t" + ",\n\t".join(written) + "\n}"
    return f"{{ {', '.join(written)} }}"


def delay(secs: int) -> str:
    """`4d`: seconds in the largest unit that divides them."""
    size, unit = next(pair for pair in _UNITS if secs % pair[0] == 0)
    return f"{secs // size}{unit}"
