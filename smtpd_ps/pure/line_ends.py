"""Lines of a block of message bytes, looked at as a whole: bare CR and LF, long lines, dots in front.

Pure; runs in smtp on the bytes of remote clients, and in delivery on stored messages. All of it
costs less than a nanosecond a byte: a large body is mostly this.
"""

from io import IncrementalNewlineDecoder


def has_bare_line_end(block: bytes) -> bool:
    """Whether some CR or LF of `block` is not part of a CRLF that is in it."""
    # The decoder of universal newlines notes in one pass which kinds there are; counting CRLF, CR and LF takes three.
    newlines = IncrementalNewlineDecoder(None, translate=False)
    newlines.decode(block.decode("latin-1"), final=True)
    return newlines.newlines not in (None, "\r\n")


def has_long_line(block: bytes, max_bytes: int) -> bool:
    """Whether a line of `block`, the LF counted, is longer than that. The last one need not have ended."""
    at, size = 0, len(block)
    while size - at > max_bytes:
        last = block.rfind(b"\n", at, at + max_bytes)  # lines that end before it are short enough
        if last < 0:
            return True
        at = last + 1
    return False


def find_line_dot(block: bytes, end: int) -> int:
    """Where the first CRLF with a dot behind it begins, the dot before `end`; -1 where there is none."""
    # A search for three bytes is slow, one for the last dot is not: base64 has no dots, the header before it has.
    last = block.rfind(b".", 0, end)
    return block.find(b"\r\n.", 0, last + 1) if last >= 0 else -1
