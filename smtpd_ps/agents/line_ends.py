"""Message text on its way from the store (CRLF) into a mailbox (LF), in pieces cut anywhere.

Runs in agents; handles message bytes, which mean nothing here but their line ends.
"""

FROM_LINE = b"\nFrom "


class ToLf:
    """CRLF to LF."""

    __slots__ = ("_cr",)

    def __init__(self) -> None:
        self._cr = False

    def feed(self, chunk: bytes) -> bytes:
        """The next piece converted; a CR at its end waits for what follows."""
        if self._cr:
            chunk = b"\r" + chunk
        self._cr = chunk.endswith(b"\r")
        if self._cr:
            chunk = chunk[:-1]
        return chunk.replace(b"\r\n", b"\n")

    def finish(self) -> bytes:
        """What was held back."""
        return b"\r" if self._cr else b""


class ToMbox:
    """CRLF to LF, and `From ` at the start of a line to `>From ` (mbox(5), the mboxo form).

    The first piece must not begin with a From line: the header lines of ours come first.
    """

    __slots__ = ("_held", "_lf")

    def __init__(self) -> None:
        self._lf = ToLf()
        self._held = b""  # a line end and the start of the next line, if that may become a From line

    def feed(self, chunk: bytes) -> bytes:
        """The next piece converted."""
        return self._quote(self._held + self._lf.feed(chunk))

    def _quote(self, text: bytes) -> bytes:
        last = text.rfind(b"\n", -len(FROM_LINE))
        self._held = b""
        if last >= 0 and FROM_LINE.startswith(text[last:]) and len(text) - last < len(FROM_LINE):
            text, self._held = text[:last], text[last:]
        return text.replace(FROM_LINE, b"\n>From ")

    def finish(self) -> bytes:
        """What was held back, made to end in a blank line."""
        rest = self._held + self._lf.finish()
        self._held = b""
        return rest + (b"\n" if rest.endswith(b"\n") else b"\n\n")
