"""Messages of a mail coming in: who is the client, may it, what it wrote.

A session id carries the seat of its smtp process in its top byte (values.seat_of_session).

Loaded in every process. One class a message; the fields are the wire format (runtime/codec).
"""

from typing import Annotated, Literal

from msgspec import Meta

from smtpd_ps.contract.messages.base import Message
from smtpd_ps.contract.values import U16, U32, U63, Address, Dsn, Envelope, InlineBody, Line, Name, ReplyCode

# --- smtp and lookup -------------------------------------------------------------------------


class PeerQuery(Message, frozen=True):
    """A client connected; lookup remembers who it is until SessionEnd."""

    session: U63
    listener: U16
    address: Name  # "local" for the local socket
    tag: Name = ""


class PeerInfo(Message, frozen=True):
    """What DNS says of the client."""

    session: U63
    name: Name  # "" without a PTR
    confirmed: bool  # the name resolves back to the address


class Greet(Message, frozen=True):
    """The name to greet a client with; sent before PeerInfo where the listener has `hostnames`."""

    session: U63
    hostname: Name  # "" where the table has none for the listener's address


class SenderQuery(Message, frozen=True):
    """May the session's user send as this address? Lookup holds every recipient to its answer by itself."""

    session: U63
    transaction: U32
    sender: Address  # "" is the null sender


class SenderReply(Message, frozen=True):
    """This only tells smtp what to say."""

    session: U63
    transaction: U32
    verdict: Literal["ok", "no", "error"]


class AuthRequest(Message, frozen=True):
    """A password to check, against the table of the listener that PeerQuery named."""

    session: U63
    table: Name
    user: Name
    password: Annotated[str, Meta(max_length=1024)]


class AuthReply(Message, frozen=True):
    """Lookup keeps the success for the session by itself; this only tells smtp what to say."""

    session: U63
    verdict: Literal["ok", "no", "error"]


class RcptRequest(Message, frozen=True):
    """May this recipient be taken? Answered by RcptRefuse, or by queue's RcptReply."""

    session: U63
    transaction: U32
    number: U32
    helo: Name
    tls: bool
    sender: Address
    recipient: Address
    dsn: Dsn


class RcptRefuse(Message, frozen=True):
    """Lookup refuses a recipient (no rule, no such user, or a fault of ours: 4xx)."""

    session: U63
    transaction: U32
    number: U32
    code: ReplyCode
    text: Line


class SessionEnd(Message, frozen=True):
    """Forget the session and its authentication."""

    session: U63


# --- lookup and queue ------------------------------------------------------------------------


class RcptAccept(Message, frozen=True):
    """The envelopes of one recipient; stored when smtp commits the transaction."""

    session: U63
    transaction: U32
    number: U32
    envelopes: Annotated[tuple[Envelope, ...], Meta(min_length=1, max_length=1000)]


class BounceQuery(Message, frozen=True):
    """Where does a bounce to this address go?"""

    query: U32
    recipient: Address


class BounceRoute(Message, frozen=True):
    """The envelopes of the bounce; none, with a reason, where it cannot be sent."""

    query: U32
    envelopes: Annotated[tuple[Envelope, ...], Meta(max_length=1000)]
    temporary: bool = False
    text: Line = ""


# --- smtp and queue --------------------------------------------------------------------------


class IdLease(Message, frozen=True):
    """Message ids that this smtp process may use, each once."""

    ids: Annotated[tuple[U32, ...], Meta(min_length=1, max_length=4096)]


class RcptReply(Message, frozen=True):
    """Queue holds the recipient's envelopes for the transaction (250), or has no room (4xx).

    It has so many `envelopes`. The lower halves of their ids are `first` and those that follow, modulo 2^32;
    the upper half is the message id, which queue does not know yet.
    """

    session: U63
    transaction: U32
    number: U32
    code: ReplyCode
    text: Line
    first: U32 = 0
    envelopes: U16 = 0


class Commit(Message, frozen=True):
    """End of DATA of a small message: store body and envelopes, then answer Committed."""

    session: U63
    transaction: U32
    msgid: U32
    eight_bit: bool
    body: InlineBody


class BodyOpen(Message, frozen=True):
    """The body outgrows INLINE_BODY_BYTES: ask for a spool file to write it to."""

    session: U63
    transaction: U32
    msgid: U32


class BodyFile(Message, frozen=True):
    """A fresh spool file, write-only. Carries the descriptor."""

    session: U63
    transaction: U32


class BodyRefused(Message, frozen=True):
    """No spool file: disk full or the spool is unwritable."""

    session: U63
    transaction: U32
    text: Line


class CommitFile(Message, frozen=True):
    """End of DATA of a large message, all of it written to the BodyFile."""

    session: U63
    transaction: U32
    msgid: U32
    eight_bit: bool
    size_bytes: U63
    body_crc: U32  # zlib.crc32, made while the body was at hand: what rots later shows at delivery


class Committed(Message, frozen=True):
    """250 only when body and envelopes are on stable storage."""

    session: U63
    transaction: U32
    code: ReplyCode
    text: Line


class Abort(Message, frozen=True):
    """Forget the transaction; nothing of it was answered 250 at DATA."""

    session: U63
    transaction: U32
