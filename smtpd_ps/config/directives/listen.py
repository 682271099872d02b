"""`listen on`: where mail is taken.

Runs in the parent and in `smtpd_ps -n`. An interface, group or host name is turned into
addresses here, once.
"""

import ipaddress
from dataclasses import dataclass
from typing import TypeVar

from smtpd_ps.config.directives.filters import filter_argument
from smtpd_ps.config.directives.pki import certificate_name
from smtpd_ps.config.directives.tables import at_table, table_argument
from smtpd_ps.config.model import Listener, SocketListener
from smtpd_ps.config.parser import Parser
from smtpd_ps.config.suggestion import suggestion
from smtpd_ps.config.tokens import Kind, Token
from smtpd_ps.contract.settings import AuthOffer, TlsOffer
from smtpd_ps.pure.relay_url import as_address, is_host_name

MAX_TAG = 32
MAX_PKI = 32
SMTP_PORT = 25
SMTPS_PORT = 465
_TLS: dict[str, TlsOffer] = {"tls": "offer", "tls-require": "require", "smtps": "implicit"}
_AUTH: dict[str, AuthOffer] = {"auth": "require", "auth-optional": "optional"}
_FAMILIES = {"inet4": 4, "inet6": 6}
_OPTIONS = (*_TLS, *_AUTH, *_FAMILIES, "filter", "hostname", "pki", "port", "tag")
_UNSUPPORTED = frozenset(
    ("ca", "ciphers", "hostnames", "mask-src", "no-dsn", "protocols", "proxy-v2", "received-auth", "senders")
)
_SOCKET_UNSUPPORTED = frozenset(("mask-src", "no-dsn"))

T = TypeVar("T")


@dataclass(slots=True)
class _Draft:
    """The options of one listener as they come."""

    family: int = 0
    port: int = 0
    tls: TlsOffer | None = None
    auth: AuthOffer | None = None
    auth_table: str = ""
    pki: tuple[str, ...] = ()
    hostname: str | None = None
    tag: str | None = None
    filter: str | None = None


def listen(p: Parser) -> None:
    """`listen on socket [tag T]`, `listen on INTERFACE|ADDRESS|NAME [options]`."""
    p.expect("on")
    if p.accept("socket"):
        _listen_on_socket(p)
        return
    place = p.peek()
    target = p.name("an interface, an address or a host name")
    draft = _Draft()
    while p.peek().kind not in (Kind.NEWLINE, Kind.END):
        _option(p, draft, p.option("listen", _OPTIONS, _UNSUPPORTED))
    _check_tls(p, draft, place)
    port = draft.port or (SMTPS_PORT if draft.tls == "implicit" else SMTP_PORT)
    addresses = _addresses(p, target, draft.family, place)
    _check_free(p, addresses, port, place)
    hostname = p.draft.hostname if draft.hostname is None else draft.hostname
    p.draft.listeners.append(
        Listener(
            target,
            addresses,
            draft.family,
            port,
            draft.tls or "none",
            draft.pki,
            draft.auth or "none",
            draft.auth_table,
            hostname,
            draft.tag or "",
            p.where,
            draft.filter or "",
        )
    )


def _listen_on_socket(p: Parser) -> None:
    tag: str | None = None
    filtered: str | None = None
    while p.peek().kind not in (Kind.NEWLINE, Kind.END):
        option = p.option("listen on socket", ("filter", "tag"), _SOCKET_UNSUPPORTED)
        if option.text == "filter":
            filtered = _once(p, option, "a filter", filtered, filter_argument(p))
        else:
            tag = _once(p, option, "a tag", tag, _tag(p))
    known = p.draft.socket
    if known is not None:
        p.draft.report(p.where, f"listen on socket is already declared at {known.where.path}:{known.where.line}")
    p.draft.socket = SocketListener(tag or "", p.where, filtered or "")


def _once(p: Parser, option: Token, what: str, before: T | None, now: T) -> T:
    if before is not None:
        p.report(option, f"{what} is already given for this listener")
    return now


def _option(p: Parser, draft: _Draft, option: Token) -> None:
    match option.text:
        case "inet4" | "inet6":
            draft.family = _once(p, option, "a family", draft.family or None, _FAMILIES[option.text])
        case "port":
            draft.port = _once(p, option, "a port", draft.port or None, _port(p))
        case "tls" | "tls-require" | "smtps":
            if p.at("verify"):
                p.fail(p.peek(), "verify is not supported yet")
            draft.tls = _once(p, option, "a TLS mode", draft.tls, _TLS[option.text])
        case "auth" | "auth-optional":
            draft.auth = _once(p, option, "auth", draft.auth, _AUTH[option.text])
            if at_table(p):
                draft.auth_table = table_argument(p, option.text, "credentials")
        case "pki":
            _pki(p, draft)
        case "hostname":
            draft.hostname = _once(p, option, "a hostname", draft.hostname, server_name(p, "the hostname"))
        case "filter":
            draft.filter = _once(p, option, "a filter", draft.filter, filter_argument(p))
        case "tag":
            draft.tag = _once(p, option, "a tag", draft.tag, _tag(p))


def _port(p: Parser) -> int:
    token = p.peek()
    if token.kind is Kind.NUMBER:
        return p.number("a port", 1, 65535)
    if p.accept("smtp", "smtps"):  # reserved words, and services
        name = token.text
    elif token.text.isdigit():
        p.unexpected("a port number without quotes or the name of a service")
    else:
        name = p.string("a port number or the name of a service")
    port = p.environment.service_port(name)
    if port is None:
        p.report(token, f'"{name}" is not a TCP service in services(5)')
        return SMTP_PORT
    return port


def _tag(p: Parser) -> str:
    token = p.peek()
    tag = p.name("a tag")
    if len(tag) > MAX_TAG:
        p.report(token, f"a tag has at most {MAX_TAG} characters, found {len(tag)}")
    return tag


def server_name(p: Parser, what: str) -> str:
    """A host name or an address literal, as a greeting or HELO names it."""
    token = p.peek()
    name = p.name(what)
    inner = name[1:-1].removeprefix("IPv6:") if name.startswith("[") and name.endswith("]") else ""
    if not is_host_name(name) and (not inner or as_address(inner) is None):
        p.report(token, f'{what} must be a host name or an address in brackets: "{name}"')
    return name


def _pki(p: Parser, draft: _Draft) -> None:
    token = p.peek()
    name = certificate_name(p, "the name of a pki")
    if name in draft.pki:
        p.report(token, f'pki "{name}" is already given for this listener')
        return
    if name not in p.draft.pki:
        p.report(token, f'no pki is declared with the name "{name}"{suggestion(name, p.draft.pki)}')
    if len(draft.pki) == MAX_PKI:
        p.report(token, f"a listener has at most {MAX_PKI} pki")
        return
    draft.pki = (*draft.pki, name)


def _check_tls(p: Parser, draft: _Draft, place: Token) -> None:
    """Certificates and TLS need each other, and passwords need TLS (parse.y, create_if_listener)."""
    if draft.tls and not draft.pki:
        word = next(word for word, mode in _TLS.items() if mode == draft.tls)
        p.report(place, f"{word} needs a pki")
    if draft.pki and not draft.tls:
        p.report(place, "pki needs tls, tls-require or smtps")
    if draft.auth and not draft.tls:
        p.report(place, "auth needs tls, tls-require or smtps")


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
    for other in p.draft.listeners:
        if other.port == port and (taken := [a for a in addresses if a in other.addresses]):
            at = f"{other.where.path}:{other.where.line}"
            p.report(place, f"{taken[0]} port {port} is already listened on at {at}")
