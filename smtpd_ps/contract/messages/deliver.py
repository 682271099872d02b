"""Messages of a mail going out: jobs, routes, agents, results.

Loaded in every process. One class a message; the fields are the wire format (runtime/codec).
"""

from typing import Annotated

from msgspec import Meta

from smtpd_ps.contract.messages.base import Message
from smtpd_ps.contract.values import (
    U8,
    U32,
    U63,
    Address,
    AgentSource,
    InlineBody,
    Job,
    Line,
    Name,
    Result,
    RouteHost,
    RouteSource,
)

# --- queue and delivery ----------------------------------------------------------------------


class Deliver(Message, frozen=True):
    """Jobs with small bodies, for any destinations."""

    jobs: Annotated[tuple[Job, ...], Meta(min_length=1, max_length=64)]


class DeliverFile(Message, frozen=True):
    """One job with a large body. Carries the descriptor, read-only, at offset 0."""

    job: Job


class Outcome(Message, frozen=True):
    """Results of attempts; an envelope of a job is answered exactly once."""

    results: Annotated[tuple[Result, ...], Meta(min_length=1, max_length=1024)]


# --- delivery and lookup ---------------------------------------------------------------------


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
    sources: Annotated[tuple[RouteSource, ...], Meta(max_length=256)] = ()  # none: the kernel chooses
    # Where the kernel chooses the source and its name is in a table: that table, an address to each name.
    helo_names: Annotated[tuple[RouteSource, ...], Meta(max_length=1024)] | None = None


# --- delivery and parent ---------------------------------------------------------------------


class AgentStart(Message, frozen=True):
    """Start an agent for this user and action. Names only: the parent decides what they mean.

    For `source` "alias" the user is the parent's to know.
    """

    request: U32
    user: Name
    action: Name
    source: AgentSource = "action"


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


# --- delivery and agent ----------------------------------------------------------------------


class AgentMailbox(Message, frozen=True):
    """The user's mbox, opened by the parent. Carries the descriptor."""


class AgentSubmit(Message, frozen=True):
    """What an agent submits: a message that sendmail kept, and a connection to smtp's local socket.

    Carries both descriptors. `name` is the file's, which it says itself.
    """

    name: Annotated[str, Meta(max_length=64)]


class AgentJob(Message, frozen=True):
    """One small message for this user. The frame's own length is the explicit end of the body."""

    job: U32
    sender: Address
    rcpt: Address
    dest: Address
    body: InlineBody
    user: Name = ""  # the recipient, where the action delivers as another user
    extension: Name = ""
    target: Line = ""  # for an agent of kind "targets"


class AgentJobFile(Message, frozen=True):
    """One large message: exactly size_bytes of the descriptor it carries, from offset 0."""

    job: U32
    sender: Address
    rcpt: Address
    dest: Address
    size_bytes: U63
    user: Name = ""  # these three as AgentJob's
    extension: Name = ""
    target: Line = ""


class AgentResult(Message, frozen=True):
    """Delivered (synced to disk) or not."""

    job: U32
    status: U8  # values.Status
    text: Line
