"""Messages on their way through a filter: lines in, and lines out, dots doubled as in SMTP (RFC 5321, 4.5.2).

Runs in filter programs; handles strangers' messages, and looks at nothing but line ends and dots.
"""

from collections.abc import Iterable, Iterator

CHUNK_BYTES = 65536
Piece = bytes | bytearray | memoryview  # of a message; cut anywhere


def undotted(line: bytes) -> bytes:
    """A line as it is in the message."""
    return line[1:] if line.startswith(b".") else line


def dotted(line: bytes) -> bytes:
    """A line as it stands in the protocol, where "." alone is the end."""
    return b"." + line if line.startswith(b".") else line


def prefix(session: str, token: str) -> bytes:
    """What stands before each line of an answer."""
    return f"filter-dataline|{session}|{token}|".encode(errors="surrogateescape")


def one_line(line: bytes) -> bytes:
    """A line of a handler, fit for the protocol. Raises ValueError where it is more than one."""
    line = line.removesuffix(b"\n").removesuffix(b"\r")
    if b"\n" in line:
        raise ValueError("a line of a message has a line end in it")
    return line


def lines(pieces: Iterable[Piece]) -> Iterator[bytes]:
    """The lines of a message that comes in pieces, without their ends (CRLF or LF). Copies a window at a time."""
    rest: list[bytes] = []
    for piece in pieces:
        for start in range(0, len(piece), CHUNK_BYTES):
            first, *more = bytes(piece[start : start + CHUNK_BYTES]).split(b"\n")
            rest.append(first)
            for each in more:
                yield b"".join(rest).removesuffix(b"\r")
                rest = [each]
    last = b"".join(rest)
    if last:
        yield last.removesuffix(b"\r")


def written(head: bytes, pieces: Iterable[Piece]) -> Iterator[bytes]:
    """The protocol's lines for a whole message and its end, in chunks."""
    out: list[bytes] = []
    size = 0
    for line in lines(pieces):
        made = head + dotted(line) + b"\n"
        out.append(made)
        size += len(made)
        if size >= CHUNK_BYTES:
            yield b"".join(out)
            out, size = [], 0
    yield b"".join(out) + head + b".\n"


class Message:
    """A whole message: `data` has its lines with CRLF, nothing doubled; `header` and `body` are parts of it."""

    __slots__ = ("data",)

    def __init__(self) -> None:
        self.data = bytearray()

    def add(self, line: bytes) -> None:
        """A line as the protocol has it."""
        self.data += undotted(line)
        self.data += b"\r\n"

    @property
    def body_start(self) -> int:
        """Where the body begins; the end where there is none."""
        if self.data.startswith(b"\r\n"):
            return 2
        end = self.data.find(b"\r\n\r\n")
        return len(self.data) if end < 0 else end + 4

    @property
    def header(self) -> bytes:
        """The header with the empty line after it."""
        return bytes(memoryview(self.data)[: self.body_start])

    @property
    def body(self) -> memoryview:
        """The body."""
        return memoryview(self.data)[self.body_start :]
