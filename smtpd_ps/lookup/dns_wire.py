"""DNS messages: a query to bytes, a reply to the records that mail needs.

Runs in lookup; parses bytes of name servers and of whoever can forge them. The message is
walked here with dnspython's parser and only the types below are decoded, so that what else a
server sends is skipped, and dnspython never imports a record class after confinement.
(RFC 1035 4.1, RFC 2308 for the SOA of a negative answer.)
"""

import struct
from dataclasses import dataclass
from enum import IntEnum

import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.wire

from smtpd_ps.pure.address import domain_valid

MAX_RECORDS = 512  # decoded of one reply
HEADER = struct.Struct("!HHHHHH")
_QUESTION_TAIL = struct.Struct("!HH")
_QR, _OPCODE, _TC, _RD = 0x8000, 0x7800, 0x0200, 0x0100
_IN = dns.rdataclass.IN


class Type(IntEnum):
    """The record types we ask for or read."""

    A = 1
    CNAME = 5
    SOA = 6
    PTR = 12
    MX = 15
    TXT = 16  # for `spf walk` alone: never asked by the daemon, and so never decoded there
    AAAA = 28


class Rcode(IntEnum):
    """The response codes we tell apart; all others are failures of the server."""

    NOERROR = 0
    NXDOMAIN = 3


class BadName(ValueError):
    """Not a name that DNS can hold."""


@dataclass(frozen=True, slots=True)
class Mx:
    """Data of an MX record; exchange "" is the null MX."""

    preference: int
    exchange: str


@dataclass(frozen=True, slots=True)
class Record:
    """One record of the answer section. `data`: address, host name, text, or Mx."""

    name: str
    type: Type
    ttl_secs: int
    data: str | Mx


@dataclass(frozen=True, slots=True)
class Question:
    """A name (lower case, no final dot) and a type, ready to send."""

    name: str
    type: Type
    wire: bytes  # of the question section


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server said. `negative_ttl_secs` is of the SOA beside a negative answer, None without."""

    rcode: int
    truncated: bool
    records: tuple[Record, ...]
    negative_ttl_secs: int | None


def preload() -> None:
    """Have dnspython load the record classes and codecs now; after confinement it could not."""
    question("b\u00fccher.example", Type.A)  # idna, punycode, stringprep
    for kind in _TYPES:
        rdatatype = dns.rdatatype.RdataType.make(int(kind))
        dns.rdata.get_rdata_class(_IN, rdatatype)  # type: ignore[no-untyped-call, unused-ignore]


def question(name: str, kind: Type) -> Question:
    """The question for `name`. Raises BadName where DNS cannot hold it."""
    try:
        parsed = dns.name.from_text(name.lower().rstrip(".") + ".")
        wire = parsed.to_wire()
    except (dns.exception.DNSException, ValueError) as error:
        raise BadName(f"{name!r}: {error}") from None
    if wire is None or parsed == dns.name.root:
        raise BadName("the root has no hosts")
    return Question(_text(parsed), kind, wire + _QUESTION_TAIL.pack(kind, _IN))


def query(ident: int, asked: Question) -> bytes:
    """A recursive query."""
    return HEADER.pack(ident, _RD, 1, 0, 0, 0) + asked.wire


def parse_reply(data: bytes, ident: int, asked: Question) -> Reply | None:
    """The reply to `asked`, or None where `data` is not that: another id or question, or rubbish."""
    if len(data) < HEADER.size:
        return None
    got, flags, questions, answers, authorities, _additional = HEADER.unpack_from(data)
    if got != ident or not flags & _QR or flags & _OPCODE:
        return None
    rcode = flags & 15
    if questions == 0 and rcode not in (Rcode.NOERROR, Rcode.NXDOMAIN):
        return Reply(rcode, False, (), None)  # some servers do not repeat what they refuse
    truncated = bool(flags & _TC)
    parser = dns.wire.Parser(data, HEADER.size)
    try:
        if questions != 1 or not _same_question(parser, asked):
            return None
        if truncated:
            return Reply(rcode, True, (), None)  # asked again over TCP
        records = [record for record, _minimum in _section(parser, answers, asked.type) if record is not None]
        minimum = None
        if not any(record.type is asked.type for record in records):
            minimum = next((at for _record, at in _section(parser, authorities, asked.type) if at is not None), None)
    except dns.exception.DNSException:
        return None
    return Reply(rcode, False, tuple(records), minimum)


def _text(name: dns.name.Name) -> str:
    """Lower case, without the final dot; "" is the root."""
    return "" if name == dns.name.root else name.to_text(omit_final_dot=True).lower()


def _same_question(parser: dns.wire.Parser, asked: Question) -> bool:
    name = dns.name.from_wire_parser(parser)
    kind, rdclass = parser.get_struct("!HH")
    return kind == asked.type and rdclass == _IN and _text(name) == asked.name


_Parsed = tuple[Record | None, int | None]  # a record, or the negative TTL of a SOA


def _section(parser: dns.wire.Parser, count: int, wanted: Type) -> list[_Parsed]:
    out: list[_Parsed] = []
    for _ in range(min(count, MAX_RECORDS)):
        name = dns.name.from_wire_parser(parser)
        kind, rdclass, ttl, length = parser.get_struct("!HHIH")
        if (kind not in _TYPES and kind != wanted) or rdclass != _IN:
            parser.get_bytes(length)
            continue
        ttl = 0 if ttl >= 1 << 31 else ttl  # RFC 2181 8
        with parser.restrict_to(length):
            rdata = dns.rdata.from_wire_parser(_IN, dns.rdatatype.RdataType.make(kind), parser)
        out.append(_decoded(_text(name), Type(kind), ttl, rdata))
    return out


_TYPES = frozenset(int(kind) for kind in Type if kind is not Type.TXT)


def _decoded(name: str, kind: Type, ttl: int, rdata: dns.rdata.Rdata) -> _Parsed:
    data: str | Mx
    match kind:
        case Type.A | Type.AAAA:
            data = str(rdata.address)  # type: ignore[attr-defined]
        case Type.CNAME | Type.PTR:
            data = _text(rdata.target)  # type: ignore[attr-defined]
        case Type.MX:
            data = Mx(rdata.preference, _text(rdata.exchange))  # type: ignore[attr-defined]
        case Type.TXT:
            data = b"".join(rdata.strings).decode("ascii", "replace")  # type: ignore[attr-defined]
        case Type.SOA:
            return None, min(ttl, rdata.minimum)  # type: ignore[attr-defined]
    return Record(name, kind, ttl, data), None


def host_valid(name: str) -> bool:
    """Whether a name out of DNS may be used as a host name in logs, headers and connections."""
    return domain_valid(name) and not name.startswith("[")
