"""Whether a filter of ours called a message junk.

Pure; runs in agents; reads the beginning of stored messages. Our smtp puts the line `X-Spam: Yes` at the
very top, above its Received, when a filter says junk. Whatever a client sent stands below that
Received, so a line of its own does not count (QUIRKS 29; OpenSMTPD believes any X-Spam and X-Spam-Flag).
"""

MARK = b"X-Spam: Yes"
SEARCH_BYTES = 1024


def marked_junk(start: bytes) -> bool:
    """Whether the mark is there, above the first Received; `start` is the beginning of a message."""
    for line in start[:SEARCH_BYTES].split(b"\n"):
        text = line.rstrip(b"\r").lower()
        if text == MARK.lower():
            return True
        if not text or text.startswith(b"received:"):
            return False
    return False
