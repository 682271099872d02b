"""The little ASN.1 (DER, ITU-T X.690) that certificates and decoy keys need: read and write.

Runs in keys, smtp and delivery before they are confined; parses certificates of the operator's.
Tags are one byte and lengths definite, as in every X.509 certificate; anything else is DerError.
"""

from collections.abc import Iterator

BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, NULL, OID = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
UTC_TIME, GENERALIZED_TIME = 0x17, 0x18
SEQUENCE, SET = 0x30, 0x31


class DerError(ValueError):
    """Not the DER that was expected."""


Element = tuple[int, bytes]  # tag and content


def elements(data: bytes) -> Iterator[Element]:
    """The elements that follow each other in `data`. Raises DerError."""
    at = 0
    while at < len(data):
        tag, content, at = _element(data, at)
        yield tag, content


def only(data: bytes, tag: int) -> bytes:
    """The content of the one element in `data`, which must have this tag. Raises DerError."""
    found, content, end = _element(data, 0)
    if end != len(data):
        raise DerError("bytes after the end")
    return expect((found, content), tag)


def expect(element: Element, tag: int) -> bytes:
    """The content of an element that must have this tag. Raises DerError."""
    if element[0] != tag:
        raise DerError(f"tag {element[0]:#x} instead of {tag:#x}")
    return element[1]


def _element(data: bytes, at: int) -> tuple[int, bytes, int]:
    if len(data) - at < 2:
        raise DerError("cut off")
    tag, length = data[at], data[at + 1]
    at += 2
    if tag & 0x1F == 0x1F:
        raise DerError("a tag of more than one byte")
    if length >= 0x80:
        size = length & 0x7F
        if not 1 <= size <= 4 or len(data) - at < size:
            raise DerError("a bad length")
        length = int.from_bytes(data[at : at + size])
        at += size
    if len(data) - at < length:
        raise DerError("cut off")
    return tag, data[at : at + length], at + length


def read_integer(element: Element) -> int:
    """A non-negative INTEGER. Raises DerError."""
    content = expect(element, INTEGER)
    if not content or content[0] & 0x80:
        raise DerError("a negative or empty number")
    return int.from_bytes(content)


def read_bits(element: Element) -> bytes:
    """A BIT STRING of whole bytes. Raises DerError."""
    content = expect(element, BIT_STRING)
    if not content or content[0]:
        raise DerError("not a whole number of bytes")
    return content[1:]


def read_oid(element: Element) -> str:
    """An OBJECT IDENTIFIER in dotted form. Raises DerError."""
    content = expect(element, OID)
    if not content or content[-1] & 0x80:
        raise DerError("a bad object identifier")
    arcs: list[int] = []
    arc = 0
    for byte in content:
        arc = arc << 7 | byte & 0x7F
        if not byte & 0x80:
            arcs.append(arc)
            arc = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(str(n) for n in (first, arcs[0] - 40 * first, *arcs[1:]))


def write(tag: int, *contents: bytes) -> bytes:
    """One element whose content is the given parts."""
    content = b"".join(contents)
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + content


def write_integer(number: int) -> bytes:
    """A non-negative INTEGER."""
    return write(INTEGER, number.to_bytes(number.bit_length() // 8 + 1))


def write_bits(data: bytes) -> bytes:
    """A BIT STRING of whole bytes."""
    return write(BIT_STRING, b"\0", data)


def write_oid(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER from its dotted form."""
    first, second, *rest = (int(n) for n in dotted.split("."))
    out = bytearray()
    for arc in (40 * first + second, *rest):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(arc & 0x7F | 0x80)
        out += bytes(reversed(groups))
    return write(OID, bytes(out))
