"""What a local program hands in to be sent: its header fields and body, made into a message.

Pure; runs in sendmail, as whoever calls it; reads bytes of any program. Line ends may be LF or CRLF.
A message may have no header at all, begin with the "From " line of an mbox, or end in its header
(sendmail(8)).
"""

import re
from binascii import b2a_base64, b2a_qp
from collections.abc import Iterator
from dataclasses import dataclass

from smtpd_ps.pure.header_addresses import AddressListError, address_list
from smtpd_ps.pure.line_ends import has_long_line

MAX_PLAIN_LINE_BYTES = 990  # a line of the body that is longer, its end counted, is encoded
MAX_NAME = 255
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
_MBOX_LINE = re.compile(rb"From |>From ", re.IGNORECASE)
# Where none of these is there, what has the form of a header is text: "error: the disk is full".
_KNOWN = frozenset(
    b"from sender reply-to to cc bcc date message-id in-reply-to references subject comments keywords return-path "
    b"received mime-version content-type content-disposition content-transfer-encoding content-id "
    b"content-description user-agent auto-submitted precedence importance priority errors-to delivered-to".split()
)
_KNOWN_STARTS = (b"x-", b"resent-", b"list-")
_DROPPED = frozenset((b"bcc", b"return-path"))
_RECIPIENTS = (b"to", b"cc", b"bcc")
_ENCODED_WORD_BYTES = 42  # of text in one: 75 characters with what is around it (RFC 2047 2)
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?: [A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*").fullmatch


class DraftError(ValueError):
    """What is handed in cannot be sent; one printable line."""


@dataclass(frozen=True, slots=True)
class Draft:
    """A message as it came: `fields` are (name in lower case, the field with its folds), lines end with LF."""

    fields: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def has(self, name: bytes) -> bool:
        """Whether there is a field of that name."""
        return any(each == name for each, _field in self.fields)

    def values(self, name: bytes) -> Iterator[bytes]:
        """The values of the fields of that name, folds removed."""
        for each, field in self.fields:
            if each == name:
                yield field.partition(b":")[2].replace(b"\n", b"")


def read_draft(data: bytes) -> Draft:
    """Take a message apart. NUL and a bare CR in a header become blanks: no field comes out of another."""
    text = data.replace(b"\r\n", b"\n")
    fields: list[tuple[bytes, bytes]] = []
    known = False
    at = 0
    while at < len(text):
        end = text.find(b"\n", at) + 1 or len(text)
        line = text[at:end].translate(_BLANKS)
        if not line.endswith(b"\n"):
            line += b"\n"
        found = _FIELD.match(line)
        if found is not None:
            name = found[1].lower()
            known = known or name in _KNOWN or name.startswith(_KNOWN_STARTS)
            fields.append((name, line))
        elif line[:1] in (b" ", b"\t") and line.strip() and fields:
            fields[-1] = (fields[-1][0], fields[-1][1] + line)
        elif not (_MBOX_LINE.match(line) and (at == 0 or fields)):
            break
        at = end
    if not known:
        start = text.find(b"\n") + 1 if _MBOX_LINE.match(text) and b"\n" in text else 0
        return Draft((), text[start:])
    return Draft(tuple(fields), text[at:].removeprefix(b"\n"))


_BLANKS = bytes(0x20 if byte in (0x00, 0x0D) else byte for byte in range(256))


def recipients(draft: Draft) -> list[str]:
    """The addresses of To, Cc and Bcc in their order, each once. Raises DraftError."""
    found: dict[str, None] = {}
    for name in _RECIPIENTS:
        for value in draft.values(name):
            found.update(dict.fromkeys(parse_addresses(value, name.decode().title())))
    return list(found)


def author(draft: Draft) -> str:
    """The address of the first mailbox in From, "" where none can be read."""
    for value in draft.values(b"from"):
        try:
            return next(iter(parse_addresses(value, "From")), "")
        except DraftError:
            return ""
    return ""


def parse_addresses(value: bytes, where: str) -> list[str]:
    """The addresses in an address list (RFC 5322 3.4), with or without a domain. Raises DraftError."""
    try:
        addresses = [address.decode() for address in address_list(value)]
    except (AddressListError, UnicodeDecodeError):
        raise DraftError(f"{where}: not a list of addresses") from None
    for address in addresses:
        if not address_safe(address):
            raise DraftError(f"{where}: not an address: {address!a}")
    return addresses


def address_safe(address: str) -> bool:
    """Whether `address` may stand on a command line of SMTP; whether it is valid the server says."""
    return bool(address) and address.isprintable() and not set(address) & set(' <>,;"()')


def compose(draft: Draft, from_value: bytes, date: str) -> Iterator[bytes]:
    """The message with CRLF, in pieces: From and Date where they are missing, no Bcc and no Return-Path.

    A body that cannot travel as it is (a line longer than MAX_PLAIN_LINE_BYTES, a NUL, a bare CR) becomes
    quoted-printable, unless it has an encoding or parts of its own. Then NULs are left to the server
    to refuse, and a bare CR ends a line.
    """
    header = [field for name, field in draft.fields if name not in _DROPPED]
    if not draft.has(b"from"):
        header.append(b"From: " + from_value + b"\n")
    if not draft.has(b"date"):
        header.append(b"Date: " + date.encode() + b"\n")
    body = draft.body
    if body and not body.endswith(b"\n"):
        body += b"\n"
    encoded = _needs_encoding(body) and not _is_encoded(draft)
    if encoded:
        header += _mime_fields(draft, body)
    elif b"\r" in body:
        body = body.replace(b"\r", b"\n")
    yield b"".join((*header, b"\n")).replace(b"\n", b"\r\n")
    yield _quoted_printable(body) if encoded else body.replace(b"\n", b"\r\n")


def _needs_encoding(body: bytes) -> bool:
    return b"\0" in body or b"\r" in body or has_long_line(body, MAX_PLAIN_LINE_BYTES)


def _is_encoded(draft: Draft) -> bool:
    kinds = [value.strip().lower() for value in draft.values(b"content-type")]
    return draft.has(b"content-transfer-encoding") or any(
        kind.startswith((b"multipart/", b"message/")) for kind in kinds
    )


def _mime_fields(draft: Draft, body: bytes) -> list[bytes]:
    fields = []
    if not draft.has(b"mime-version"):
        fields.append(b"MIME-Version: 1.0\n")
    if not draft.has(b"content-type"):
        try:
            body.decode()
            charset = b"us-ascii" if body.isascii() else b"utf-8"
        except UnicodeDecodeError:
            charset = b"unknown-8bit"
        fields.append(b"Content-Type: text/plain; charset=" + charset + b"\n")
    fields.append(b"Content-Transfer-Encoding: quoted-printable\n")
    return fields


def _quoted_printable(body: bytes) -> bytes:
    """RFC 2045 6.7. `body` is empty or ends with LF."""
    lines = (b2a_qp(line, istext=False).replace(b"=\n", b"=\r\n") for line in body.split(b"\n"))
    return b"\r\n".join(lines)


def mailbox(name: str, address: str) -> bytes:
    """`name <address>` for From, the name quoted or encoded where it has to be. Raises DraftError."""
    if any(not char.isprintable() for char in name):
        raise DraftError("the name has a line break or another control character")
    if len(name) > MAX_NAME:
        raise DraftError(f"the name has more than {MAX_NAME} characters")
    name = name.strip()
    if not name:
        return address.encode()
    if not name.isascii():
        return b"%b <%b>" % (_encoded_words(name), address.encode())
    if _ATOMS(name) is None or "=?" in name:
        name = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"{name} <{address}>".encode()


def _encoded_words(text: str) -> bytes:
    """RFC 2047, in UTF-8; folded between words."""
    pieces: list[bytes] = []
    for char in text:
        coded = char.encode(errors="replace")
        if not pieces or len(pieces[-1]) + len(coded) > _ENCODED_WORD_BYTES:
            pieces.append(b"")
        pieces[-1] += coded
    return b"\n ".join(b"=?utf-8?b?" + b2a_base64(piece, newline=False) + b"?=" for piece in pieces)
