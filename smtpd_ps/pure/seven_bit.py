"""A message in 7 bits, for a host that does not take 8 (RFC 6152 3): its leaf parts encoded, nothing else changed.

Pure; runs in delivery; parses message bytes of strangers. A leaf part with bytes above 127 becomes quoted-printable
where it is text, else base64 (RFC 2045 6); decoded it is the same bytes. What may not be encoded is not touched:
message/* (RFC 2046 5.2), multipart/signed, header fields; with such bytes in there, or in structure that is not clear,
the message cannot be converted. Fed in pieces and walked twice, so that memory does not depend on its size:

    scan = Scan()                  # which parts need it, or Unconvertible
    writer = Writer(scan.leaves)   # the same pieces again; what `feed` and `finish` return is the new message

Stored form: lines end in CRLF, dots are not stuffed.
"""

import re
from binascii import b2a_base64, b2a_qp
from collections.abc import Set as AbstractSet
from enum import Enum

MAX_DEPTH = 32  # of multiparts in each other
MAX_PARTS = 10_000
MAX_HEADER_BYTES = 131_072  # of the message, and of each part
MAX_LINE_BYTES = 1_048_576
_QP_CHARS = 76  # a line, RFC 2045 6.7
_BASE64_BYTES = 57  # a line

_COMMENT = re.compile(rb"\([^()]*+\)")
_TYPE = re.compile(rb"\s*+([^\s/;]++)\s*+/\s*+([^\s;]++)").match
_PARAMETER = re.compile(rb"""\s*+;\s*+([^\s=;"]++)\s*+=\s*+(?:"((?:[^"\\]|\\.)*+)"|([^\s;"]*+))""", re.DOTALL).match


class Unconvertible(Exception):
    """The message has no form in 7 bits. The text is the answer for its recipients, one line."""


class Kind(Enum):
    """What the content of a part is."""

    LEAF = 0
    MULTIPART = 1  # before the first boundary, or behind the last
    OPAQUE = 2  # not to be touched


class _Fields:
    """What matters of a header block. `eight_bit` where its label says more than 7 bits."""

    __slots__ = ("boundary", "eight_bit", "has_type", "has_version", "is_digest", "kind", "text")

    def __init__(self, block: list[bytes]) -> None:
        values: dict[bytes, list[bytes]] = {}
        for line in b"\r\n".join(block).replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ").split(b"\r\n"):
            name, colon, value = line.partition(b":")
            if colon:
                values.setdefault(name.rstrip().lower(), []).append(value)
        types = values.get(b"content-type", [])
        encodings = values.get(b"content-transfer-encoding", [])
        self.has_type = bool(types)
        self.has_version = b"mime-version" in values
        self.boundary = b""
        self.text = True
        label = _COMMENT.sub(b"", encodings[0]).strip().lower() if encodings else b"7bit"
        self.eight_bit = label in (b"8bit", b"binary") and len(encodings) == 1
        self.is_digest = False
        self.kind = Kind.LEAF
        if types:
            self._read_type(types[0])
        if len(types) > 1 or len(encodings) > 1 or not (self.eight_bit or label == b"7bit"):
            self.kind = Kind.OPAQUE

    def _read_type(self, value: bytes) -> None:
        found = _TYPE(value)
        if found is None:
            self.text = False
            return
        major, minor = found[1].lower(), found[2].lower()
        self.text = major == b"text"
        if major == b"message" or (major, minor) == (b"multipart", b"signed"):
            self.kind = Kind.OPAQUE
        elif major == b"multipart":
            self.boundary = _boundary(value, found.end())
            self.is_digest = minor == b"digest"
            self.kind = Kind.MULTIPART if self.boundary else Kind.OPAQUE


def _boundary(value: bytes, at: int) -> bytes:
    """The boundary among the parameters behind `at`, or nothing that is one."""
    while found := _PARAMETER(value, at):
        at = found.end()
        if found[1].lower() == b"boundary":
            text = found[3] if found[2] is None else re.sub(rb"\\(.)", rb"\1", found[2])
            return text if len(text) <= 200 and text == text.rstrip() else b""
    return b""


class _Walk:
    """Goes through a message line by line."""

    __slots__ = ("_delimiters", "_digests", "_fields", "_header", "_header_bytes", "_part", "_rest")

    def __init__(self) -> None:
        self._delimiters: list[bytes] = []  # of the multiparts that are open, "--" included
        self._digests: list[bool] = []  # which of them are digests
        self._header: list[bytes] | None = []  # so far; None inside a content
        self._header_bytes = 0
        self._part = 0
        self._fields = _Fields([])
        self._rest = b""  # of a line that is not complete

    def feed(self, data: bytes) -> bytes:
        """Take the next piece. Raises Unconvertible."""
        *lines, self._rest = (self._rest + data).split(b"\r\n")
        if len(self._rest) > MAX_LINE_BYTES:
            raise Unconvertible("554 5.6.3 The message has bytes above 127 and too long a line to convert")
        run: list[bytes] = []
        out: list[bytes] = []
        for line in lines:
            if line.startswith(b"--") and (depth := self._depth_of(line)) >= 0:
                out += (self._content(run), self._boundary(line, depth))
                run = []
            elif self._header is None:
                run.append(line)
            else:
                out.append(self._header_line(line))
        out.append(self._content(run))
        return b"".join(out)

    def finish(self) -> bytes:
        """The end of the message. Raises Unconvertible."""
        rest, self._rest = self._rest, b""
        out = self.feed(rest + b"\r\n") if rest else b""
        if self._header:
            return out + self._end_header(b"")
        return out + self._end(last=True)

    def _depth_of(self, line: bytes) -> int:
        """Which open multipart the line is a boundary of, the innermost first; -1: of none."""
        bare = line.rstrip(b" \t")
        for depth in range(len(self._delimiters) - 1, -1, -1):
            if bare in (self._delimiters[depth], self._delimiters[depth] + b"--"):
                return depth
        return -1

    def _boundary(self, line: bytes, depth: int) -> bytes:
        out = self._end_header(b"") if self._header else b""
        out += self._end(last=False)
        closes = line.rstrip(b" \t") == self._delimiters[depth] + b"--"
        del self._delimiters[depth + (0 if closes else 1) :]
        del self._digests[len(self._delimiters) :]
        self._header, self._header_bytes = None if closes else [], 0
        self._fields = _Fields([])
        if closes:
            self._fields.kind = Kind.MULTIPART
        self._part += 1  # what follows the last part counts as one
        if self._part > MAX_PARTS:
            raise Unconvertible("554 5.6.3 The message has bytes above 127 and too many parts to convert")
        return out + self._as_is(line + b"\r\n")

    def _header_line(self, line: bytes) -> bytes:
        assert self._header is not None
        if not line.isascii():
            if self._part:
                raise Unconvertible("554 5.6.3 The header of a part is not ASCII, and the remote host takes 7 bits")
            raise Unconvertible("554 5.6.9 The header is not ASCII, and the remote host takes neither 8 bits nor UTF-8")
        if line:
            self._header.append(line)
            self._header_bytes += len(line)
            if self._header_bytes > MAX_HEADER_BYTES:
                raise Unconvertible("554 5.6.3 The message has bytes above 127 and too large a header to convert")
            return b""
        return self._end_header(b"\r\n")

    def _end_header(self, blank: bytes) -> bytes:
        block, self._header = self._header or [], None
        self._fields = fields = _Fields(block)
        if not fields.has_type and self._digests and self._digests[-1]:
            fields.kind = Kind.OPAQUE  # a message (RFC 2046 5.1.5)
        if fields.kind is Kind.MULTIPART:
            self._delimiters.append(b"--" + fields.boundary)
            self._digests.append(fields.is_digest)
            if len(self._delimiters) > MAX_DEPTH:
                raise Unconvertible("554 5.6.3 The message has bytes above 127 and parts too deep to convert")
        return self._begin(block) + self._as_is(blank)

    # What is made of it.

    def _begin(self, block: list[bytes]) -> bytes:
        """The header block of a part."""
        raise NotImplementedError

    def _content(self, lines: list[bytes]) -> bytes:
        """Whole lines of the current part's content."""
        raise NotImplementedError

    def _end(self, last: bool) -> bytes:
        """The end of a content; `last`: of the message, so that its last line end is its own."""
        raise NotImplementedError

    def _as_is(self, data: bytes) -> bytes:
        """A boundary or blank line."""
        raise NotImplementedError


class Scan(_Walk):
    """The first walk; what `feed` returns is empty. `leaves`: the parts to encode."""

    __slots__ = ("leaves",)

    def __init__(self) -> None:
        super().__init__()
        self.leaves: set[int] = set()

    def _begin(self, block: list[bytes]) -> bytes:
        return b""

    def _content(self, lines: list[bytes]) -> bytes:
        if self._part not in self.leaves and not all(map(bytes.isascii, lines)):
            if self._fields.kind is not Kind.LEAF:
                raise Unconvertible("554 5.6.3 The message has bytes above 127 where they cannot be encoded, "
                                    "and the remote host takes 7 bits")  # fmt: skip
            self.leaves.add(self._part)
        return b""

    def _end(self, last: bool) -> bytes:
        return b""

    def _as_is(self, data: bytes) -> bytes:
        return b""


class Writer(_Walk):
    """The second walk: writes the message with `leaves` encoded."""

    __slots__ = ("_base64", "_held", "_leaves", "_lines")

    def __init__(self, leaves: AbstractSet[int]) -> None:
        super().__init__()
        self._leaves = leaves
        self._base64 = False  # under way
        self._held = b""  # of base64, less than a line
        self._lines = False  # base64 has seen a line

    def _begin(self, block: list[bytes]) -> bytes:
        fields = self._fields
        encode = self._part in self._leaves
        self._base64 = encode and not fields.text
        if not encode and not fields.eight_bit:
            return b"".join(line + b"\r\n" for line in block)
        kept: list[bytes] = []
        skipping = False
        for line in block:
            if not line.startswith((b" ", b"\t")):
                skipping = line.partition(b":")[0].rstrip().lower() == b"content-transfer-encoding"
            if not skipping:
                kept.append(line + b"\r\n")
        if not self._part and not fields.has_version:
            kept.append(b"MIME-Version: 1.0\r\n")
            if not fields.has_type:
                kept.append(b"Content-Type: text/plain; charset=unknown-8bit\r\n")  # RFC 1428
        label = (b"quoted-printable" if fields.text else b"base64") if encode else b"7bit"
        kept.append(b"Content-Transfer-Encoding: " + label + b"\r\n")
        return b"".join(kept)

    def _content(self, lines: list[bytes]) -> bytes:
        if not lines:
            return b""
        if self._base64:
            data = self._held + (b"\r\n" if self._lines else b"") + b"\r\n".join(lines)
            self._lines = True
            whole = len(data) - len(data) % _BASE64_BYTES
            self._held = data[whole:]
            return _base64(data[:whole])
        if self._header is None and self._part in self._leaves and self._fields.kind is Kind.LEAF:
            return _quoted_printable(lines)
        return b"\r\n".join(lines) + b"\r\n"

    def _end(self, last: bool) -> bytes:
        if not self._base64:
            return b""
        data = self._held + (b"\r\n" if last and self._lines else b"")
        self._base64, self._held, self._lines = False, b"", False
        return _base64(data)

    def _as_is(self, data: bytes) -> bytes:
        return data


def _base64(data: bytes) -> bytes:
    pieces = [data[at : at + _BASE64_BYTES] for at in range(0, len(data), _BASE64_BYTES)]
    return b"".join(b2a_base64(piece, newline=False) + b"\r\n" for piece in pieces)


def _quoted_printable(lines: list[bytes]) -> bytes:
    out = b2a_qp(b"\r\n".join([*lines, b""]))
    if b"=\r\n--" in out:  # a line that was broken may look like a boundary where it goes on
        return b"".join(map(_without_dashes, lines))
    return out


def _without_dashes(line: bytes) -> bytes:
    """One line in quoted-printable that has no "-" as such."""
    out: list[str] = []
    room = _QP_CHARS - 1
    for at, byte in enumerate(line):
        plain = (33 <= byte <= 126 and byte not in b"=-") or (byte in b" \t" and at + 1 < len(line))
        word = chr(byte) if plain else f"={byte:02X}"
        if len(word) > room:
            out.append("=\r\n")
            room = _QP_CHARS - 1
        out.append(word)
        room -= len(word)
    return "".join(out).encode("ascii") + b"\r\n"


def seven_bit(message: bytes) -> bytes:
    """A small message in 7 bits. Raises Unconvertible."""
    scan = Scan()
    scan.feed(message)
    scan.finish()
    writer = Writer(scan.leaves)
    return writer.feed(message) + writer.finish()
