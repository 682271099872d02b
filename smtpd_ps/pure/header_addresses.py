"""The addresses in To, Cc and From: names without a domain get ours, and From may have to show the sender.

Runs in smtp on the headers of messages that clients send, and in sendmail on those of local programs. An address
is found where RFC 5322 3.4 has it, whatever folds, comments (nested), quoted strings, groups and encoded words
(RFC 2047) stand around it; nothing else of the field changes. What cannot be read is left alone, but for a From
that is masqueraded: there nothing that the client wrote in its place may stay (THREATS, masquerade tricks).
"""

import re
from dataclasses import dataclass

MAX_READ_BYTES = 65_536  # of all fields of a message that are not plain
MAX_GROWTH_BYTES = 4096  # of a message; further addresses are left alone

_TOKEN = re.compile(
    rb"""(?P<blank>[ \t\r\n]++)|(?P<word>"(?:[^"\\]|\\.)*+"|\[(?:[^\]\\]|\\.)*+\]|[^ \t\r\n"(),:;<>@\[\]\\]++)"""
    rb"""|(?P<mark>[<>,:;@])|(?P<comment>\()""",
    re.DOTALL,
).match
_COMMENT = re.compile(rb"(?:[^()\\]|\\.)*+([()])", re.DOTALL).match
# Every address has a domain, and nothing needs a closer look: as a rule.
_BOX = (
    rb"""(?:[^"(),:;<>@\\\[\]]|"[^"\\]*+")*+(?:<[^"(),:;<>@\\ \t\r\n]++@[^"(),:;<>@\\ \t\r\n]++>|"""
    rb"""@[^"(),:;<>@\\ \t\r\n]++)[ \t\r\n]*+"""
)
_PLAIN = re.compile(rb"%b(?:,%b)*+" % (_BOX, _BOX)).fullmatch
_NAMES = (b"\nfrom", b"\nto", b"\ncc")


class AddressListError(ValueError):
    """Not a list of addresses."""


@dataclass(slots=True)
class _Mailbox:
    """Where the address of a mailbox stands; `bare` is one word without a domain."""

    start: int
    end: int
    bare: bool
    has_domain: bool
    in_group: bool


def address_list(value: bytes) -> list[bytes]:
    """The addresses of a field's value as they stand there, those in groups too. Raises AddressListError."""
    return [value[box.start : box.end] for box in _mailboxes(value)]


def find_fields(names: bytes) -> list[tuple[bool, int, int]]:
    """Whether it is a From, and where in the block its value begins and ends.

    `names` is the header block in lower case with a line feed before it; the places are the block's.
    """
    found = []
    for name in _NAMES:
        at = names.find(name)
        while at >= 0:
            start = at + len(name)
            while names[start : start + 1] in (b" ", b"\t"):
                start += 1
            if names[start : start + 1] == b":":
                end = names.find(b"\n", start)
                while names[end + 1 : end + 2] in (b" ", b"\t"):
                    end = names.find(b"\n", end + 1)
                found.append((name == b"\nfrom", start, end - 2))
            at = names.find(name, start)
    return found


class AddressFields:
    """What is done to the fields of one message. `sender` is what From must show, "" for nothing."""

    __slots__ = ("_domain", "_readable", "_room", "_sender")

    def __init__(self, domain: str, sender: str = "") -> None:
        self._domain = b"@" + domain.encode()
        self._sender = sender.encode()
        self._readable = MAX_READ_BYTES
        self._room = MAX_GROWTH_BYTES

    def rewrite(self, block: bytes, fields: list[tuple[bool, int, int]]) -> bytes:
        """The header block with these fields (find_fields) as they should be."""
        parts: list[bytes] = []
        done = 0
        for is_from, start, end in sorted(fields, key=lambda field: field[1]):
            value = block[start:end]
            if is_from and self._sender:
                changed = self._masqueraded(value)
            elif _PLAIN(value):
                continue
            else:
                changed = self._completed(value)
            if changed != value:
                parts += (block[done:start], changed)
                done = end
        return b"".join((*parts, block[done:])) if parts else block

    def _completed(self, value: bytes) -> bytes:
        self._readable -= len(value)
        if self._readable < 0:
            return value
        try:
            boxes = _mailboxes(value)
        except AddressListError:
            return value
        parts: list[bytes] = []
        done = 0
        for box in boxes:
            if box.bare and not box.in_group and self._room >= len(self._domain):
                self._room -= len(self._domain)
                parts += (value[done : box.end], self._domain)
                done = box.end
        return b"".join((*parts, value[done:]))

    def _masqueraded(self, value: bytes) -> bytes:
        alone = b" " + self._sender
        self._readable -= len(value)
        if self._readable < 0:
            return alone
        try:
            boxes = _mailboxes(value)
        except AddressListError:
            return alone
        growth = sum(max(0, len(self._sender) - (box.end - box.start)) for box in boxes)
        if not boxes or growth > self._room or not all(box.bare or box.has_domain for box in boxes):
            return alone
        self._room -= growth
        parts: list[bytes] = []
        done = 0
        for box in boxes:
            parts += (value[done : box.start], self._sender)
            done = box.end
        return b"".join((*parts, value[done:]))


def _mailboxes(value: bytes) -> list[_Mailbox]:
    """The mailboxes of an address list. Raises AddressListError."""
    boxes: list[_Mailbox] = []
    words: list[tuple[int, int]] = []  # of the mailbox, outside brackets or within
    domain = angle = closed = in_group = False

    def end_of_box() -> None:
        nonlocal words, domain, angle, closed
        if angle != closed:
            raise AddressListError
        if words:
            bare = len(words) == 1 and not domain and not value.startswith(b"=?", words[0][0])
            boxes.append(_Mailbox(words[0][0], words[-1][1], bare, domain, in_group))
        elif angle:
            raise AddressListError  # <>
        words, domain, angle, closed = [], False, False, False

    at = 0
    while at < len(value):
        token = _TOKEN(value, at)
        if token is None:
            raise AddressListError
        start, at = token.span()
        kind = token.lastgroup
        if kind == "comment":
            at = _end_of_comment(value, at)
        elif kind == "word":
            if closed:
                raise AddressListError
            words.append((start, at))
        elif kind == "mark":
            match value[start]:
                case 0x2C:  # ,
                    if angle and not closed:
                        words.append((start, at))  # of a source route
                    else:
                        end_of_box()
                case 0x40:  # @
                    if closed:
                        raise AddressListError
                    words.append((start, at))
                    domain = True
                case 0x3C:  # <
                    if angle or domain:
                        raise AddressListError
                    angle, words = True, []
                case 0x3E:  # >
                    if not angle or closed:
                        raise AddressListError
                    closed = True
                case 0x3A:  # :
                    if angle and not closed:
                        words.append((start, at))
                    elif in_group or angle or domain or not words:
                        raise AddressListError
                    else:
                        in_group, words = True, []
                case _:  # ;
                    if not in_group:
                        raise AddressListError
                    end_of_box()
                    in_group = False
    end_of_box()
    if in_group:
        raise AddressListError
    return boxes


def _end_of_comment(value: bytes, at: int) -> int:
    """Where the comment ends in which `at` stands. Raises AddressListError."""
    depth = 1
    while depth:
        found = _COMMENT(value, at)
        if found is None:
            raise AddressListError
        depth += 1 if found[1] == b"(" else -1
        at = found.end()
    return at
