"""What smtpd.conf says, parsed and checked: the nouns of the configuration.

Runs in the parent and in `smtpd_ps -n`. Everything is immutable; `compile` makes the slices of
the processes from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from smtpd_ps.contract.settings import (
    AuthOffer,
    ConditionKind,
    Dhe,
    FilterCondition,
    FilterDecision,
    FilterPhase,
    MtaLimits,
    TableUse,
    TlsOffer,
    TlsUse,
    TlsVersion,
)


@dataclass(frozen=True, slots=True)
class Where:
    """A place in a file; lines and columns (characters) count from 1, 0 means the file or line as a whole."""

    path: str
    line: int
    column: int = 0


@dataclass(frozen=True, slots=True)
class Problem:
    """An error or a warning, with its place."""

    path: str
    line: int
    text: str
    warning: bool = False
    column: int = 0  # 0 where the line as a whole is meant

    def __str__(self) -> str:
        """`file:line:column: message` on one printable line, the numbers where they are known."""
        place = f"{self.path}:{self.line}" if self.line else self.path
        if self.column:
            place = f"{place}:{self.column}"
        whole = f"{place}: warning: {self.text}" if self.warning else f"{place}: {self.text}"
        return "".join(c if c.isprintable() else c.encode("unicode_escape", "replace").decode() for c in whole)


class ConfigurationError(Exception):
    """The configuration cannot be used. `problems` holds every error found, and the warnings."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


TableKind = Literal["list", "map", "file", "db", "getpwnam", "program"]


@dataclass(frozen=True, slots=True)
class Table:
    """A table. A file says itself, when lookup reads it, whether it is a list or a map; so does a database."""

    name: str
    kind: TableKind
    entries: tuple[tuple[str, str], ...]  # inline; a list has "" values
    path: str  # of a file or database
    where: Where
    source: str = ""  # of a program: as it is written
    words: tuple[str, ...] = ()  # and its command (contract.settings.ProgramSettings)
    shell: bool = False


@dataclass(frozen=True, slots=True)
class Pki:
    """A certificate chain and its key. The name is in lower case; "*" serves any name."""

    name: str
    cert_path: str
    key_path: str
    where: Where
    dhe: Dhe = "none"


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """A bundle of trusted certificates."""

    name: str
    cert_path: str
    where: Where


@dataclass(frozen=True, slots=True)
class Proc:
    """`proc`, or the program of `filter ... proc-exec`: a command, and whom it runs as ("": the default)."""

    name: str
    command: str
    user: str
    group: str
    chroot: str
    where: Where
    exec: bool = False  # of proc-exec; the filter has the same name


@dataclass(frozen=True, slots=True)
class Builtin:
    """`filter N phase P match ...`: one condition, one decision and its text, if it has one."""

    phase: FilterPhase
    condition: FilterCondition
    negated: bool
    table: str
    regex: bool
    decision: FilterDecision
    text: str


@dataclass(frozen=True, slots=True)
class Chain:
    """Filters to apply one after the other."""

    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Program:
    """`filter N proc P`, `filter N proc-exec`: the name of the Proc."""

    proc: str
    accept_on_failure: bool = False


@dataclass(frozen=True, slots=True)
class Filter:
    """One filter. The name of a chain that a listener has in place starts with "<"."""

    name: str
    body: Builtin | Chain | Program
    where: Where


@dataclass(frozen=True, slots=True)
class Listener:
    """One `listen on`, with the addresses that its interface, group or name stands for."""

    target: str  # as written
    addresses: tuple[str, ...]
    family: int  # 4 or 6, 0 for both
    port: int
    tls: TlsOffer
    pki: tuple[str, ...]
    auth: AuthOffer
    auth_table: str  # "" asks the system
    hostname: str
    tag: str
    where: Where
    filter: str = ""
    verify: bool = False
    ca: str = ""
    protocols: tuple[TlsVersion, ...] = ()
    ciphers: str = ""
    hostnames: str = ""  # tables, "" for none
    senders: str = ""
    masquerade: bool = False
    mask_source: bool = False
    received_auth: bool = False
    no_dsn: bool = False
    proxy: bool = False
    proxies: str = ""  # an inline table; without one anybody may send a PROXY header


@dataclass(frozen=True, slots=True)
class SocketListener:
    """`listen on socket`; there always is one."""

    tag: str
    where: Where
    filter: str = ""
    mask_source: bool = False
    no_dsn: bool = False


@dataclass(frozen=True, slots=True)
class Maildir:
    """Deliver to a Maildir: an absolute path or one below ~/, specifiers in it; "" is ~/Maildir."""

    path: str
    junk: bool = False  # what a filter calls junk goes into its .Junk


@dataclass(frozen=True, slots=True)
class Mbox:
    """Deliver to the system mailbox."""


@dataclass(frozen=True, slots=True)
class Lmtp:
    """Deliver over LMTP to "host:port", "[address]:port" or an absolute socket path."""

    destination: str
    rcpt_to: bool  # send the address after expansion, not the user's name


@dataclass(frozen=True, slots=True)
class Mda:
    """Deliver by a command, specifiers in it, that /bin/sh runs as the recipient."""

    command: str


@dataclass(frozen=True, slots=True)
class Relay:
    """Relay by MX, or to hosts (relay URLs).

    `tls` is the option: require-verify for `tls`, require for `tls no-verify`, else opportunistic.
    What the protocol of a URL asks for comes on top.
    """

    hosts: tuple[str, ...] = ()
    tls: TlsUse = "opportunistic"
    pki: str = ""
    auth_table: str = ""
    helo: str = ""
    mail_from: str = ""  # an address, or "@domain"
    host_table: str = ""  # a table in a file, in place of `hosts`
    ca: str = ""
    protocols: tuple[TlsVersion, ...] = ()
    ciphers: str = ""
    src_table: str = ""
    helo_table: str = ""
    domain_table: str = ""
    backup: str = ""  # the exchanger that this host is
    backup_hosts: tuple[str, ...] = ()  # relay URLs, tried in order when `hosts` fail
    srs: bool = False
    filter: str = ""  # its programs are told of the sessions


@dataclass(frozen=True, slots=True)
class ExpandOnly:
    """Deliver to nobody but to what an alias, a virtual table or a .forward names."""


@dataclass(frozen=True, slots=True)
class ForwardOnly:
    """Send on what an alias, a virtual table or a .forward sends elsewhere, and nothing else."""


Method = Maildir | Mbox | Lmtp | Mda | Relay | ExpandOnly | ForwardOnly


@dataclass(frozen=True, slots=True)
class Action:
    """One action; the names of tables are "" where there is none."""

    name: str
    method: Method
    alias_table: str
    virtual_table: str
    user: str
    ttl_secs: int  # 0: the queue's
    where: Where
    userbase_table: str = ""
    wrapper: str = ""  # the name of one


@dataclass(frozen=True, slots=True)
class Wrapper:
    """`mda wrapper`: a command that takes the place of an action's, which is %{mda} in it."""

    name: str
    command: str
    where: Where


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of a rule."""

    kind: ConditionKind
    negated: bool = False
    table: str = ""
    regex: bool = False  # the table holds patterns


@dataclass(frozen=True, slots=True)
class Rule:
    """One `match`. The defaults for `from` and `for` are filled in; an empty action is reject."""

    conditions: tuple[Condition, ...]
    action: str
    where: Where


@dataclass(frozen=True, slots=True)
class Options:
    """The global settings with their defaults (smtpd.conf(5), QUIRKS "Limits and timers")."""

    max_mails: int = 100
    max_recipients: int = 1000
    max_message_bytes: int = 36_700_160
    sub_address_delimiter: str = "+"
    ciphers: str = "HIGH:!aNULL:!MD5"
    queue_ttl_secs: int = 4 * 86400
    warn_secs: tuple[int, ...] = (4 * 3600,)
    max_inflight: int = 5000
    smtp_processes: int = 1
    delivery_processes: int = 1
    max_connections_per_host: int = 10
    max_connections_per_route: int = 5
    max_connections_per_source: int = 100
    max_connections_per_connector: int = 20
    max_connections_per_relay: int = 100
    max_connections_per_domain: int = 100
    max_mails_per_connection: int = 100
    max_failures_per_connection: int = 25
    keepalive_secs: int = 10
    max_mails_per_minute: int = 0
    max_agents: int = 50
    queue_compression: bool = False
    # The key; "" asks for it at the start, "stdin" reads it there; None encrypts nothing.
    queue_encryption: str | None = field(default=None, repr=False)
    srs_key: str = field(default="", repr=False)  # "": no SRS
    srs_backup_key: str = field(default="", repr=False)
    srs_ttl_secs: int = 4 * 86400
    max_sessions_per_user: int = 7
    max_deferred: int = 100
    family: Literal[0, 4, 6] = 0  # of addresses to relay to
    domain_limits: tuple[MtaLimits, ...] = ()  # mta limit for domain

    def mta_limits(self) -> MtaLimits:
        """Those of relaying, for all domains without their own."""
        return MtaLimits(**{name: getattr(self, name) for name in MtaLimits.__struct_fields__ if name != "domain"})


@dataclass(frozen=True, slots=True)
class Configuration:
    """A whole configuration without errors."""

    path: str
    hostname: str
    tables: Mapping[str, Table]
    pki: Mapping[str, Pki]
    authorities: Mapping[str, CertificateAuthority]
    listeners: tuple[Listener, ...]
    socket: SocketListener
    actions: Mapping[str, Action]
    rules: tuple[Rule, ...]
    options: Options
    interface_addresses: tuple[str, ...]
    warnings: tuple[Problem, ...]
    unused_macros: tuple[Problem, ...]  # OpenSMTPD tells of these with -v only
    table_uses: Mapping[str, tuple[TableUse, ...]]  # of the tables that lookup serves, in the order of first use
    filters: Mapping[str, Filter]  # members before the chains they are in
    procs: Mapping[str, Proc]
    admd: str  # as filters know this place; "": the host's name
    wrappers: Mapping[str, Wrapper]
