"""The configuration as it was understood, in smtpd.conf's own grammar.

Runs in `smtpd_ps -n -v`. Macros are expanded, included files are in place, defaults are written
out, and reading the text again gives the same Configuration.
"""

from collections.abc import Iterator, Mapping
from typing import assert_never

from smtpd_ps.config.directives.limits import (
    DOMAIN_LIMITS,
    MDA_LIMITS,
    MTA_LIMITS,
    SCHEDULER_LIMITS,
    SMTP_LIMITS,
    Limit,
)
from smtpd_ps.config.directives.match import FOR, FROM, OTHERS
from smtpd_ps.config.model import (
    Action,
    Builtin,
    Chain,
    Condition,
    Configuration,
    ExpandOnly,
    Filter,
    ForwardOnly,
    Listener,
    Lmtp,
    Maildir,
    Mbox,
    Mda,
    Options,
    Proc,
    Program,
    Relay,
    Rule,
)
from smtpd_ps.config.print_words import delay, values, word
from smtpd_ps.contract.settings import AuthOffer, ConditionKind, TlsOffer, TlsUse

MAX_ON_A_LINE = 4
_LIMITS: Mapping[str, Mapping[str, Limit]] = {
    "smtp": SMTP_LIMITS,
    "mta": MTA_LIMITS,
    "mda": MDA_LIMITS,
    "scheduler": SCHEDULER_LIMITS,
}
_OFFERS: Mapping[TlsOffer, str] = {"none": "", "offer": "tls", "require": "tls-require", "implicit": "smtps"}
_AUTH: Mapping[AuthOffer, str] = {"none": "", "optional": "auth-optional", "require": "auth"}
_RELAY_TLS: Mapping[TlsUse, str] = {"opportunistic": "", "require": "tls no-verify", "require-verify": "tls"}
_FAMILIES = {0: "", 4: "inet4", 6: "inet6"}
_CONDITIONS: Mapping[ConditionKind, str] = {
    **{criterion.kind: f"from {text}" for text, criterion in FROM.items()},
    **{criterion.kind: f"for {text}" for text, criterion in FOR.items()},
    **{criterion.kind: text for text, criterion in OTHERS.items()},
}


def print_configuration(conf: Configuration) -> str:
    """The text, each paragraph a sort of directive. Inline tables, secrets too, are in it as they are."""
    paragraphs = (
        _options(conf.options),
        _tables(conf),
        _certificates(conf),
        _filters(conf),
        (f"mda wrapper {word(each.name)} {word(each.command)}" for each in conf.wrappers.values()),
        _listeners(conf),
        (_action(conf, action) for action in conf.actions.values()),
        (_rule(conf, rule) for rule in conf.rules),
    )
    written = ("".join(f"{line}\n" for line in lines) for lines in paragraphs)
    return "\n".join(text for text in written if text)


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _options(options: Options) -> Iterator[str]:
    for owner, limits in _LIMITS.items():
        given = [f"{name} {getattr(options, limit.field)}" for name, limit in limits.items() if limit.field]
        family = _FAMILIES[options.family] if owner == "mta" else ""
        yield _joined(f"{owner} limit {' '.join(given)}", family)
    for each in options.domain_limits:
        own = [f"{name} {getattr(each, limit.field)}" for name, limit in DOMAIN_LIMITS.items() if limit.field]
        yield _joined(f"mta limit for domain {word(each.domain)}", *own, _FAMILIES[each.family])
    yield f"mta max-deferred {options.max_deferred}"
    yield f"smtp max-message-size {options.max_message_bytes}"
    yield f"smtp ciphers {word(options.ciphers)}"
    yield f"smtp sub-addr-delim {word(options.sub_address_delimiter)}"
    yield f"queue ttl {delay(options.queue_ttl_secs)}"
    if options.queue_compression:
        yield "queue compression"
    if options.queue_encryption is not None:
        yield _joined("queue encryption", word(options.queue_encryption) if options.queue_encryption else "")
    if options.srs_key:
        yield f"srs key {word(options.srs_key)}"
    if options.srs_backup_key:
        yield f"srs key backup {word(options.srs_backup_key)}"
    yield f"srs ttl {delay(options.srs_ttl_secs)}"
    yield f"bounce warn-interval {', '.join(delay(secs) for secs in options.warn_secs)}"


def _tables(conf: Configuration) -> Iterator[str]:
    for table in conf.tables.values():
        if table.name.startswith("<"):
            continue  # written where it is used
        match table.kind:
            case "file":
                source = word(table.path)
            case "db":
                source = word(f"db:{table.path}")
            case "program":
                source = word(table.source)
            case "getpwnam":
                source = "getpwnam"
            case _:
                source = values(table.kind, table.entries, one_a_line=len(table.entries) > MAX_ON_A_LINE)
        yield f"table {word(table.name)} {source}"


def _table(conf: Configuration, name: str) -> str:
    """The table as an argument: its name, or the values that stood there."""
    table = conf.tables[name]
    if not name.startswith("<"):
        return f"<{word(name)}>"
    if table.kind == "list" and len(table.entries) == 1:
        return word(table.entries[0][0])
    return values(table.kind, table.entries)


def _option(conf: Configuration, keyword: str, table: str) -> str:
    """`keyword TABLE`, the keyword alone where there is no table."""
    return f"{keyword} {_table(conf, table)}" if table else keyword


def _certificates(conf: Configuration) -> Iterator[str]:
    for authority in conf.authorities.values():
        yield f"ca {word(authority.name)} cert {word(authority.cert_path)}"
    for pki in conf.pki.values():
        dhe = f"dhe {pki.dhe}" if pki.dhe != "none" else ""
        yield _joined(f"pki {word(pki.name)} cert {word(pki.cert_path)} key {word(pki.key_path)}", dhe)


def _filters(conf: Configuration) -> Iterator[str]:
    if conf.admd:
        yield f"admd {word(conf.admd)}"
    for proc in conf.procs.values():
        if not proc.exec:
            yield f"proc {word(proc.name)} {_proc(proc)}"
    for each in conf.filters.values():
        if not each.name.startswith("<"):
            yield f"filter {word(each.name)} {_filter(conf, each)}"


def _proc(proc: Proc) -> str:
    options = (("user", proc.user), ("group", proc.group), ("chroot", proc.chroot))
    return _joined(word(proc.command), *(f"{name} {word(value)}" for name, value in options if value))


def _filter(conf: Configuration, each: Filter) -> str:
    match each.body:
        case Chain(members):
            return f"chain {_chain(members)}"
        case Program(proc, accepts):
            known = conf.procs[proc]
            form = f"proc-exec {_proc(known)}" if known.exec and proc == each.name else f"proc {word(proc)}"
            return _joined(form, "on-failure accept" if accepts else "")
        case Builtin() as builtin:
            condition = ("!" if builtin.negated else "") + builtin.condition + (" regex" if builtin.regex else "")
            return _joined(
                f"phase {builtin.phase} match",
                _option(conf, condition, builtin.table),
                builtin.decision,
                word(builtin.text) if builtin.decision not in ("bypass", "junk") else "",
            )
        case never:
            assert_never(never)


def _chain(members: tuple[str, ...]) -> str:
    return values("list", ((name, "") for name in members))


def _filter_option(conf: Configuration, name: str) -> str:
    """The filter of a listener or a relay: its name, or the chain that stood there."""
    if not name:
        return ""
    body = conf.filters[name].body
    return f"filter {_chain(body.members) if isinstance(body, Chain) and name.startswith('<') else word(name)}"


def _listeners(conf: Configuration) -> Iterator[str]:
    yield _joined(
        "listen on socket",
        "mask-src" if conf.socket.mask_source else "",
        "no-dsn" if conf.socket.no_dsn else "",
        f"tag {word(conf.socket.tag)}" if conf.socket.tag else "",
        _filter_option(conf, conf.socket.filter),
    )
    for listener in conf.listeners:
        if listener.addresses != (listener.target,):
            yield f"# {', '.join(listener.addresses)}"
        yield _listener(conf, listener)


def _listener(conf: Configuration, listener: Listener) -> str:
    return _joined(
        f"listen on {word(listener.target)}",
        _FAMILIES[listener.family],
        f"port {listener.port}",
        _joined(_OFFERS[listener.tls], "verify" if listener.verify else ""),
        f"ca {word(listener.ca)}" if listener.ca else "",
        f"protocols {word(','.join(listener.protocols))}" if listener.protocols else "",
        f"ciphers {word(listener.ciphers)}" if listener.ciphers else "",
        *(f"pki {word(name)}" for name in listener.pki),
        _option(conf, _AUTH[listener.auth], listener.auth_table),
        f"hostname {word(listener.hostname)}" if listener.hostname != conf.hostname else "",
        _option(conf, "hostnames", listener.hostnames) if listener.hostnames else "",
        _option(conf, "senders", listener.senders) if listener.senders else "",
        "masquerade" if listener.masquerade else "",
        "mask-src" if listener.mask_source else "",
        "received-auth" if listener.received_auth else "",
        "no-dsn" if listener.no_dsn else "",
        _option(conf, "proxy-v2 from", listener.proxies) if listener.proxies else "proxy-v2" if listener.proxy else "",
        f"tag {word(listener.tag)}" if listener.tag else "",
        _filter_option(conf, listener.filter),
    )


def _action(conf: Configuration, action: Action) -> str:
    return _joined(
        f"action {word(action.name)}",
        _method(conf, action),
        _option(conf, "alias", action.alias_table) if action.alias_table else "",
        _option(conf, "virtual", action.virtual_table) if action.virtual_table else "",
        _option(conf, "userbase", action.userbase_table) if action.userbase_table else "",
        f"user {word(action.user)}" if action.user else "",
        f"wrapper {word(action.wrapper)}" if action.wrapper else "",
        f"ttl {delay(action.ttl_secs)}" if action.ttl_secs else "",
    )


def _method(conf: Configuration, action: Action) -> str:
    match action.method:
        case Maildir(path, junk):
            return _joined("maildir", word(path) if path else "", "junk" if junk else "")
        case Mbox():
            return "mbox"
        case Lmtp(destination, rcpt_to):
            return _joined("lmtp", word(destination), "rcpt-to" if rcpt_to else "")
        case ExpandOnly():
            return "expand-only"
        case ForwardOnly():
            return "forward-only"
        case Mda(command):
            return f"mda {word(command)}"
        case Relay() as relay:
            return _relay(conf, relay)
        case never:
            assert_never(never)


def _relay(conf: Configuration, relay: Relay) -> str:
    host = _option(conf, "host", relay.host_table) if relay.host_table else ""
    if relay.hosts:
        host = f"host {_urls(relay.hosts)}"
    return _joined(
        "relay",
        host,
        f"backup host {_urls(relay.backup_hosts)}" if relay.backup_hosts else "",
        f"backup mx {word(relay.backup)}" if relay.backup else "",
        _option(conf, "domain", relay.domain_table) if relay.domain_table else "",
        _RELAY_TLS[relay.tls],
        f"pki {word(relay.pki)}" if relay.pki else "",
        _option(conf, "auth", relay.auth_table) if relay.auth_table else "",
        f"helo {word(relay.helo)}" if relay.helo else "",
        f"mail-from {word(relay.mail_from)}" if relay.mail_from else "",
        f"ca {word(relay.ca)}" if relay.ca else "",
        f"protocols {word(','.join(relay.protocols))}" if relay.protocols else "",
        f"ciphers {word(relay.ciphers)}" if relay.ciphers else "",
        _option(conf, "src", relay.src_table) if relay.src_table else "",
        _option(conf, "helo-src", relay.helo_table) if relay.helo_table else "",
        "srs" if relay.srs else "",
        _filter_option(conf, relay.filter),
    )


def _urls(urls: tuple[str, ...]) -> str:
    return word(urls[0]) if len(urls) == 1 else values("list", ((url, "") for url in urls))


def _rule(conf: Configuration, rule: Rule) -> str:
    target = f"action {word(rule.action)}" if rule.action else "reject"
    return _joined("match", *(_condition(conf, condition) for condition in rule.conditions), target)


def _condition(conf: Configuration, condition: Condition) -> str:
    words = _CONDITIONS[condition.kind] + (" regex" if condition.regex else "")
    return ("!" if condition.negated else "") + _option(conf, words, condition.table)
