"""What a server offers in its answer to EHLO or LHLO.

Pure; runs in delivery; parses lines of remote servers (RFC 5321 4.1.1.1), keywords in any case.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Offers:
    """The extensions that matter to us."""

    pipelining: bool = False
    size: bool = False
    max_size_bytes: int = 0  # 0: not told
    eight_bit: bool = False
    dsn: bool = False
    smtputf8: bool = False
    starttls: bool = False
    auth: frozenset[str] = frozenset()


def parse_offers(lines: list[bytes]) -> Offers:
    """The offers in the lines of a 250 reply; the first line is the greeting."""
    words: dict[str, list[str]] = {}
    for line in lines[1:]:
        first, *rest = line.decode("ascii", "replace").upper().split() or [""]
        keyword, equals, value = first.partition("=")  # "AUTH=LOGIN" is an old form
        words.setdefault(keyword, []).extend([value, *rest] if equals else rest)
    size = words.get("SIZE", [])
    limit = int(size[0]) if size and size[0].isascii() and size[0].isdigit() and len(size[0]) <= 18 else 0
    return Offers(
        pipelining="PIPELINING" in words,
        size="SIZE" in words,
        max_size_bytes=limit,
        eight_bit="8BITMIME" in words,
        dsn="DSN" in words,
        smtputf8="SMTPUTF8" in words,
        starttls="STARTTLS" in words,
        auth=frozenset(words.get("AUTH", [])),
    )
