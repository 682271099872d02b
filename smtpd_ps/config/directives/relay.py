"""`action NAME relay`: to the MX of the domain, or to hosts.

Runs in the parent and in `smtpd_ps -n`.
"""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from smtpd_ps.config.directives.filters import filter_argument
from smtpd_ps.config.directives.listen_options import server_name
from smtpd_ps.config.directives.pki import certificate_name
from smtpd_ps.config.directives.tables import table_argument
from smtpd_ps.config.directives.tls_options import cipher_list, protocol_list
from smtpd_ps.config.model import Builtin, Chain, Relay, Table
from smtpd_ps.config.parser import Parser
from smtpd_ps.config.tokens import Kind, Token
from smtpd_ps.pure.address import domain_valid, mailbox_valid
from smtpd_ps.pure.relay_url import RelayUrl, RelayUrlError, is_host_name, parse_relay_url

MAX_HOSTS = 64  # contract.settings.ActionSettings
_OPTIONS = (
    "auth", "backup", "ca", "ciphers", "domain", "filter", "helo", "helo-src", "host", "mail-from", "pki", "protocols",
    "src", "srs", "tls", "ttl",
)  # fmt: skip
_WITHOUT_TLS = ("lmtp", "smtp+notls")


@dataclass(slots=True)
class _Draft:
    """The options of one relay as they come; `urls` are those written in place."""

    made: Relay = Relay()  # noqa: RUF009 - immutable
    to_hosts: bool = False
    to_domains: bool = False
    authenticates: bool = False
    urls: tuple[RelayUrl, ...] = ()

    def set(self, **changes: Any) -> None:
        """Give `made` other values."""
        self.made = replace(self.made, **changes)


def relay(p: Parser) -> Relay:
    """`relay [options]`, up to `ttl` or the end of the line."""
    draft = _Draft()
    given: set[str] = set()
    start = p.where
    while p.peek().kind not in (Kind.NEWLINE, Kind.END) and not p.at("ttl"):
        option = p.option("relay", _OPTIONS, frozenset())
        if option.text in given:
            p.report(option, f"{option.text} is already given for this action")
        given.add(option.text)
        _option(p, draft, option)
    labels = {url.label for url in draft.urls}
    if not draft.authenticates and labels - {""}:
        p.draft.report(start, "a host with a label needs auth, the table of credentials")
    if draft.authenticates and labels == {""}:
        p.draft.warn(start, "auth has no effect: no host names a label (label@host)")
    if draft.made.tls != "opportunistic":
        for url in draft.urls:
            if url.protocol in _WITHOUT_TLS:
                p.draft.report(start, f"tls and a host with {url.protocol}:// contradict each other")
    return draft.made


def _option(p: Parser, draft: _Draft, option: Token) -> None:
    match option.text:
        case "host":
            if draft.to_domains or draft.made.backup:
                p.report(option, "host, domain and backup exclude each other")
            draft.to_hosts = True
            _hosts(p, draft)
        case "domain":
            if draft.to_hosts or draft.made.backup:
                p.report(option, "host, domain and backup exclude each other")
            draft.to_domains = True
            _domains(p, draft)
        case "backup":
            _backup(p, draft, option)
        case "tls":
            draft.set(tls="require" if p.accept("no-verify") else "require-verify")
        case "auth":
            if not draft.to_hosts and not draft.to_domains:
                p.report(option, "auth must come after host or domain")
            draft.authenticates = True
            draft.set(auth_table=table_argument(p, "auth", "relay-credentials", programs=True))
        case "pki":
            draft.set(pki=certificate_name(p, "the name of a pki"))
        case "ca":
            draft.set(ca=certificate_name(p, "the name of a ca"))
        case "protocols":
            draft.set(protocols=protocol_list(p))
        case "ciphers":
            draft.set(ciphers=cipher_list(p))
        case "helo":
            draft.set(helo=server_name(p, "the helo name"))
        case "helo-src":
            draft.set(helo_table=table_argument(p, "helo-src", "addrname", programs=True))
        case "src":
            draft.set(src_table=table_argument(p, "src", "source", programs=True))
        case "srs":
            if not p.draft.options.srs_key:
                p.report(option, "srs needs a key; declare it before with srs key")
            draft.set(srs=True)
        case "filter":
            draft.set(filter=filter_argument(p))
            _check_filter(p, option, draft.made.filter)
        case "mail-from":
            token = p.peek()
            draft.set(mail_from=p.name("the sender"))
            if not mail_from_valid(draft.made.mail_from):
                p.report(token, f'the sender must be user@domain or "@domain": "{draft.made.mail_from}"')


def _check_filter(p: Parser, option: Token, name: str) -> None:
    """Of mail that goes out filters are only told, which means nothing to a builtin one; OpenSMTPD takes it."""
    known = p.draft.filters.get(name)
    if known is None:
        return
    members = known.body.members if isinstance(known.body, Chain) else (name,)
    for member in members:
        found = p.draft.filters.get(member)
        if found is not None and isinstance(found.body, Builtin):
            p.draft.warn(option.where, f'filter "{member}" has no effect on a relay: only programs are told of it')


def _domains(p: Parser, draft: _Draft) -> None:
    """`domain <t>`; the URLs of a table in smtpd.conf are looked at here, those of a file in lookup."""
    name = table_argument(p, "domain", "relayhost", programs=True)
    draft.set(domain_table=name)
    table = p.draft.tables.get(name)
    for _domain, url in table.entries if table is not None and table.kind == "map" else ():
        with suppress(RelayUrlError):  # reported already
            draft.urls += (parse_relay_url(url),)


def _backup(p: Parser, draft: _Draft, option: Token) -> None:
    """`backup`, `backup mx NAME`, and ours: `backup host URLS` behind `host`."""
    if p.accept("host"):
        if not draft.to_hosts:
            p.report(option, "backup host must come after host")
        token = p.peek()
        table = p.draft.tables.get(table_argument(p, "backup host", "relayhosts", copied=True))
        if table is not None and table.kind in ("file", "db"):
            p.report(token, "backup host needs its list in smtpd.conf")
        elif table is not None and table.kind == "list":
            draft.set(backup_hosts=_urls(p, draft, token, table))
        return
    if draft.to_hosts or draft.to_domains:
        p.report(option, "host, domain and backup exclude each other")
    name = p.draft.hostname
    if p.accept("mx"):
        token = p.peek()
        name = p.name("the name of an MX")
        if not is_host_name(name):
            p.report(token, f'the name of an MX must be a host name: "{name}"')
    draft.set(backup=name.lower())


def mail_from_valid(text: str) -> bool:
    """Whether `text` can stand behind mail-from: `user@domain`, or `@domain`, which keeps the user."""
    return domain_valid(text[1:]) if text.startswith("@") else mailbox_valid(text)


def _hosts(p: Parser, draft: _Draft) -> None:
    token = p.peek()
    name = table_argument(p, "host", "relayhosts", programs=True, copied=True)
    table = p.draft.tables.get(name)
    if table is None or table.kind == "map":
        return
    if table.kind in ("file", "db", "program"):
        draft.set(host_table=name)
    else:
        draft.set(hosts=_urls(p, draft, token, table))


def _urls(p: Parser, draft: _Draft, token: Token, table: Table) -> tuple[str, ...]:
    """The relay URLs of a list."""
    hosts = tuple(key for key, _value in table.entries)
    if len(hosts) > MAX_HOSTS:
        p.report(token, f"at most {MAX_HOSTS} hosts, found {len(hosts)}")
    for text in hosts:
        with suppress(RelayUrlError):  # reported already
            draft.urls += (parse_relay_url(text),)
    return hosts
