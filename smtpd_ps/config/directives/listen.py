"""`listen on`: where mail is taken.

Runs in the parent and in `smtpd_ps -n`. An interface, group or host name is turned into
addresses here, once for each reading of the configuration.
"""

import ipaddress

from smtpd_ps.config.directives.listen_options import (
    OPTIONS,
    SMTP_PORT,
    SOCKET_OPTIONS,
    ListenerDraft,
    check,
    option,
    socket_option,
)
from smtpd_ps.config.model import Listener, SocketListener
from smtpd_ps.config.parser import Parser
from smtpd_ps.config.tokens import Kind, Token
from smtpd_ps.pure.relay_url import as_address, is_host_name

SMTPS_PORT = 465


def listen(p: Parser) -> None:
    """`listen on socket [options]`, `listen on INTERFACE|ADDRESS|NAME [options]`."""
    p.expect("on")
    if p.accept("socket"):
        _listen_on_socket(p)
        return
    place = p.peek()
    target = p.name("an interface, an address or a host name")
    draft = ListenerDraft()
    while p.peek().kind not in (Kind.NEWLINE, Kind.END):
        option(p, draft, p.option("listen", OPTIONS, frozenset()))
    check(p, draft, place)
    port = draft.port or (SMTPS_PORT if draft.tls == "implicit" else SMTP_PORT)
    addresses = _addresses(p, target, draft.family or 0, place)
    _check_free(p, addresses, port, place)
    p.draft.listeners.append(
        Listener(
            target=target,
            addresses=addresses,
            family=draft.family or 0,
            port=port,
            tls=draft.tls or "none",
            pki=draft.pki,
            auth=draft.auth or "none",
            auth_table=draft.auth_table,
            hostname=p.draft.hostname if draft.hostname is None else draft.hostname,
            tag=draft.tag or "",
            where=p.where,
            verify=draft.verify,
            ca=draft.ca or "",
            protocols=draft.protocols or (),
            ciphers=draft.ciphers or "",
            hostnames=draft.hostnames or "",
            senders=draft.senders or "",
            masquerade=draft.masquerade,
            mask_source=draft.mask_source or False,
            received_auth=draft.received_auth or False,
            no_dsn=draft.no_dsn or False,
            proxy=draft.proxy or False,
            proxies=draft.proxies or "",
            filter=draft.filter or "",
        )
    )


def _listen_on_socket(p: Parser) -> None:
    draft = ListenerDraft()
    while p.peek().kind not in (Kind.NEWLINE, Kind.END):
        socket_option(p, draft, p.option("listen on socket", SOCKET_OPTIONS, frozenset()))
    known = p.draft.socket
    if known is not None:
        p.draft.report(p.where, f"listen on socket is already declared at {known.where.path}:{known.where.line}")
    p.draft.socket = SocketListener(
        draft.tag or "", p.where, draft.filter or "", draft.mask_source or False, draft.no_dsn or False
    )


def _addresses(p: Parser, target: str, family: int, place: Token) -> tuple[str, ...]:
    """The addresses of an interface, a group, an address or a name, in this order of preference."""
    interfaces = p.environment.interface_addresses()
    members = (target,) if target in interfaces else p.environment.interface_group(target)
    found = [address for name in members for address in interfaces.get(name, ())]
    if not members and as_address(target) is not None:
        found = [target]
    elif not members:
        found = list(p.environment.resolve(target)) if is_host_name(target) else []
    chosen = tuple(dict.fromkeys(a for a in found if not family or ipaddress.ip_address(a).version == family))
    if not found and members:
        p.report(place, f'interface "{target}" has no address')
    elif not found:
        p.report(place, f'"{target}" is not an interface, an address or a host name with an address')
    elif not chosen:
        p.report(place, f'"{target}" has no IPv{family} address')
    return chosen


def _check_free(p: Parser, addresses: tuple[str, ...], port: int, place: Token) -> None:
    """No address twice, nor beside the one that stands for all of its family: not every system can bind both."""
    for other in p.draft.listeners:
        if other.port != port:
            continue
        at = f"{other.where.path}:{other.where.line}"
        if taken := [a for a in addresses if a in other.addresses]:
            p.report(place, f"{taken[0]} port {port} is already listened on at {at}")
        elif pairs := [(a, b) for a in addresses for b in other.addresses if _holds(a, b) or _holds(b, a)]:
            p.report(place, f"{pairs[0][0]} port {port}: {pairs[0][1]} is already listened on at {at}")


def _holds(wildcard: str, address: str) -> bool:
    """Whether an address is one of those that `wildcard` stands for, if it is one."""
    every = ipaddress.ip_address(wildcard)
    return every.is_unspecified and every.version == ipaddress.ip_address(address).version
