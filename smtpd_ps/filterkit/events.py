"""What a filter is told and asked: one frozen dataclass for each report event and each request of smtpd-filters(7).

Runs in filter programs. The fields stand in the order of protocol 0.7; smtpd_ps.filterkit.filter_lines reads
them from lines. Texts come from strangers: a host name, an address or a command may be anything printable, and
bytes that are no UTF-8 are lone surrogates (`errors="surrogateescape"`).
"""

from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Happening:
    """What all have: when, in which subsystem ("smtp-in", "smtp-out"), and in which session."""

    NAME: ClassVar[str] = ""
    when_secs: float
    subsystem: str
    session: str


@dataclass(frozen=True, slots=True)
class Event(Happening):
    """A report: it tells, and wants no answer."""


@dataclass(frozen=True, slots=True)
class LinkConnect(Event):
    """A client has connected. `source` and `destination` are address:port, [IPv6]:port or unix:/path."""

    NAME: ClassVar[str] = "link-connect"
    rdns: str
    fcrdns: str  # pass, fail or error
    source: str
    destination: str


@dataclass(frozen=True, slots=True)
class LinkGreeting(Event):
    """The banner with this host name was sent."""

    NAME: ClassVar[str] = "link-greeting"
    hostname: str


@dataclass(frozen=True, slots=True)
class LinkIdentify(Event):
    """HELO or EHLO was accepted."""

    NAME: ClassVar[str] = "link-identify"
    method: str
    identity: str


@dataclass(frozen=True, slots=True)
class LinkTls(Event):
    """TLS is up: version:cipher:bits."""

    NAME: ClassVar[str] = "link-tls"
    tls: str


@dataclass(frozen=True, slots=True)
class LinkAuth(Event):
    """The client has tried to authenticate; `result` is pass, fail or error."""

    NAME: ClassVar[str] = "link-auth"
    result: str
    user: str


@dataclass(frozen=True, slots=True)
class LinkDisconnect(Event):
    """The session is over."""

    NAME: ClassVar[str] = "link-disconnect"


@dataclass(frozen=True, slots=True)
class TxReset(Event):
    """The transaction is forgotten; the id is "" where there was none."""

    NAME: ClassVar[str] = "tx-reset"
    message_id: str


@dataclass(frozen=True, slots=True)
class TxBegin(Event):
    """A transaction begins."""

    NAME: ClassVar[str] = "tx-begin"
    message_id: str


@dataclass(frozen=True, slots=True)
class TxMail(Event):
    """MAIL FROM; `result` is ok, permfail or tempfail, the address has no brackets and may be ""."""

    NAME: ClassVar[str] = "tx-mail"
    message_id: str
    result: str
    address: str


@dataclass(frozen=True, slots=True)
class TxRcpt(Event):
    """RCPT TO, as TxMail."""

    NAME: ClassVar[str] = "tx-rcpt"
    message_id: str
    result: str
    address: str


@dataclass(frozen=True, slots=True)
class TxEnvelope(Event):
    """An envelope was made for a recipient."""

    NAME: ClassVar[str] = "tx-envelope"
    message_id: str
    envelope_id: str


@dataclass(frozen=True, slots=True)
class TxData(Event):
    """DATA; `result` is ok, permfail or tempfail."""

    NAME: ClassVar[str] = "tx-data"
    message_id: str
    result: str


@dataclass(frozen=True, slots=True)
class TxCommit(Event):
    """The message was accepted; its size in bytes, as text."""

    NAME: ClassVar[str] = "tx-commit"
    message_id: str
    size: str


@dataclass(frozen=True, slots=True)
class TxRollback(Event):
    """The transaction was given up."""

    NAME: ClassVar[str] = "tx-rollback"
    message_id: str


@dataclass(frozen=True, slots=True)
class ProtocolClient(Event):
    """A line of the client."""

    NAME: ClassVar[str] = "protocol-client"
    command: str


@dataclass(frozen=True, slots=True)
class ProtocolServer(Event):
    """A line of the server."""

    NAME: ClassVar[str] = "protocol-server"
    response: str


@dataclass(frozen=True, slots=True)
class FilterReport(Event):
    """A filter said something; `kind` is builtin or proc."""

    NAME: ClassVar[str] = "filter-report"
    kind: str
    name: str
    message: str


@dataclass(frozen=True, slots=True)
class FilterResponse(Event):
    """A filter decided; `parameter` is "" where it has none."""

    NAME: ClassVar[str] = "filter-response"
    phase: str
    response: str
    parameter: str


@dataclass(frozen=True, slots=True)
class Timeout(Event):
    """The session was idle for too long."""

    NAME: ClassVar[str] = "timeout"


@dataclass(frozen=True, slots=True)
class Request(Happening):
    """A request: the session waits for the answer, which names the token."""

    token: str


@dataclass(frozen=True, slots=True)
class Connect(Request):
    """Before the banner. `source` is an address, IPv6 in brackets, or "local"."""

    NAME: ClassVar[str] = "connect"
    rdns: str
    source: str


@dataclass(frozen=True, slots=True)
class Helo(Request):
    """HELO."""

    NAME: ClassVar[str] = "helo"
    identity: str


@dataclass(frozen=True, slots=True)
class Ehlo(Request):
    """EHLO."""

    NAME: ClassVar[str] = "ehlo"
    identity: str


@dataclass(frozen=True, slots=True)
class StartTls(Request):
    """STARTTLS."""

    NAME: ClassVar[str] = "starttls"
    tls: str


@dataclass(frozen=True, slots=True)
class Auth(Request):
    """AUTH; the argument begins with the mechanism."""

    NAME: ClassVar[str] = "auth"
    argument: str


@dataclass(frozen=True, slots=True)
class MailFrom(Request):
    """MAIL FROM, an address without brackets, which may be ""."""

    NAME: ClassVar[str] = "mail-from"
    address: str


@dataclass(frozen=True, slots=True)
class RcptTo(Request):
    """RCPT TO."""

    NAME: ClassVar[str] = "rcpt-to"
    address: str


@dataclass(frozen=True, slots=True)
class Data(Request):
    """DATA."""

    NAME: ClassVar[str] = "data"


@dataclass(frozen=True, slots=True)
class Commit(Request):
    """The message is complete."""

    NAME: ClassVar[str] = "commit"


@dataclass(frozen=True, slots=True)
class Rset(Request):
    """RSET."""

    NAME: ClassVar[str] = "rset"


@dataclass(frozen=True, slots=True)
class Quit(Request):
    """QUIT."""

    NAME: ClassVar[str] = "quit"


@dataclass(frozen=True, slots=True)
class Noop(Request):
    """NOOP."""

    NAME: ClassVar[str] = "noop"


@dataclass(frozen=True, slots=True)
class Help(Request):
    """HELP; OpenSMTPD takes the registration and never asks."""

    NAME: ClassVar[str] = "help"


@dataclass(frozen=True, slots=True)
class Wiz(Request):
    """WIZ."""

    NAME: ClassVar[str] = "wiz"


EVENTS: tuple[type[Event], ...] = (
    LinkConnect, LinkGreeting, LinkIdentify, LinkTls, LinkAuth, LinkDisconnect, TxReset, TxBegin, TxMail, TxRcpt,
    TxEnvelope, TxData, TxCommit, TxRollback, ProtocolClient, ProtocolServer, FilterReport, FilterResponse, Timeout,
)  # fmt: skip
REQUESTS: tuple[type[Request], ...] = (
    Connect, Helo, Ehlo, StartTls, Auth, MailFrom, RcptTo, Data, Commit, Rset, Quit, Noop, Help, Wiz,
)  # fmt: skip
