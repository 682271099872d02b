"""The vocabulary of the SMTP server's core: states, actions, and what a listener offers.

Runs in smtp; parses nothing. The session (pure/smtp_session) is told what happens and answers
with actions; smtp's glue carries them out. Clock, randomness and message ids are handed in here.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ListenerSettings, SmtpSettings
from smtpd_ps.pure.received import PROGRAM
from smtpd_ps.pure.smtp_filters import Hooks


class State(Enum):
    """What the session waits for; whether it reads command lines, and whether it is the client's turn."""

    HANDSHAKE = "the client, to finish a TLS handshake", False, True
    NAME_WAIT = "lookup, to say with which name to greet", False, False
    COMMAND = "a command line", True, True
    SENDER_WAIT = "lookup, to say whether the user may send as this address", False, False
    AUTH_PLAIN = "the PLAIN response", True, True
    AUTH_USER = "the LOGIN user name", True, True
    AUTH_PASSWORD = "the LOGIN password", True, True
    AUTH_WAIT = "lookup, to check a password", False, False
    AUTH_DELAY = "a moment, before a 535", False, False
    PEER_WAIT = "lookup, to say who the client is, before the 354", False, False
    DATA = "message bytes", False, True
    CHUNK = "the bytes of a chunk", False, True
    STREAM = "message bytes, which go through filter programs", False, True
    STREAM_WAIT = "lookup, to give the message back", False, False
    FILE_WAIT = "queue, to open a spool file", False, False
    GREET_WAIT = "lookup, to say who the client is, before the filters are asked", False, False
    FILTER_WAIT = "lookup, to apply filters", False, False
    COMMIT = "queue, to store the message", False, False
    CLOSED = "nothing, but answers that are still due", False, False

    def __init__(self, text: str, reads_lines: bool, waits_for_client: bool) -> None:
        self.text = text
        self.reads_lines = reads_lines
        self.waits_for_client = waits_for_client


EXPECTED: dict[State, frozenset[type[m.Message]]] = {
    State.SENDER_WAIT: frozenset({m.SenderReply}),
    State.AUTH_WAIT: frozenset({m.AuthReply}),
    State.FILE_WAIT: frozenset({m.BodyFile, m.BodyRefused}),
    State.COMMIT: frozenset({m.Committed}),
    State.FILTER_WAIT: frozenset({m.FilterAnswer}),
    State.STREAM: frozenset({m.BodyFile, m.BodyRefused}),
    State.STREAM_WAIT: frozenset({m.BodyFile, m.BodyRefused}),
}
"""The answers that a state waits for. Greet, PeerInfo and the answers to recipients may come in any."""


class Phase:
    """How far the dialogue is, as bits; the command table says which commands are allowed when."""

    FRESH: Final = 1  # no HELO yet
    READY: Final = 2  # greeted, no transaction
    MAIL: Final = 4  # in a transaction
    CHUNKS: Final = 16  # in a message, between its chunks
    GREETED: Final = READY | MAIL | CHUNKS
    ANY: Final = FRESH | READY | MAIL | CHUNKS
    REFUSED: Final = 8  # a filter does not want the client, who may only leave (RFC 5321 3.1)


class UnexpectedAnswer(Exception):
    """A core process answered what was not asked: it is broken or taken over."""


@dataclass(frozen=True, slots=True)
class StartTls:
    """Begin the handshake when all is sent; answer with `tls_started`."""

    implicit: bool  # a port that speaks TLS from the start


@dataclass(frozen=True, slots=True)
class WriteBody:
    """Append to the spool file."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Wait:
    """Call `wait_over` that long after the last password was given, whatever it took to check it."""

    secs: float


@dataclass(frozen=True, slots=True)
class Rest:
    """Others have their turn: call `go_on` in a later one, once the client has taken most of its replies."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection when all is sent."""


Action = bytes | str | m.Message | StartTls | WriteBody | Wait | Rest | Close
"""bytes: send them. str: log that line. A message: send it to the process it has a route to."""


@dataclass(frozen=True, slots=True)
class Service:
    """What one listener offers, and what its sessions take from outside."""

    settings: SmtpSettings
    listener: ListenerSettings
    take_id: Callable[[], int | None]  # a message id; None when queue's lease is used up
    give_back_id: Callable[[int], None]  # one that queue never saw
    random: Callable[[], float]  # 0 to 1
    random_bits: Callable[[], int]  # 64 bits
    date: Callable[[], str]  # now, as RFC 5322 writes it
    password_failed: Callable[[str], None] = lambda _address: None
    passwords_stopped: Callable[[str], bool] = lambda _address: False  # too many have failed for that address
    hostname: str = field(init=False)  # of a session that lookup gives no other
    hooks: Hooks | None = field(init=False)  # of the listener's filters, if it has some
    submission: bool = field(init=False)  # add what a mail user agent forgot (QUIRKS 27)

    def __post_init__(self) -> None:
        """Derive what does not change."""
        hostname = self.listener.hostname or self.settings.hostname
        object.__setattr__(self, "hostname", hostname)
        object.__setattr__(self, "hooks", Hooks(self.listener) if self.listener.filter_phases else None)
        listener = self.listener
        loopback = listener.address == "::1" or listener.address.startswith("127.")
        object.__setattr__(self, "submission", listener.local or listener.port == 587 or loopback)

    @staticmethod
    def greeting(hostname: str) -> bytes:
        """The first words to a client."""
        return f"220 {hostname} ESMTP {PROGRAM}\r\n".encode()

    def offers_starttls(self, secure: bool) -> bool:
        """Whether STARTTLS is offered."""
        return self.listener.tls in ("offer", "require") and not secure

    def offers_auth(self, secure: bool, authenticated: bool) -> bool:
        """Whether AUTH is offered: under TLS only."""
        return self.listener.auth != "none" and secure and not authenticated

    def extensions(self, secure: bool, authenticated: bool) -> bytes:
        """The EHLO reply below its first line."""
        keywords = ["8BITMIME", "ENHANCEDSTATUSCODES", f"SIZE {self.settings.max_message_bytes}"]
        if self.listener.dsn:
            keywords.append("DSN")
        keywords += ["PIPELINING", "SMTPUTF8"]
        if not self.listener.filter_programs:  # which see lines
            keywords.append("CHUNKING")
        if self.offers_starttls(secure):
            keywords.append("STARTTLS")
        if self.offers_auth(secure, authenticated):
            keywords.append("AUTH PLAIN LOGIN")
        return ("".join(f"250-{keyword}\r\n" for keyword in keywords) + "250 HELP\r\n").encode()
