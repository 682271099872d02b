"""The nouns that cross process boundaries, each field typed and bounded.

Loaded in every process; parses nothing. A bound here is enforced by the codec on
receipt (runtime/codec), so a receiver never sees an oversized or mistyped field.
"""

from enum import IntEnum, IntFlag
from typing import Annotated, Literal

from msgspec import Meta, Struct

# RFC 5321 4.5.3.1 gives 64 + 1 + 255 bytes; OpenSMTPD takes 255 + 1 + 255 (QUIRKS "Limits").
Address = Annotated[str, Meta(max_length=520)]
Name = Annotated[str, Meta(max_length=255)]
Line = Annotated[str, Meta(max_length=2048)]
Text = Annotated[str, Meta(max_length=65536)]
Path = Annotated[str, Meta(max_length=1024)]
U7 = Annotated[int, Meta(ge=0, le=127)]
U8 = Annotated[int, Meta(ge=0, le=255)]
U16 = Annotated[int, Meta(ge=0, le=65535)]
U32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
U56 = Annotated[int, Meta(ge=0, le=2**56 - 1)]
U63 = Annotated[int, Meta(ge=0, le=2**63 - 1)]
TlsUse = Literal["opportunistic", "require", "require-verify", "never", "implicit", "implicit-verify"]
TargetSource = Literal["", "alias", "forward"]
ProgramKind = Literal["filter", "table"]
AgentSource = Literal["action", "alias", "forward"]  # what an agent delivers for, and so whose word it takes
StepKind = Literal[
    "client", "address", "user", "target", "rule", "entry", "no-entry", "duplicate", "passwd", "deliver", "host",
    "refused", "note", "userbase", "forward", "include",
]  # fmt: skip
ReplyCode = Annotated[int, Meta(ge=200, le=599)]

# A body up to this size travels inside messages; a larger one in a file whose descriptor is passed.
INLINE_BODY_BYTES = 65536
InlineBody = Annotated[bytes, Meta(max_length=INLINE_BODY_BYTES)]


# A configuration may have several smtp and several delivery processes. Each living one has a seat, a number of its own
# whose upper part is its generation; a session id begins with the seat of its smtp process.
MAX_INSTANCES = 8
MAX_GENERATIONS = 16


class Process(IntEnum):
    """Every process there is. `AGENT` and `CLIENT` (an operator's tool) are not core."""

    PARENT = 0
    KEYS = 1
    CONTROL = 2
    SMTP = 3
    LOOKUP = 4
    QUEUE = 5
    DELIVERY = 6
    AGENT = 7
    CLIENT = 8

    @property
    def title(self) -> str:
        """The lower-case name used in logs, process titles and module names."""
        return self.name.lower()


class Phase(IntFlag):
    """When a message may be sent: before Go, while serving, while shutting down."""

    SETUP = 1
    RUN = 2
    DRAIN = 4


class Value(Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Base of every value that crosses a channel: immutable, positional, strict."""


class Notify(IntFlag):
    """RFC 3461 4.1; 0 means the parameter was not given."""

    NEVER = 1
    SUCCESS = 2
    FAILURE = 4
    DELAY = 8


class Dsn(Value, frozen=True):
    """What RFC 3461 lets a sender ask for one recipient."""

    notify: U8 = 0
    orcpt: Annotated[str, Meta(max_length=500)] = ""
    ret: Annotated[str, Meta(pattern="^(FULL|HDRS)?$")] = ""
    envid: Annotated[str, Meta(max_length=100)] = ""


class Account(Value, frozen=True):
    """Who a user of a userbase is. The parent takes one from lookup alone, and no low uid (parent/accounts)."""

    uid: U32
    gid: U32
    home: Path


class Client(Value, frozen=True):
    """Who handed a message in, for Received, logs and `show envelope`."""

    address: Name = ""  # IP address as text; "local" for the local socket
    name: Name = ""  # reverse DNS, "" where there is none
    helo: Name = ""
    user: Name = ""  # authenticated as; set by lookup alone
    tag: Name = ""  # of the listener


class Envelope(Value, frozen=True):
    """One recipient of one message, after expansion. Made by lookup alone."""

    action: Name
    sender: Address  # "" is the null sender
    rcpt: Address  # as the client gave it
    dest: Address  # after expansion; what a relay is asked for
    user: Name  # the local user, "" for a relay
    client: Client
    dsn: Dsn = Dsn()
    internal: bool = False  # a bounce of ours
    target: Line = ""  # "/path" or "|command" of an alias or a .forward; "" means that the action delivers
    target_source: TargetSource = ""  # where the target was found, and so whose user writes or runs it
    forwarded: bool = False  # an alias, a virtual table or a .forward sends it elsewhere: SRS
    extension: Name = ""  # the sub-address of the local user's name, in lower case: "tag" of "bob+tag"


class Recipient(Value, frozen=True):
    """One envelope of a job, as delivery needs it."""

    evpid: U63
    rcpt: Address
    dest: Address
    user: Name
    dsn: Dsn
    target: Line = ""  # these four as the envelope's
    target_source: TargetSource = ""
    forwarded: bool = False
    extension: Name = ""


class Job(Value, frozen=True):
    """One message with the recipients that share a destination."""

    msgid: U32
    action: Name
    sender: Address
    recipients: Annotated[tuple[Recipient, ...], Meta(max_length=1000)]
    created_secs: U63  # Unix time the message was accepted
    size_bytes: U63
    eight_bit: bool  # the body has bytes above 127
    body: InlineBody = b""  # empty when a descriptor comes with the job


class Status(IntEnum):
    """How a delivery attempt ended (smtpctl's words: Ok, TempFail, PermFail, Loop)."""

    OK = 0
    TEMPFAIL = 1
    PERMFAIL = 2
    LOOP = 3


class Result(Value, frozen=True):
    """The outcome of one envelope's attempt. `text` is one escaped line."""

    evpid: U63
    status: Status
    text: Line
    relay: Name = ""  # "address (name)" of the host that answered, "" for local mail
    dsn_passed: bool = False  # the next host offers DSN and took over the sender's wishes


class RouteHost(Value, frozen=True):
    """One host a relay may try, in order of preference."""

    name: Name  # for SNI, verification and logs
    addresses: Annotated[tuple[Name, ...], Meta(max_length=32)]
    port: U16
    preference: U16 = 0
    tls: TlsUse = "opportunistic"  # what the relay URL asks for; the action's relay_tls may ask for more
    lmtp: bool = False  # an lmtp:// URL
    user: Name = ""  # credentials for AUTH, where the URL has a label
    password: Annotated[str, Meta(max_length=1024)] = ""


class RouteSource(Value, frozen=True):
    """An address to connect from, and the name to give to EHLO there ("": the action's own)."""

    address: Name
    helo: Name = ""


def seat_of(generation: int, instance: int) -> int:
    """The seat of one of the smtp or delivery processes of a generation (of any other process: instance 0)."""
    return generation * MAX_INSTANCES + instance


def generation_of(seat: int) -> int:
    """The generation whose process has this seat."""
    return seat // MAX_INSTANCES


def seat_of_session(session: int) -> int:
    """The seat of the smtp process that a session is of."""
    return session >> 56


def outgoing_session(seat: int, number: int) -> int:
    """What a session of the delivery with that seat is called: like none of smtp's, and none of another delivery's."""
    return 0x80 << 56 | seat << 56 | number


class Connector(Value, frozen=True):
    """A relay's connections from one source ("" where the kernel chooses), for the operator."""

    source: Name
    connections: U32
    connected_secs: U63 | None  # ago
    flags: Name  # in OpenSMTPD's words, commas between them


class SrsSecrets(Value, frozen=True):
    """What proves that an SRS address was made here. Never logged."""

    key: Name
    backup_key: Name = ""  # read, not written
    ttl_days: Annotated[int, Meta(ge=1, le=1000)] = 4

    def __repr__(self) -> str:
        return "SrsSecrets(...)"


def message_id_text(msgid: int) -> str:
    """The 8 hexadecimal digits that name a message."""
    return f"{msgid:08x}"


def envelope_id_text(evpid: int) -> str:
    """The 16 hexadecimal digits that name an envelope; the first 8 are its message's."""
    return f"{evpid:016x}"
