"""Every message there is. Who may send it to whom, and when, stands in `routes`.

Loaded in every process. One class a message; the fields are the wire format (runtime/codec).
A session id carries the index of its smtp process in its top byte (`session >> 56`).
"""

from typing import Annotated, Literal

from msgspec import Meta

from smtpd_ps.contract.settings import (
    AgentSettings, ControlSettings, DeliverySettings, KeysSettings, LookupSettings, QueueSettings,
    SmtpSettings,
)  # fmt: skip
from smtpd_ps.contract.values import (
    Address, Dsn, Envelope, InlineBody, Job, Line, Name, Path, Process, ReplyCode, Result, RouteHost, Text,
    U8, U16, U32, U63, Value,
)  # fmt: skip


class Message(Value, frozen=True):
    """Base of every message."""


# --- parent to each child, before Go -----------------------------------------------------------


class KeysSetup(Message, frozen=True):
    """The slice for keys."""

    settings: KeysSettings


class ControlSetup(Message, frozen=True):
    """The slice for control."""

    settings: ControlSettings


class SmtpSetup(Message, frozen=True):
    """The slice for smtp, and its index among the smtp processes."""

    settings: SmtpSettings
    index: U8 = 0


class LookupSetup(Message, frozen=True):
    """The slice for lookup."""

    settings: LookupSettings


class QueueSetup(Message, frozen=True):
    """The slice for queue."""

    settings: QueueSettings


class DeliverySetup(Message, frozen=True):
    """The slice for delivery."""

    settings: DeliverySettings


class AgentSetup(Message, frozen=True):
    """The slice for an agent; an mbox comes with it as a descriptor (AgentMailbox)."""

    settings: AgentSettings


class Common(Message, frozen=True):
    """What every child needs to confine itself and to log. First message on every channel."""

    root: Annotated[str, Meta(max_length=1024)]  # directory to chroot to, "" for none
    uid: U32
    gid: U32
    verbose: U8
    foreground: bool  # log to stderr rather than syslog
    privileged: bool  # False: the marked unprivileged mode, no user change and no chroot
    user: Name = ""  # the user's name, for logs
    groups: Annotated[tuple[U32, ...], Meta(max_length=1024)] = ()  # supplementary, agents only
    writable: Annotated[tuple[Path, ...], Meta(max_length=16)] = ()  # paths an agent may write below
    peers: U8 = 0  # how many PeerChannel messages follow the set-up
    assets: U32 = 0  # and how many Asset messages (an agent: AgentMailbox)


class PeerChannel(Message, frozen=True):
    """The child's end of its channel to `process`. Carries the descriptor."""

    process: Process
    index: U8 = 0


class Asset(Message, frozen=True):
    """A file the parent opened for the child to read, before Go. Carries the descriptor."""

    kind: Literal["table", "cert", "key", "resolv.conf", "hosts"]
    name: Name


class Listener(Message, frozen=True):
    """A bound and listening socket. Carries the descriptor."""

    index: U16


class Ready(Message, frozen=True):
    """The child is set up, confined, and has checked itself against the policy."""


class Go(Message, frozen=True):
    """All children are ready: serve."""


class Drain(Message, frozen=True):
    """Take nothing new, finish what is under way, then answer Drained."""


class Drained(Message, frozen=True):
    """Nothing is under way any more."""


class LogLevel(Message, frozen=True):
    """0 brief, 1 verbose, more for traces."""

    verbose: U8


# --- smtp and lookup ---------------------------------------------------------------------------


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


# --- lookup and queue --------------------------------------------------------------------------


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


# --- smtp and queue ----------------------------------------------------------------------------


class IdLease(Message, frozen=True):
    """Message ids that this smtp process may use, each once."""

    ids: Annotated[tuple[U32, ...], Meta(min_length=1, max_length=4096)]


class RcptReply(Message, frozen=True):
    """Queue holds the recipient's envelopes for the transaction (250), or has no room (4xx)."""

    session: U63
    transaction: U32
    number: U32
    code: ReplyCode
    text: Line


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


# --- queue and delivery ------------------------------------------------------------------------


class Deliver(Message, frozen=True):
    """Jobs with small bodies, for any destinations."""

    jobs: Annotated[tuple[Job, ...], Meta(min_length=1, max_length=64)]


class DeliverFile(Message, frozen=True):
    """One job with a large body. Carries the descriptor, read-only, at offset 0."""

    job: Job


class Outcome(Message, frozen=True):
    """Results of attempts; an envelope of a job is answered exactly once."""

    results: Annotated[tuple[Result, ...], Meta(min_length=1, max_length=1024)]


# --- delivery and lookup -----------------------------------------------------------------------


class RouteQuery(Message, frozen=True):
    """Which hosts take mail of this action for this domain? ("" where the action names hosts)."""

    query: U32
    action: Name
    domain: Name


class Route(Message, frozen=True):
    """Hosts in order of preference. With none, `text` says why and `temporary` what to do."""

    query: U32
    hosts: Annotated[tuple[RouteHost, ...], Meta(max_length=64)]
    ttl_secs: U32
    temporary: bool = False
    text: Line = ""
    user: Name = ""  # credentials for AUTH, where the action has them
    password: Annotated[str, Meta(max_length=1024)] = ""


# --- delivery and parent -----------------------------------------------------------------------


class AgentStart(Message, frozen=True):
    """Start an agent for this user and action. Names only: the parent decides what they mean."""

    request: U32
    user: Name
    action: Name


class AgentReady(Message, frozen=True):
    """Carries the descriptor of a channel to the agent."""

    request: U32


class AgentRefused(Message, frozen=True):
    """No agent, or no LMTP socket: unknown user, refused uid, connect error."""

    request: U32
    temporary: bool
    text: Line


class LmtpConnect(Message, frozen=True):
    """Connect to the LMTP Unix socket that this action names (delivery is chrooted)."""

    request: U32
    action: Name


class LmtpConnected(Message, frozen=True):
    """Carries the descriptor of the connected socket."""

    request: U32


# --- lookup and parent -------------------------------------------------------------------------


class UserQuery(Message, frozen=True):
    """Is there such a system user (getpwnam)?"""

    query: U32
    user: Name


class UserInfo(Message, frozen=True):
    """Found or not; `temporary` when the system could not say."""

    query: U32
    found: bool
    temporary: bool = False


class SystemAuth(Message, frozen=True):
    """A password to check against the system's own database (shadow, PAM or BSD auth)."""

    query: U32
    user: Name
    password: Annotated[str, Meta(max_length=1024)]


class SystemAuthReply(Message, frozen=True):
    """The system's verdict."""

    query: U32
    verdict: Literal["ok", "no", "error"]


# --- delivery and agent ------------------------------------------------------------------------


class AgentMailbox(Message, frozen=True):
    """The user's mbox, opened by the parent. Carries the descriptor."""


class AgentJob(Message, frozen=True):
    """One small message for this user. The frame's own length is the explicit end of the body."""

    job: U32
    sender: Address
    rcpt: Address
    dest: Address
    body: InlineBody


class AgentJobFile(Message, frozen=True):
    """One large message: exactly size_bytes of the descriptor it carries, from offset 0."""

    job: U32
    sender: Address
    rcpt: Address
    dest: Address
    size_bytes: U63


class AgentResult(Message, frozen=True):
    """Delivered (synced to disk) or not."""

    job: U32
    status: U8  # values.Status
    text: Line


# --- smtp and delivery to keys (blocking) ------------------------------------------------------


class Sign(Message, frozen=True):
    """Make a TLS signature. `scheme` is "rsa" (data is a padded block) or "ecdsa" (a digest)."""

    pki: Name
    scheme: Literal["rsa", "ecdsa"]
    data: Annotated[bytes, Meta(max_length=1024)]


class Signature(Message, frozen=True):
    """Empty when keys refuses."""

    data: Annotated[bytes, Meta(max_length=1024)]


# --- the operator ------------------------------------------------------------------------------
# `client` numbers the requester; smtpctl_ps sends 0 and control puts its own number in.


class ShowQueue(Message, frozen=True):
    """List envelopes, all or of one message (msgid 0: all)."""

    client: U32
    msgid: U32 = 0


class ShowEnvelope(Message, frozen=True):
    """Print one envelope."""

    client: U32
    evpid: U63


class ShowMessage(Message, frozen=True):
    """Print one message's body (evpid or msgid, as text ids are)."""

    client: U32
    msgid: U32


class Schedule(Message, frozen=True):
    """Try now: an envelope, a message's envelopes, or all (both 0)."""

    client: U32
    evpid: U63 = 0
    msgid: U32 = 0


class Remove(Message, frozen=True):
    """Delete from the queue: an envelope, a message's envelopes, or all."""

    client: U32
    evpid: U63 = 0
    msgid: U32 = 0
    everything: bool = False


class Pause(Message, frozen=True):
    """Pause or resume a part: smtp (accepting), mta (relaying), mda (local delivery)."""

    client: U32
    part: Literal["smtp", "mta", "mda"]
    paused: bool


class ShowStats(Message, frozen=True):
    """Counters, from every process that counts."""

    client: U32


class ShowStatus(Message, frozen=True):
    """What is paused."""

    client: U32


class ShowProcesses(Message, frozen=True):
    """The process table, for audit."""

    client: U32


class SetLog(Message, frozen=True):
    """log brief, log verbose."""

    client: U32
    verbose: U8


class Stop(Message, frozen=True):
    """Stop the daemon in order."""

    client: U32


class Counters(Message, frozen=True):
    """key, value pairs."""

    client: U32
    values: Annotated[tuple[tuple[Name, U63], ...], Meta(max_length=1024)]


class TextPart(Message, frozen=True):
    """Part of an answer, as text to print."""

    client: U32
    text: Text


class BytesPart(Message, frozen=True):
    """Part of an answer that is message bytes."""

    client: U32
    data: InlineBody


class QueueRow(Message, frozen=True):
    """One envelope of `show queue` (QUIRKS 46)."""

    client: U32
    evpid: U63
    family: Literal["inet4", "inet6", "local"]
    kind: Literal["mda", "mta", "bounce"]
    flags: Name
    sender: Address
    rcpt: Address
    dest: Address
    created_secs: U63
    expires_secs: U63
    last_try_secs: U63
    tries: U32
    state: Literal["pending", "inflight", "offline"]
    wait_secs: U63
    error: Line


class ProcessRow(Message, frozen=True):
    """One live process, as the parent knows it."""

    client: U32
    process: Process
    index: U8
    pid: U32
    user: Name
    root: Annotated[str, Meta(max_length=1024)]
    privileged: bool
    detail: Line = ""


class Done(Message, frozen=True):
    """End of an answer. `count` is of envelopes concerned."""

    client: U32
    ok: bool
    text: Line = ""
    count: U32 = 0
