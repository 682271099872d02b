"""From the Configuration to the slice of each process, and the files each is handed.

Runs in the parent. A process gets what its work needs and no more: tables and rules go to
lookup alone, keys to keys alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeVar

import msgspec

from smtpd_ps.config.commands import program_settings
from smtpd_ps.config.model import (
    Action,
    Builtin,
    Chain,
    Configuration,
    ConfigurationError,
    ExpandOnly,
    Filter,
    ForwardOnly,
    Lmtp,
    Maildir,
    Mbox,
    Mda,
    Method,
    Options,
    Problem,
    Program,
    Relay,
    Table,
)
from smtpd_ps.contract.installation import paths
from smtpd_ps.contract.settings import (
    FILTER_PHASES,
    ActionKind,
    ActionSchedule,
    ActionSettings,
    ConditionSettings,
    ControlSettings,
    DeliverySettings,
    FilterSettings,
    KeysSettings,
    ListenerSettings,
    ListenerTables,
    LookupSettings,
    PkiSettings,
    ProgramSettings,
    QueueSettings,
    RouteShape,
    RuleSettings,
    SmtpSettings,
    TableSettings,
    TableUse,
)
from smtpd_ps.contract.values import Process, SrsSecrets, Value

SMTP_PORT = 25
V = TypeVar("V", bound=Value)


@dataclass(frozen=True, slots=True)
class AssetPlan:
    """A file that the parent opens for a process and passes as messages.Asset."""

    process: Process
    kind: Literal["table", "cert", "key", "ca"]
    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Slices:
    """The settings of each process; `actions` and `programs` are for the parent itself."""

    smtp: SmtpSettings
    lookup: LookupSettings
    queue: QueueSettings
    delivery: DeliverySettings
    keys: KeysSettings
    control: ControlSettings
    assets: tuple[AssetPlan, ...]
    actions: Mapping[str, ActionSettings]
    counts: Mapping[Process, int]  # of smtp and delivery processes
    queue_key: bytes = field(default=b"", repr=False)  # of queue encryption, at the start
    programs: tuple[ProgramSettings, ...] = ()


def compile_settings(
    conf: Configuration,
    resolver: str = "",
    allowed_uid: int = 0,
    socket_path: str = paths().submission_socket,
    queue_key: bytes = b"",
) -> Slices:
    """The slices of `conf`.

    `resolver` is "address:port" or "" for resolv.conf; `allowed_uid` may use the control socket;
    `socket_path` is where the local submission socket stands; `queue_key` is that of queue encryption.
    Raises ConfigurationError where a value exceeds a bound of the contract.
    """
    # What relays offer is OpenSSL's own choice as long as smtpd.conf says nothing: they meet servers of any age.
    ciphers = conf.options.ciphers if conf.options.ciphers != Options().ciphers else ""
    actions = {name: _action(conf, action, ciphers) for name, action in conf.actions.items()}
    tables = _used_tables(conf)
    listening = tuple(dict.fromkeys(name for listener in conf.listeners for name in listener.pki))
    relaying = tuple(dict.fromkeys(action.relay_pki for action in actions.values() if action.relay_pki))
    signing = tuple(dict.fromkeys((*listening, *relaying)))
    return Slices(
        smtp=_bounded(
            conf,
            SmtpSettings(
                hostname=conf.hostname,
                listeners=_listeners(conf, socket_path),
                pki=_pki(conf, listening),
                max_message_bytes=conf.options.max_message_bytes,
                max_mails=conf.options.max_mails,
                max_recipients=conf.options.max_recipients,
                ciphers=conf.options.ciphers,
            ),
        ),
        lookup=_bounded(conf, _lookup(conf, tuple(actions.values()), tables, resolver)),
        queue=_bounded(
            conf,
            QueueSettings(
                hostname=conf.hostname,
                actions=tuple(ActionSchedule(a.name, _shape(a), a.ttl_secs) for a in actions.values()),
                ttl_secs=conf.options.queue_ttl_secs,
                max_inflight=conf.options.max_inflight,
                warn_secs=conf.options.warn_secs,
                compress=conf.options.queue_compression,
                encrypt=conf.options.queue_encryption is not None,
            ),
        ),
        delivery=_bounded(
            conf,
            DeliverySettings(
                hostname=conf.hostname,
                actions=tuple(actions.values()),
                pki=_pki(conf, relaying),
                max_agents=conf.options.max_agents,
                mta=conf.options.mta_limits(),
                domain_limits=conf.options.domain_limits,
                max_deferred=conf.options.max_deferred,
                srs=_srs(conf.options, backup=False) if any(a.relay_srs for a in actions.values()) else None,
                max_sessions_per_user=conf.options.max_sessions_per_user,
            ),
        ),
        keys=_bounded(conf, KeysSettings(pki=_pki(conf, signing))),
        control=_bounded(conf, ControlSettings(allowed_uid=allowed_uid)),
        assets=_assets(conf, tables, listening, relaying),
        actions=MappingProxyType(actions),
        programs=(
            *(program_of(table) for table in tables if table.kind == "program"),
            *(program_settings(proc) for proc in conf.procs.values()),
        ),
        counts={Process.SMTP: conf.options.smtp_processes, Process.DELIVERY: conf.options.delivery_processes},
        queue_key=queue_key,
    )


def _bounded(conf: Configuration, settings: V) -> V:
    """`settings` again, after a trip through the codec that the receiving process will make."""
    try:
        msgspec.msgpack.decode(msgspec.msgpack.encode(settings), type=type(settings))
    except (msgspec.ValidationError, UnicodeError) as error:
        problem = Problem(conf.path, 0, f"{type(settings).__name__} exceeds a bound of the contract: {error}")
        raise ConfigurationError((problem,)) from None
    return settings


_KINDS: dict[type[Method], ActionKind] = {
    Maildir: "maildir",
    Mbox: "mbox",
    Lmtp: "lmtp",
    Mda: "mda",
    Relay: "relay",
    ExpandOnly: "expand-only",
    ForwardOnly: "forward-only",
}


def _action(conf: Configuration, action: Action, default_ciphers: str) -> ActionSettings:
    method = action.method
    maildir = method if isinstance(method, Maildir) else Maildir("")
    lmtp = method if isinstance(method, Lmtp) else Lmtp("", rcpt_to=False)
    relay = method if isinstance(method, Relay) else Relay()
    return ActionSettings(
        name=action.name,
        kind=_KINDS[type(method)],
        alias_table=action.alias_table,
        virtual_table=action.virtual_table,
        userbase_table=_userbase(conf, action),
        user=action.user,
        ttl_secs=action.ttl_secs,
        maildir_path=maildir.path,
        maildir_junk=maildir.junk,
        lmtp_destination=lmtp.destination,
        lmtp_rcpt_to=lmtp.rcpt_to,
        relay_hosts=relay.hosts,
        relay_tls=relay.tls,
        relay_pki=relay.pki,
        relay_auth_table=relay.auth_table,
        relay_helo=relay.helo,
        relay_mail_from=relay.mail_from,
        relay_host_table=relay.host_table,
        relay_ca=relay.ca,
        relay_protocols=relay.protocols,
        relay_ciphers=relay.ciphers or default_ciphers,
        relay_src_table=relay.src_table,
        relay_helo_table=relay.helo_table,
        relay_domain_table=relay.domain_table,
        relay_backup=relay.backup,
        relay_backup_hosts=relay.backup_hosts,
        relay_srs=relay.srs,
        mda_command=method.command if isinstance(method, Mda) else "",
        wrapper=conf.wrappers[action.wrapper].command if action.wrapper else "",
        relay_filter=relay.filter,
    )


def _own_exchangers(conf: Configuration) -> tuple[str, ...]:
    """Where an exchanger would be this daemon itself."""
    found: dict[str, None] = {}
    for listener in conf.listeners:
        if listener.port == SMTP_PORT:
            for address in listener.addresses:
                family = {"0.0.0.0": ".", "::": ":"}.get(address)  # noqa: S104 - nothing is bound here
                known = conf.interface_addresses if family else ()
                found |= dict.fromkeys((address, *(each for each in known if family and family in each)))
    return tuple(found)


def _srs(options: Options, *, backup: bool) -> SrsSecrets | None:
    """For who makes addresses, and for who reads them also the `backup` key; None without a key."""
    if not options.srs_key:
        return None
    return SrsSecrets(options.srs_key, options.srs_backup_key if backup else "", options.srs_ttl_secs // 86400)


def _userbase(conf: Configuration, action: Action) -> str:
    """The table, "" where it is that of the system's users."""
    table = conf.tables.get(action.userbase_table)
    return table.name if table is not None and table.kind != "getpwnam" else ""


def _shape(action: ActionSettings) -> RouteShape:
    match action.kind:
        # Of the last two only what has a target of its own.
        case "maildir" | "mbox" | "mda" | "expand-only" | "forward-only":
            return "agent"
        case "lmtp":
            return "lmtp"
        case "relay":
            return "host" if action.by_host else "mx"


def _pki(conf: Configuration, names: tuple[str, ...]) -> tuple[PkiSettings, ...]:
    return tuple(
        PkiSettings(name, conf.pki[name].cert_path, conf.pki[name].key_path, conf.pki[name].dhe) for name in names
    )


def _listeners(conf: Configuration, socket_path: str) -> tuple[ListenerSettings, ...]:
    """One a bound address; the local socket is the last."""
    bound = [(listener, address) for listener in conf.listeners for address in listener.addresses]
    made = [
        ListenerSettings(
            index=index,
            address=address,
            port=listener.port,
            hostname=listener.hostname,
            tag=listener.tag,
            tls=listener.tls,
            pki=listener.pki,
            auth=listener.auth,
            auth_table=listener.auth_table,
            filter_phases=_phases(conf, listener.filter),
            verify=listener.verify,
            ca=listener.ca if listener.verify else "",
            protocols=listener.protocols,
            ciphers=listener.ciphers,
            hostnames=bool(listener.hostnames),
            senders=bool(listener.senders),
            masquerade=listener.masquerade,
            mask_source=listener.mask_source,
            received_auth=listener.received_auth,
            dsn=not listener.no_dsn,
            proxy="none" if not listener.proxy else "listed" if listener.proxies else "any",
            proxies=tuple(key for key, _value in conf.tables[listener.proxies].entries) if listener.proxies else (),
            filter_programs=_has_programs(conf, listener.filter),
        )
        for index, (listener, address) in enumerate(bound)
    ]
    made.append(
        ListenerSettings(
            index=len(made),
            address=socket_path,
            port=0,
            local=True,
            hostname=conf.hostname,
            tag=conf.socket.tag,
            filter_phases=_phases(conf, conf.socket.filter),
            mask_source=conf.socket.mask_source,
            dsn=not conf.socket.no_dsn,
            filter_programs=_has_programs(conf, conf.socket.filter),
        )
    )
    return tuple(made)


def _phases(conf: Configuration, name: str) -> int:
    """In which phases the filter `name` has something to say; a sum of FILTER_PHASES."""
    if not name:
        return 0
    match conf.filters[name].body:
        case Chain(members):
            phases = 0
            for member in members:
                phases |= _phases(conf, member)
            return phases
        case Builtin() as builtin:
            return 1 << FILTER_PHASES.index(builtin.phase)
        case Program():
            return (1 << len(FILTER_PHASES)) - 1  # it says so itself when it has started


def _filter(each: Filter) -> FilterSettings:
    match each.body:
        case Chain(members):
            return FilterSettings(each.name, members)
        case Builtin() as b:
            return FilterSettings(each.name, (), b.phase, b.condition, b.negated, b.table, b.regex, b.decision, b.text)
        case Program(proc, accepts):
            return FilterSettings(each.name, program=proc, accept_on_failure=accepts)


def _has_programs(conf: Configuration, name: str) -> bool:
    if not name:
        return False
    body = conf.filters[name].body
    members = body.members if isinstance(body, Chain) else (name,)
    return any(isinstance(conf.filters[member].body, Program) for member in members)


def _listener_filters(conf: Configuration) -> tuple[tuple[int, str], ...]:
    """The filter of each listener that has one, by the indices of `_listeners`."""
    names = [listener.filter for listener in conf.listeners for _address in listener.addresses]
    return tuple((index, name) for index, name in enumerate((*names, conf.socket.filter)) if name)


def _listener_tables(conf: Configuration) -> tuple[ListenerTables, ...]:
    bound = [(listener, address) for listener in conf.listeners for address in listener.addresses]
    return tuple(
        ListenerTables(index, address, listener.hostnames, listener.senders)
        for index, (listener, address) in enumerate(bound)
        if listener.hostnames or listener.senders
    )


def _lookup(
    conf: Configuration, actions: tuple[ActionSettings, ...], tables: tuple[Table, ...], resolver: str
) -> LookupSettings:
    rules = tuple(
        RuleSettings(
            conditions=tuple(ConditionSettings(c.kind, c.negated, c.table, c.regex) for c in rule.conditions),
            action=rule.action,
            line=rule.where.line,
            path=rule.where.path if rule.where.path != conf.path else "",
        )
        for rule in conf.rules
    )
    return LookupSettings(
        hostname=conf.hostname,
        rules=rules,
        actions=actions,
        tables=tuple(_table(table, conf.table_uses[table.name]) for table in tables),
        local_addresses=conf.interface_addresses,
        local_names=tuple(dict.fromkeys(("localhost", conf.hostname.lower()))),
        resolver=resolver,
        srs=_srs(conf.options, backup=True),
        own_exchangers=_own_exchangers(conf),
        sub_address_delimiter=conf.options.sub_address_delimiter,
        filters=tuple(_filter(each) for each in conf.filters.values()),
        listener_filters=_listener_filters(conf),
        listeners=_listener_tables(conf),
        procs=tuple(conf.procs),
        admd=conf.admd,
    )


def _table(table: Table, uses: tuple[TableUse, ...]) -> TableSettings:
    if table.kind == "program":
        return TableSettings(name=table.name, source="program", kind="map", uses=uses)
    if table.kind == "file" or table.kind == "db":
        return TableSettings(name=table.name, source=table.kind, kind="map", path=table.path, uses=uses)
    assert table.kind != "getpwnam"  # asked of the parent, which is what happens without a table as well
    entries = tuple((key.lower(), value) for key, value in table.entries)  # table(5): keys have no case
    return TableSettings(name=table.name, source="inline", kind=table.kind, entries=entries, uses=uses)


def program_of(table: Table) -> ProgramSettings:
    """The program of a table. One of a type sees the table's name as its own, as with OpenSMTPD."""
    title = "" if table.source.startswith("proc-exec:") else table.name
    return ProgramSettings(table.name, "table", table.words, table.shell, title=title)


def _used_tables(conf: Configuration) -> tuple[Table, ...]:
    """Those that lookup needs; of the system's users it asks the parent."""
    return tuple(conf.tables[name] for name in conf.table_uses if conf.tables[name].kind != "getpwnam")


def _assets(
    conf: Configuration, tables: tuple[Table, ...], listening: tuple[str, ...], relaying: tuple[str, ...]
) -> tuple[AssetPlan, ...]:
    plans = [AssetPlan(Process.LOOKUP, "table", t.name, t.path) for t in tables if t.path]
    plans += [AssetPlan(Process.SMTP, "cert", name, conf.pki[name].cert_path) for name in listening]
    authorities = dict.fromkeys(listener.ca for listener in conf.listeners if listener.verify and listener.ca)
    plans += [AssetPlan(Process.SMTP, "ca", name, conf.authorities[name].cert_path) for name in authorities]
    plans += [AssetPlan(Process.DELIVERY, "cert", name, conf.pki[name].cert_path) for name in relaying]
    relays = (action.method for action in conf.actions.values() if isinstance(action.method, Relay))
    for name in dict.fromkeys(relay.ca for relay in relays if relay.ca):
        plans.append(AssetPlan(Process.DELIVERY, "ca", name, conf.authorities[name].cert_path))
    for name in dict.fromkeys((*listening, *relaying)):
        plans.append(AssetPlan(Process.KEYS, "cert", name, conf.pki[name].cert_path))
        plans.append(AssetPlan(Process.KEYS, "key", name, conf.pki[name].key_path))
    return tuple(plans)
