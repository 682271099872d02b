"""A message as DATA or BDAT brings it: find its end, unstuff its dots, notice what is refused.

Runs in smtp on the bytes of remote clients. Only CRLF.CRLF ends a message (RFC 5321 4.1.1.4), so
no form of SMTP smuggling (CVE-2023-51764 and its kin) splits one: bare CR and LF are faults of
the message they stand in, which is swallowed whole and refused once. Blocks are handled as a
whole, never line by line.
"""

from enum import IntFlag

from smtpd_ps.pure.line_ends import find_line_dot, has_bare_line_end, has_long_line

MAX_LINE = 65_535  # OpenSMTPD's; RFC 5321 4.5.3.1.6 asks for 998

_END = b"\r\n.\r\n"


class Fault(IntFlag):
    """What makes a message unacceptable, whatever order it came in."""

    NONE = 0
    BARE = 1  # CR or LF alone
    NUL = 2
    LONG_LINE = 4
    TOO_BIG = 8


class MessageReader:
    """Reads one message, whose bytes `max_bytes` bounds, dots unstuffed and line ends counted.

    `faults`, `eight_bit` and `size_bytes` (stops counting at a fault of size) depend on the
    bytes alone and not on how they were cut into blocks.
    """

    __slots__ = ("_held", "_line_bytes", "_max_bytes", "done", "eight_bit", "faults", "rest", "size_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held = b""  # kept back
        self._line_bytes = 0  # of the line that the last block left open
        self.done = False
        self.rest = b""  # what followed the end
        self.faults = 0
        self.eight_bit = False
        self.size_bytes = 0

    def feed(self, data: bytes) -> bytes:
        """Take a block; return what it adds to the message."""
        raise NotImplementedError

    def finish(self) -> bytes:
        """The message ends here; what that adds to it."""
        raise NotImplementedError

    def _examine(self, block: bytes) -> None:
        size = len(block)
        self.size_bytes += size
        if self.size_bytes > self._max_bytes:
            self.faults |= Fault.TOO_BIG
        if has_bare_line_end(block):
            self.faults |= Fault.BARE
        if b"\0" in block:
            self.faults |= Fault.NUL
        if not self.eight_bit and not block.isascii():
            self.eight_bit = True
        last = block.rfind(b"\n")
        if last < 0:
            longest = self._line_bytes = self._line_bytes + size
        else:
            longest = self._line_bytes + block.find(b"\n") + 1
            self._line_bytes = size - last - 1
            if size > MAX_LINE and has_long_line(block, MAX_LINE):
                longest = size
        if longest > MAX_LINE:
            self.faults |= Fault.LONG_LINE


class ChunkReader(MessageReader):
    """Reads the chunks of BDAT, put together: whoever feeds it says where the message ends.

    The bytes are the message as they are, dots too. The rules for line ends are those of DATA, since
    it may have to go on by that; a last line that is open is closed.
    """

    __slots__ = ()

    def feed(self, data: bytes) -> bytes:
        """Take a block; return what it adds to the message."""
        if self._held:
            data = self._held + data
        self._held = b"\r" if data.endswith(b"\r") else b""  # its LF may be in the next block
        block = data[:-1] if self._held else data
        if block:
            self._examine(block)
        return block

    def finish(self) -> bytes:
        """The last chunk has come; what its end adds."""
        if self.done:
            return b""
        self.done = True
        if self._held:
            self.faults |= Fault.BARE
            return b""
        if not self._line_bytes:
            return b""
        self._examine(b"\r\n")
        return b"\r\n"


class DataReader(MessageReader):
    """Reads what follows DATA, to CRLF.CRLF."""

    __slots__ = ("_started",)

    def __init__(self, max_bytes: int) -> None:
        super().__init__(max_bytes)
        self._held = b"\r\n"  # as if before the first line; later what may be the end's beginning
        self._started = False

    def feed(self, data: bytes) -> bytes:
        """Take a block; return what it adds to the message. At the end `done` and `rest` are set."""
        if self._held:
            data = self._held + data
        # As a rule the end is at the end, and no line before it begins with a dot.
        ended = data.endswith(_END)
        dot = find_line_dot(data, len(data) - 3 if ended else len(data))
        end = len(data) - 5 if ended else -1
        if dot >= 0:
            end = data.find(_END, dot)
        if end >= 0:
            self.done = True
            self.rest = data[end + 5 :]
            block = data[: end + 2]
        else:
            keep = _end_begun(data)
            block = data[: len(data) - keep] if keep else data
            self._held = data[len(data) - keep :] if keep else b""
        if not block:
            return b""
        if 0 <= dot != end:
            block = block.replace(b"\r\n.", b"\r\n")
        if not self._started:
            self._started = True
            block = block[2:]
        self._examine(block)
        return block


def _end_begun(data: bytes) -> int:
    """How many of the last bytes of `data` may be the beginning of CRLF.CRLF."""
    if data.endswith(b"\r\n"):
        return 2
    if data.endswith(b"\r\n."):
        return 3
    if data.endswith(b"\r"):
        return 4 if data.endswith(b"\r\n.\r") else 1
    return 0
