"""Replies of a remote SMTP or LMTP server, cut out of its byte stream and bounded.

Pure; runs in delivery; parses bytes of remote servers, who may send anything. A reply is one or
more lines of the same three-digit code (RFC 5321 4.2.1). What is not that, or is longer than the
bounds here, is a ReplyError: nothing more can be believed on that connection.
"""

MAX_LINE_BYTES = 4096  # RFC 5321 4.5.3.1.5 allows 512
MAX_REPLY_LINES = 128
MAX_REPLY_BYTES = 32_768
MAX_TEXT = 900  # of one reply, in logs and bounces

_CODES: dict[bytes, int] = {b"%d" % code: code for code in range(200, 600)}


class ReplyError(Exception):
    """The server does not speak SMTP, or says too much of it. The text is one printable line."""


class Reply:
    """One reply: its code and the lines after the code, raw."""

    __slots__ = ("code", "lines")

    def __init__(self, code: int, lines: list[bytes]) -> None:
        self.code = code
        self.lines = lines

    @property
    def text(self) -> str:
        """`250 2.0.0 ok`: one printable line, an enhanced code that each line repeats given once."""
        lines = self.lines
        if len(lines) == 1:
            return f"{self.code} {printable(lines[0])}"
        words = lines[0].split(b" ", 1)
        enhanced = words[0] + b" "
        if not is_enhanced_code(words[0]):
            return f"{self.code} {printable(b' '.join(lines))}"
        rest = [line.removeprefix(enhanced) for line in lines[1:]]
        return f"{self.code} {printable(b' '.join([lines[0], *rest]))}"


def is_enhanced_code(word: bytes) -> bool:
    """Whether `word` has the form of RFC 3463 2: class.subject.detail."""
    parts = word.split(b".")
    return len(parts) == 3 and parts[0] in (b"2", b"4", b"5") and all(p.isdigit() and len(p) <= 3 for p in parts)


def printable(data: bytes) -> str:
    """`data` as one printable line of at most MAX_TEXT characters; anything else as a backslash escape."""
    text = data.decode("utf-8", "backslashreplace")
    if not text.isprintable():
        text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:MAX_TEXT])
    return text[:MAX_TEXT].rstrip()


class ReplyReader:
    """Takes what the server sends and gives the replies that are complete.

    A bare LF is taken as a line end too: the line then stands in no message, so nothing can be
    smuggled by it. `error`: what came after the replies that the last `feed` gave is no reply.
    """

    __slots__ = ("_bytes", "_lines", "_rest", "error")

    def __init__(self) -> None:
        self._rest = b""  # of a line that is not complete
        self._lines: list[bytes] = []  # of a reply that is not complete
        self._bytes = 0
        self.error: ReplyError | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing is half received."""
        return not self._rest and not self._lines

    def feed(self, data: bytes) -> list[Reply]:
        """Take bytes; return the replies now complete. Raises ReplyError where there is none before the error."""
        out: list[Reply] = []
        try:
            self._feed(data, out)
        except ReplyError as error:
            if not out:
                raise
            self.error = error  # a message that was taken stays taken, whatever is said next
        return out

    def _feed(self, data: bytes, out: list[Reply]) -> None:
        if self._rest:
            data = self._rest + data
        lines = data.split(b"\n")
        self._rest = rest = lines.pop()
        for line in lines:
            if line.endswith(b"\r"):
                line = line[:-1]
            code = _CODES.get(line[:3])
            mark = line[3:4]
            if code is None or (mark and mark != b" " and mark != b"-"):
                raise ReplyError(f"not an SMTP reply: {printable(line[:80])}")
            if len(line) > MAX_LINE_BYTES:
                raise ReplyError("a reply line is too long")
            if mark != b"-" and not self._lines:
                out.append(Reply(code, [line[4:]]))
                continue
            self._gather(line)
            if mark != b"-":
                out.append(Reply(code, [each[4:] for each in self._lines]))
                self._lines.clear()
                self._bytes = 0
        if len(rest) > MAX_LINE_BYTES:
            raise ReplyError("a reply line is too long")

    def _gather(self, line: bytes) -> None:
        kept = self._lines
        if kept and kept[0][:3] != line[:3]:
            raise ReplyError(f"a reply with two codes: {printable(line[:80])}")
        self._bytes += len(line)
        kept.append(line)
        if len(kept) > MAX_REPLY_LINES or self._bytes > MAX_REPLY_BYTES:
            raise ReplyError("a reply is too long")
