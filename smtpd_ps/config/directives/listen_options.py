"""The options of `listen on`.

Runs in the parent and in `smtpd_ps -n`. What each means for one session is smtp's matter; here
they are read, and what contradicts itself is refused.
"""

from dataclasses import dataclass
from typing import TypeVar

from smtpd_ps.config.directives.filters import filter_argument
from smtpd_ps.config.directives.pki import certificate_name
from smtpd_ps.config.directives.tables import at_table, table_argument
from smtpd_ps.config.directives.tls_options import cipher_list, protocol_list
from smtpd_ps.config.parser import Parser
from smtpd_ps.config.suggestion import suggestion
from smtpd_ps.config.tokens import Kind, Token
from smtpd_ps.contract.settings import AuthOffer, TlsOffer, TlsVersion
from smtpd_ps.pure.relay_url import as_address, is_host_name

MAX_TAG = 32
MAX_PKI = 32
MAX_PROXIES = 1024  # contract.settings.ListenerSettings
SMTP_PORT = 25
TLS: dict[str, TlsOffer] = {"tls": "offer", "tls-require": "require", "smtps": "implicit"}
AUTH: dict[str, AuthOffer] = {"auth": "require", "auth-optional": "optional"}
FAMILIES = {"inet4": 4, "inet6": 6}
OPTIONS = (
    *TLS, *AUTH, *FAMILIES, "ca", "ciphers", "filter", "hostname", "hostnames", "mask-src", "no-dsn", "pki", "port",
    "protocols", "proxy-v2", "received-auth", "senders", "tag",
)  # fmt: skip
SOCKET_OPTIONS = ("filter", "mask-src", "no-dsn", "tag")

T = TypeVar("T")


@dataclass(slots=True)
class ListenerDraft:
    """The options of one listener as they come; None where nothing was given."""

    family: int | None = None
    port: int | None = None
    tls: TlsOffer | None = None
    verify: bool = False
    ca: str | None = None
    protocols: tuple[TlsVersion, ...] | None = None
    ciphers: str | None = None
    auth: AuthOffer | None = None
    auth_table: str = ""
    pki: tuple[str, ...] = ()
    hostname: str | None = None
    hostnames: str | None = None
    senders: str | None = None
    masquerade: bool = False
    mask_source: bool | None = None
    received_auth: bool | None = None
    no_dsn: bool | None = None
    proxy: bool | None = None
    proxies: str | None = None
    tag: str | None = None
    filter: str | None = None


def once(p: Parser, option: Token, what: str, before: T | None, now: T) -> T:
    """`now`, with an error where the option was given before."""
    if before is not None:
        p.report(option, f"{what} is already given for this listener")
    return now


def option(p: Parser, draft: ListenerDraft, word: Token) -> None:
    """Read the option whose keyword was taken."""
    match word.text:
        case "inet4" | "inet6":
            draft.family = once(p, word, "a family", draft.family, FAMILIES[word.text])
        case "port":
            draft.port = once(p, word, "a port", draft.port, _port(p))
        case "hostname":
            draft.hostname = once(p, word, "a hostname", draft.hostname, server_name(p, "the hostname"))
        case "hostnames":
            table = table_argument(p, word.text, "addrname", programs=True)
            draft.hostnames = once(p, word, "hostnames", draft.hostnames, table)
        case "senders":
            table = table_argument(p, word.text, "mailaddrmap", programs=True)
            draft.senders = once(p, word, "senders", draft.senders, table)
            draft.masquerade = p.accept("masquerade") is not None
        case "received-auth":
            draft.received_auth = once(p, word, word.text, draft.received_auth, True)
        case "proxy-v2":
            draft.proxy = once(p, word, word.text, draft.proxy, True)
            if p.accept("from"):
                draft.proxies = _proxies(p)
        case "auth" | "auth-optional":
            draft.auth = once(p, word, "auth", draft.auth, AUTH[word.text])
            if at_table(p):
                draft.auth_table = table_argument(p, word.text, "credentials", programs=True)
        case "filter" | "mask-src" | "no-dsn" | "tag":
            socket_option(p, draft, word)
        case _:
            _tls_option(p, draft, word)


def socket_option(p: Parser, draft: ListenerDraft, word: Token) -> None:
    """An option that the local socket has as well."""
    match word.text:
        case "filter":
            draft.filter = once(p, word, "a filter", draft.filter, filter_argument(p))
        case "mask-src":
            draft.mask_source = once(p, word, word.text, draft.mask_source, True)
        case "no-dsn":
            draft.no_dsn = once(p, word, word.text, draft.no_dsn, True)
        case "tag":
            draft.tag = once(p, word, "a tag", draft.tag, _tag(p))


def _tls_option(p: Parser, draft: ListenerDraft, word: Token) -> None:
    match word.text:
        case "tls" | "tls-require" | "smtps":
            draft.tls = once(p, word, "a TLS mode", draft.tls, TLS[word.text])
            if p.at("verify") and word.text == "tls":
                p.fail(p.peek(), "verify needs tls-require or smtps: with tls alone a client may stay in clear")
            draft.verify = p.accept("verify") is not None
        case "ca":
            draft.ca = once(p, word, "a ca", draft.ca, _authority(p))
        case "ciphers":
            draft.ciphers = once(p, word, "a list of ciphers", draft.ciphers, cipher_list(p))
        case "protocols":
            draft.protocols = once(p, word, "a list of protocols", draft.protocols, protocol_list(p))
        case "pki":
            _pki(p, draft)


def _authority(p: Parser) -> str:
    token = p.peek()
    name = certificate_name(p, "the name of a ca")
    known = p.draft.authorities
    if name not in known and ("ca", name) not in p.draft.broken:
        p.report(token, f'no ca is declared with the name "{name}"{suggestion(name, known)}')
    return name


def _proxies(p: Parser) -> str:
    """The table of addresses and networks that may send a PROXY header; smtp holds them, so no file will do."""
    token = p.peek()
    name = table_argument(p, "proxy-v2 from", "netaddr", copied=True)
    table = p.draft.tables.get(name)
    if table is not None and table.path:
        p.report(token, f'proxy-v2 from needs its addresses in smtpd.conf, but table "{name}" is a file')
    if table is not None and len(table.entries) > MAX_PROXIES:
        p.report(token, f"proxy-v2 from takes at most {MAX_PROXIES} addresses and networks")
    return name


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


def _pki(p: Parser, draft: ListenerDraft) -> None:
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


def check(p: Parser, draft: ListenerDraft, place: Token) -> None:
    """Certificates and TLS need each other, and passwords need TLS (parse.y, create_if_listener)."""
    if draft.tls and not draft.pki:
        word = next(word for word, mode in TLS.items() if mode == draft.tls)
        p.report(place, f"{word} needs a pki")
    if draft.pki and not draft.tls:
        p.report(place, "pki needs tls, tls-require or smtps")
    if draft.auth and not draft.tls:
        p.report(place, "auth needs tls, tls-require or smtps")
