"""What goes into the SMTP and LMTP client machine and what comes out of it.

Pure; runs in delivery. Parses nothing.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import Enum

from smtpd_ps.contract.values import Dsn, Status, TlsUse

# How one recipient ended, as "250 2.0.0 ok" or a sentence of ours. None: nothing was decided, and
# the message was not handed over, so it may be tried elsewhere at once.
Answer = tuple[Status, str]


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """What one session wants. AUTH is used where `user` is set, and only under TLS."""

    helo: str
    lmtp: bool = False
    tls: TlsUse = "never"
    user: str = ""
    password: str = ""


class Mail:
    """One transaction to make: a message and those of its recipients that go together.

    `body` is the stored form (CRLF, not stuffed), or None when the driver will stream it; `prefix`
    is header lines that go before either; `size_bytes` is the size of both. `task` is the driver's
    own. `dsn` is aligned to `recipients`. `leaves`: the parts that the driver encodes as it streams (pure/seven_bit).
    """

    __slots__ = ("body", "dsn", "eight_bit", "leaves", "prefix", "recipients", "sender", "size_bytes", "task")

    def __init__(
        self,
        sender: str,
        recipients: list[str],
        body: bytes | None,
        size_bytes: int,
        eight_bit: bool = False,
        dsn: list[Dsn] | None = None,
        task: object = None,
        prefix: bytes = b"",
    ) -> None:
        self.sender = sender
        self.recipients = recipients
        self.body = body
        self.size_bytes = size_bytes
        self.eight_bit = eight_bit
        self.dsn = dsn
        self.task = task
        self.prefix = prefix
        self.leaves: AbstractSet[int] | None = None


class Stage(Enum):
    """Where in its life a session failed."""

    BANNER = "banner"
    HELO = "helo"
    TLS = "tls"
    AUTH = "auth"
    SESSION = "session"  # afterwards: idle, or in a transaction


@dataclass(frozen=True, slots=True)
class Ready:
    """The session is set up: `send` may be called."""


@dataclass(frozen=True, slots=True)
class StartTls:
    """Start the handshake now, then call `tls_started`."""


@dataclass(frozen=True, slots=True)
class StreamBody:
    """Send the body of `mail` through a Stuffer, its `finish` included, then call `body_sent`."""

    mail: Mail


@dataclass(frozen=True, slots=True)
class Finished:
    """The transaction is over; `answers` is aligned to the recipients."""

    mail: Mail
    answers: list[Answer | None]
    dsn_passed: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """The session is of no use (any more). What is in `output` may still be sent; then close."""

    stage: Stage
    text: str


Event = Ready | StartTls | StreamBody | Finished | Refused
