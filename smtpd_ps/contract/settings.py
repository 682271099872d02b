"""The slice of the configuration that each process receives, and no more.

Made by config/compile in the parent from smtpd.conf; immutable afterwards. Loaded in every
process. File tables, certificates and keys are not in here: the parent passes descriptors
(messages.Asset) so that root parses none of them.
"""

from typing import Annotated, Literal, get_args

from msgspec import Meta

from smtpd_ps.contract.values import (
    U16,
    U32,
    U63,
    Address,
    AgentSource,
    Line,
    Name,
    Path,
    ProgramKind,
    SrsSecrets,
    Value,
)
from smtpd_ps.contract.values import TlsUse as TlsUse  # settings.TlsUse and values.TlsUse are one

TlsOffer = Literal["none", "offer", "require", "implicit"]
AuthOffer = Literal["none", "optional", "require"]
ProxyUse = Literal["none", "any", "listed"]
Dhe = Literal["none", "legacy", "auto"]
ActionKind = Literal["maildir", "mbox", "lmtp", "relay", "expand-only", "forward-only", "mda"]
RouteShape = Literal["agent", "lmtp", "mx", "host"]
ConditionKind = Literal[
    "from-any", "from-local", "from-socket", "from-src", "from-rdns", "from-auth",
    "for-any", "for-local", "for-domain", "for-rcpt-to",
    "auth", "tag", "helo", "mail-from", "rcpt-to", "tls",
]  # fmt: skip
FilterPhase = Literal[
    "connect", "helo", "ehlo", "starttls", "auth", "mail-from", "rcpt-to", "data", "data-line", "rset", "quit", "noop",
    "commit",
]  # fmt: skip
FILTER_PHASES: tuple[FilterPhase, ...] = get_args(FilterPhase)  # a set of phases is the sum of 1 << index
FilterEvent = Literal[
    "link-connect", "link-disconnect", "link-greeting", "link-identify", "link-tls", "link-auth",
    "tx-reset", "tx-begin", "tx-mail", "tx-rcpt", "tx-envelope", "tx-data", "tx-commit", "tx-rollback",
    "protocol-client", "protocol-server", "filter-report", "filter-response", "timeout",
]  # fmt: skip
FILTER_EVENTS: tuple[FilterEvent, ...] = get_args(FilterEvent)  # and a set of events is of 1 << index
FilterCondition = Literal["fcrdns", "rdns", "src", "helo", "auth", "mail-from", "rcpt-to", "dnsbl"]
FilterDecision = Literal["bypass", "disconnect", "junk", "reject", "report", "rewrite"]
TlsVersion = Literal["TLSv1.2", "TLSv1.3"]
Seconds = Annotated[int, Meta(ge=0, le=10**9)]
# What a table is used for; pure/table_uses says what each use asks of it. Services of table(5), but that
# some services are told apart by the kind of table that they need.
TableUse = Literal[
    "alias", "virtual", "userinfo", "credentials", "relay-credentials",
    "domain", "netaddr", "mailaddr", "string", "user", "regex",
    "relayhosts", "relayhost", "source", "addrname", "mailaddrmap",
]  # fmt: skip


class TableSettings(Value, frozen=True):
    """A table. `source` "file" or "db" means that its bytes come as an Asset of the same name, "program"
    that it is asked of the table program of that name (messages.Program).
    """

    name: Name
    source: Literal["inline", "file", "db", "program"]
    kind: Literal["list", "map"]  # of an inline table; a file says itself
    entries: Annotated[tuple[tuple[Line, Line], ...], Meta(max_length=100_000)] = ()  # a list has "" values
    path: Path = ""  # of a file, for messages only
    uses: Annotated[tuple[TableUse, ...], Meta(max_length=16)] = ()  # by which its entries are checked


class PkiSettings(Value, frozen=True):
    """A certificate by its name in smtpd.conf; chain and key come as Assets."""

    name: Name
    cert_path: Path  # for messages only
    key_path: Path
    dhe: Dhe = "none"  # Diffie-Hellman over a finite field, for clients without elliptic curves


class ListenerSettings(Value, frozen=True):
    """One bound address. Its socket comes as a Listener message of the same index."""

    index: U16
    address: Name  # "127.0.0.1", "::1", or the path of the local socket
    port: U16
    local: bool = False  # the Unix socket for local submission
    hostname: Name = ""
    tag: Name = ""
    tls: TlsOffer = "none"
    pki: Annotated[tuple[Name, ...], Meta(max_length=32)] = ()
    auth: AuthOffer = "none"
    auth_table: Name = ""  # "" asks the system
    filter_phases: U32 = 0  # in which lookup has a filter of this listener to apply; sums of FILTER_PHASES
    verify: bool = False  # a client must show a certificate
    ca: Name = ""  # whose Asset holds the CAs that clients' certificates are checked against; "": the system's
    protocols: Annotated[tuple[TlsVersion, ...], Meta(max_length=2)] = ()  # none: all that smtpd_ps speaks
    ciphers: Line = ""  # "": those of SmtpSettings
    hostnames: bool = False  # lookup says with which name to greet (Greet)
    senders: bool = False  # lookup says who may send as whom (SenderQuery)
    masquerade: bool = False  # From shows the sender of the envelope
    mask_source: bool = False  # Received does not name the client
    received_auth: bool = False  # Received names the user
    dsn: bool = True
    proxy: ProxyUse = "none"  # a PROXY header comes first: from anybody, or from `proxies`
    proxies: Annotated[tuple[Name, ...], Meta(max_length=1024)] = ()  # networks
    filter_programs: bool = False  # some are programs, which say themselves what they want (FilterHooks)


class FilterSettings(Value, frozen=True):
    """One filter that lookup applies: a builtin one, or a chain of others (`members`)."""

    name: Name
    members: Annotated[tuple[Name, ...], Meta(max_length=256)] = ()
    phase: FilterPhase = "connect"
    condition: FilterCondition = "fcrdns"
    negated: bool = False
    table: Name = ""  # what the condition compares with, if anything
    regex: bool = False
    decision: FilterDecision = "bypass"
    text: Line = ""  # the reply, the report or the value of the decision
    program: Name = ""  # the proc that decides, in place of all that
    accept_on_failure: bool = False  # carry on where the program fails


class ListenerTables(Value, frozen=True):
    """What lookup knows of a listener; "" where it has no such table."""

    index: U16
    address: Name
    hostnames: Name = ""
    senders: Name = ""


class SmtpSettings(Value, frozen=True):
    """For smtp."""

    hostname: Name
    listeners: Annotated[tuple[ListenerSettings, ...], Meta(max_length=256)]
    pki: Annotated[tuple[PkiSettings, ...], Meta(max_length=64)]
    max_message_bytes: U63 = 36_700_160  # 35M
    max_mails: U32 = 100  # a session
    max_recipients: U32 = 1000  # a transaction
    max_errors: U32 = 25  # a session; ours
    max_auth_tries: U32 = 3  # a session; ours
    idle_secs: Seconds = 300
    max_sessions: U32 = 10_240
    max_sessions_per_source: U32 = 1024  # an address, an IPv6 network of 64 bits, or all of the local socket; ours
    ciphers: Line = "HIGH:!aNULL:!MD5"
    max_sessions_per_network: U32 = 2048  # 24 bits of IPv4, 48 of IPv6; ours
    max_temporary_errors: U32 = 2000  # a session, since its last message; ours
    max_idle_commands: U32 = 1000  # HELO, EHLO, RSET, NOOP and HELP of a session, since its last message; ours


class ConditionSettings(Value, frozen=True):
    """One condition of a match rule; `table` holds the values or patterns it compares with, if any."""

    kind: ConditionKind
    negated: bool = False
    table: Name = ""
    regex: bool = False


class RuleSettings(Value, frozen=True):
    """One match line. An empty action means reject. `from` and `for` are always there."""

    conditions: Annotated[tuple[ConditionSettings, ...], Meta(max_length=32)]
    action: Name
    line: U32  # in smtpd.conf, for logs
    path: Path = ""  # of the file, where it was included


class ActionSettings(Value, frozen=True):
    """One action, whole. Lookup uses alias, virtual, user; delivery the rest."""

    name: Name
    kind: ActionKind
    alias_table: Name = ""
    virtual_table: Name = ""
    userbase_table: Name = ""
    user: Name = ""  # deliver as this user
    ttl_secs: Seconds = 0  # 0: the queue's
    maildir_path: Path = ""  # with format specifiers; "" is ~/Maildir
    maildir_junk: bool = False
    lmtp_destination: Path = ""  # "host:port" or an absolute socket path
    lmtp_rcpt_to: bool = False
    relay_hosts: Annotated[tuple[Line, ...], Meta(max_length=64)] = ()  # relay URLs; empty: by MX
    relay_tls: TlsUse = "opportunistic"
    relay_pki: Name = ""  # client certificate
    relay_auth_table: Name = ""
    relay_helo: Name = ""
    relay_mail_from: Address = ""
    relay_host_table: Name = ""  # of relay URLs, a list in a file; in place of relay_hosts
    relay_ca: Name = ""  # whose certificates are trusted; "" is the system's
    relay_protocols: Annotated[tuple[TlsVersion, ...], Meta(max_length=2)] = ()  # none: all that smtpd_ps speaks
    relay_ciphers: Line = ""
    relay_src_table: Name = ""  # addresses to connect from, a list
    relay_helo_table: Name = ""  # from address to name
    relay_domain_table: Name = ""  # from destination domain to relay URL
    relay_backup: Name = ""  # relay to exchangers that are preferred to this one, only
    relay_backup_hosts: Annotated[tuple[Line, ...], Meta(max_length=64)] = ()  # URLs, in order, if the others fail
    relay_srs: bool = False
    mda_command: Line = ""  # with format specifiers
    wrapper: Line = ""  # the command that takes the place of the MDA's, which stands in it as %{mda}
    relay_filter: Name = ""  # whose programs lookup tells of the sessions

    @property
    def by_host(self) -> bool:
        """Whether a relay goes to hosts that smtpd.conf names, whatever the destination."""
        return bool(self.relay_hosts or self.relay_host_table)

    def runs_commands(self, source: AgentSource) -> bool:
        """Whether an agent of this action starts programs, or writes files that users name."""
        return source != "action" or self.kind == "mda" or bool(self.wrapper)


class LookupSettings(Value, frozen=True):
    """For lookup."""

    hostname: Name
    rules: Annotated[tuple[RuleSettings, ...], Meta(max_length=10_000)]
    actions: Annotated[tuple[ActionSettings, ...], Meta(max_length=4096)]
    tables: Annotated[tuple[TableSettings, ...], Meta(max_length=4096)]
    local_addresses: Annotated[tuple[Name, ...], Meta(max_length=4096)]  # of every interface
    local_names: Annotated[tuple[Name, ...], Meta(max_length=64)]  # localhost, host name
    resolver: Name = ""  # "address:port"; "": the Asset "resolv.conf"
    sub_address_delimiter: Annotated[str, Meta(min_length=1, max_length=1)] = "+"
    filters: Annotated[tuple[FilterSettings, ...], Meta(max_length=1024)] = ()  # members before their chains
    listener_filters: Annotated[tuple[tuple[U16, Name], ...], Meta(max_length=256)] = ()  # by listener's index
    srs: SrsSecrets | None = None  # to read SRS addresses of bounces
    own_exchangers: Annotated[tuple[Name, ...], Meta(max_length=4096)] = ()  # addresses at which port 25 is this host
    listeners: Annotated[tuple[ListenerTables, ...], Meta(max_length=256)] = ()  # those that have one
    procs: Annotated[tuple[Name, ...], Meta(max_length=256)] = ()  # filter programs
    admd: Name = ""  # what they call this place


class ActionSchedule(Value, frozen=True):
    """What the queue must know of an action: how to group and when to give up."""

    name: Name
    shape: RouteShape
    ttl_secs: Seconds = 0


class QueueSettings(Value, frozen=True):
    """For queue."""

    hostname: Name
    actions: Annotated[tuple[ActionSchedule, ...], Meta(max_length=4096)]
    ttl_secs: Seconds = 4 * 86400
    bounce_ttl_secs: Seconds = 7 * 86400
    retry_relay_secs: Seconds = 400
    retry_local_secs: Seconds = 10
    max_inflight: U32 = 5000
    warn_secs: Annotated[tuple[Seconds, ...], Meta(max_length=4)] = (4 * 3600,)
    compress: bool = False
    encrypt: bool = False  # with the key of QueueSetup


class MtaLimits(Value, frozen=True):
    """The limits of relaying, of all domains or of one (`mta limit`)."""

    domain: Name = ""  # in lower case; of a smarthost, its name
    family: Literal[0, 4, 6] = 0  # of addresses to connect to; 0 is both
    max_connections_per_host: U32 = 10
    max_connections_per_route: U32 = 5  # from a source to a host
    max_connections_per_source: U32 = 100
    max_connections_per_connector: U32 = 20  # from a source for a relay
    max_connections_per_relay: U32 = 100
    max_connections_per_domain: U32 = 100
    max_mails_per_connection: U32 = 100
    max_failures_per_connection: U32 = 25  # messages refused
    keepalive_secs: Seconds = 10
    max_mails_per_minute: U32 = 0  # 0: any number


class DeliverySettings(Value, frozen=True):
    """For delivery."""

    hostname: Name
    actions: Annotated[tuple[ActionSettings, ...], Meta(max_length=4096)]
    pki: Annotated[tuple[PkiSettings, ...], Meta(max_length=64)]
    max_agents: U32 = 50
    io_timeout_secs: Seconds = 300
    connect_timeout_secs: Seconds = 30
    agent_idle_secs: Seconds = 10
    mta: MtaLimits = MtaLimits()
    domain_limits: Annotated[tuple[MtaLimits, ...], Meta(max_length=10_000)] = ()  # in place of `mta` for theirs
    srs: SrsSecrets | None = None  # to make SRS addresses; without the backup key
    max_sessions_per_user: U32 = 7
    max_deferred: U32 = 100  # envelopes of a domain that are tried as soon as it takes mail again


class KeysSettings(Value, frozen=True):
    """For keys: the names under which it may be asked to sign."""

    pki: Annotated[tuple[PkiSettings, ...], Meta(max_length=64)]


class ControlSettings(Value, frozen=True):
    """For control: whose requests it takes."""

    allowed_uid: U32


class ProgramSettings(Value, frozen=True):
    """A filter or table program, for the parent, which starts it. Nobody else gets this.

    `words` are its argument vector, the first one the command: absolute, or looked for in
    installation.LIBEXEC. With `shell` the only word is a text for /bin/sh.
    """

    name: Name  # of the filter's `proc`, or of the table
    kind: ProgramKind
    words: Annotated[tuple[Line, ...], Meta(min_length=1, max_length=64)]
    shell: bool = False
    user: Name = ""  # "": the one of installation.ACCOUNTS for its kind
    group: Name = ""  # "": the user's
    chroot: Path = ""
    title: Name = ""  # what it sees as its own name; "": the command


class AgentSettings(Value, frozen=True):
    """For an agent: where this user's mail of one action goes.

    A "targets" agent is told a file or a command with each job: those of an alias for `source`
    "alias"; for "forward" they must stand in this user's own .forward.
    """

    user: Name
    home: Path
    action: Name
    kind: Literal["maildir", "mbox", "mda", "targets", "submit"]
    maildir_path: Path = ""
    hostname: Name = ""
    maildir_junk: bool = False
    source: AgentSource = "action"
    mda_command: Line = ""
    wrapper: Line = ""
    python: Path = ""  # the interpreter, where a wrapper is to run a store of ours
    sub_address_delimiter: Annotated[str, Meta(min_length=1, max_length=1)] = "+"
    command_limit_secs: Seconds = 300
