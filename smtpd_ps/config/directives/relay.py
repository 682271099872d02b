"""`action NAME relay`: to the MX of the domain, or to hosts.

Runs in the parent and in `smtpd_ps -n`.
"""

from contextlib import suppress
from dataclasses import dataclass

from smtpd_ps.config.directives.listen import server_name
from smtpd_ps.config.directives.pki import certificate_name
from smtpd_ps.config.directives.tables import table_argument
from smtpd_ps.config.model import Relay
from smtpd_ps.config.parser import Parser
from smtpd_ps.config.tokens import Kind, Token
from smtpd_ps.contract.settings import TlsUse
from smtpd_ps.pure.address import domain_valid, mailbox_valid
from smtpd_ps.pure.relay_url import RelayUrl, RelayUrlError, parse_relay_url

MAX_HOSTS = 64  # contract.settings.ActionSettings
_OPTIONS = ("auth", "helo", "host", "mail-from", "pki", "tls", "ttl")
_UNSUPPORTED = frozenset(("backup", "ca", "ciphers", "domain", "filter", "helo-src", "protocols", "src", "srs"))
_WITHOUT_TLS = ("lmtp", "smtp+notls")


@dataclass(slots=True)
class _Draft:
    """The options of one relay as they come."""

    hosts: tuple[str, ...] | None = None
    urls: tuple[RelayUrl, ...] = ()
    tls: TlsUse = "opportunistic"
    pki: str = ""
    auth: str | None = None
    helo: str = ""
    mail_from: str = ""
    host_table: str = ""


def relay(p: Parser) -> Relay:
    """`relay [options]`, up to `ttl` or the end of the line."""
    draft = _Draft()
    given: set[str] = set()
    start = p.where
    while p.peek().kind not in (Kind.NEWLINE, Kind.END) and not p.at("ttl"):
        option = p.option("relay", _OPTIONS, _UNSUPPORTED)
        if option.text in given:
            p.report(option, f"{option.text} is already given for this action")
        given.add(option.text)
        _option(p, draft, option)
    labels = {url.label for url in draft.urls}
    if draft.auth is None and labels - {""}:
        p.draft.report(start, "a host with a label needs auth, the table of credentials")
    if draft.auth is not None and labels == {""}:
        p.draft.warn(start, "auth has no effect: no host names a label (label@host)")
    if draft.tls != "opportunistic":
        for url in draft.urls:
            if url.protocol in _WITHOUT_TLS:
                p.draft.report(start, f"tls and a host with {url.protocol}:// contradict each other")
    return Relay(
        draft.hosts or (), draft.tls, draft.pki, draft.auth or "", draft.helo, draft.mail_from, draft.host_table
    )


def _option(p: Parser, draft: _Draft, option: Token) -> None:
    match option.text:
        case "host":
            _hosts(p, draft)
        case "tls":
            draft.tls = "require" if p.accept("no-verify") else "require-verify"
        case "auth":
            if draft.hosts is None:
                p.report(option, "auth must come after host")
            draft.auth = table_argument(p, "auth", "relay-credentials")
        case "pki":
            draft.pki = certificate_name(p, "the name of a pki")
        case "helo":
            draft.helo = server_name(p, "the helo name")
        case "mail-from":
            token = p.peek()
            draft.mail_from = p.name("the sender")
            if not mail_from_valid(draft.mail_from):
                p.report(token, f'the sender must be user@domain or "@domain": "{draft.mail_from}"')


def mail_from_valid(text: str) -> bool:
    """Whether `text` can stand behind mail-from: `user@domain`, or `@domain`, which keeps the user."""
    return domain_valid(text[1:]) if text.startswith("@") else mailbox_valid(text)


def _hosts(p: Parser, draft: _Draft) -> None:
    token = p.peek()
    draft.hosts = ()
    name = table_argument(p, "host", "relayhosts")
    table = p.draft.tables.get(name)
    if table is None or table.kind == "map":
        return
    if table.kind == "file":
        draft.host_table = name
        return
    draft.hosts = tuple(key for key, _value in table.entries)
    if len(draft.hosts) > MAX_HOSTS:
        p.report(token, f"at most {MAX_HOSTS} hosts, found {len(draft.hosts)}")
    for text in draft.hosts:
        with suppress(RelayUrlError):  # reported already
            draft.urls += (parse_relay_url(text),)
