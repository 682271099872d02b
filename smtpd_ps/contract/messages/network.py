"""Messages about what delivery knows of the hosts it relays to, for smtpctl_ps and for queue.

Loaded in every process. One class a message; the fields are the wire format (runtime/codec).
"""

from typing import Annotated, Literal

from msgspec import Meta

from smtpd_ps.contract.messages.base import Message
from smtpd_ps.contract.values import U16, U32, U63, Connector, Line, Name

NetworkPart = Literal["hosts", "hoststats", "paused", "relays", "routes"]

# `client` numbers the requester, as in messages/operator. Times are ages or waits in seconds; None: never, none.


class ShowNetwork(Message, frozen=True):
    """show hosts, hoststats, mta paused, relays, routes."""

    client: U32
    part: NetworkPart


class ResumeRoute(Message, frozen=True):
    """Enable the disabled route of this number, or all for 0. Done counts them."""

    client: U32
    route: U63


class BlockRelay(Message, frozen=True):
    """pause, resume mta from A for D: make no connection from this address for this domain ("": for any)."""

    client: U32
    source: Name
    domain: Name
    blocked: bool


class HostRow(Message, frozen=True):
    """One host."""

    client: U32
    address: Name
    port: U16
    name: Name
    routes: U32
    connections: U32
    connected_secs: U63 | None


class RouteRow(Message, frozen=True):
    """One route. `source` is "" where the kernel chooses."""

    client: U32
    route: U63
    action: Name
    source: Name
    address: Name
    port: U16
    name: Name
    is_new: bool
    disabled: bool
    connections: U32
    errors: U32
    penalty: U32
    wait_secs: U63 | None


class RelayRow(Message, frozen=True):
    """One relay: an action and, where it goes by MX, a domain."""

    client: U32
    text: Line  # [relay:...], as OpenSMTPD names it
    tasks: U32
    connections: U32
    connected_secs: U63 | None
    waits_for: Name
    connectors: Annotated[tuple[Connector, ...], Meta(max_length=256)]


class HostStatRow(Message, frozen=True):
    """The last reply of a domain's hosts, and when."""

    client: U32
    domain: Name
    told_secs: U63  # Unix time
    text: Line


class BlockRow(Message, frozen=True):
    """A source that makes no connection for a domain."""

    client: U32
    source: Name
    domain: Name


class TryNow(Message, frozen=True):
    """A domain takes mail again: these envelopes, which it kept waiting, are due now."""

    evpids: Annotated[tuple[U63, ...], Meta(min_length=1, max_length=1024)]
