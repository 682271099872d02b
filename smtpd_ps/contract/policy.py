"""What the kernel lets each process do, declared once.

The child applies its policy (osdep.confine) and `smtpctl_ps audit` checks the live processes
against it (pure/audit). Every grant has a line of why. Loaded in every process; parses nothing.
To add a promise: add the line here with its reason, and the test of tests/osdep that uses it.
"""

from dataclasses import dataclass
from typing import Literal

from smtpd_ps.contract.syscalls import GROUPS, Call
from smtpd_ps.contract.values import Process

Root = Literal["any", "empty", "spool"]  # which directory of contract/installation it is chrooted to
Access = Literal["read", "write"]
Tcp = Literal["connect", "bind"]
Scope = Literal["abstract-unix", "signal"]


@dataclass(frozen=True, slots=True)
class Grant:
    """Something that is granted, by name, and why."""

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class PathGrant:
    """Files it may use below `path`: `{root}` and `{writable}` stand for Common's fields."""

    path: str
    access: Access
    why: str


@dataclass(frozen=True, slots=True)
class Limit:
    """A resource limit, soft and hard (never more than what the daemon was started with)."""

    resource: Literal["core", "nofile"]
    value: int
    why: str


@dataclass(frozen=True, slots=True)
class Capsicum:
    """Whether the process enters capability mode on FreeBSD, and why or why not."""

    enter: bool
    why: str


@dataclass(frozen=True, slots=True)
class Policy:
    """The sandbox of one process."""

    process: Process
    user: str  # "" is the mail user of an agent
    root: Root
    confined: bool  # False: declared for audit only (the parent)
    descriptors: tuple[Grant, ...]  # kinds it may hold, as pure/audit names them
    limits: tuple[Limit, ...] = ()
    syscalls: tuple[Grant, ...] = ()  # groups of contract/syscalls
    paths: tuple[PathGrant, ...] = ()  # Landlock, unveil; none means no file at all
    tcp: tuple[Grant, ...] = ()  # Landlock on TCP ports
    promises: tuple[Grant, ...] = ()  # pledge(2)
    capsicum: Capsicum = Capsicum(False, "it is not confined")
    # Groups of calls that are refused. Where there are any, everything else is allowed, any file and port too:
    # the user's rights are the bound.
    refuses: tuple[Grant, ...] = ()

    @property
    def by_user(self) -> bool:
        """Whether its user's rights bound it, less what `refuses` takes away."""
        return bool(self.refuses)

    @property
    def threads(self) -> bool:
        """Whether it may start threads."""
        return any(grant.name == "threads" for grant in self.syscalls)

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of descriptors it may hold."""
        return frozenset(grant.name for grant in self.descriptors)

    def calls(self) -> dict[str, Call]:
        """System calls by name; of a call in several groups the later group's conditions hold."""
        named = (*self.syscalls, *self.refuses)
        return {call.name: call for grant in named for call in GROUPS[grant.name].all_calls()}


_NO_CORE = Limit("core", 0, "a core file would hold other people's mail, passwords or keys")


def _files(value: int, why: str) -> tuple[Limit, ...]:
    return (_NO_CORE, Limit("nofile", value, why))


_SYSCALLS = (
    Grant("run", "a Python process"),
    Grant("descriptors", "its channels and standard error"),
    Grant("events", "the loop"),
    Grant("channels", "its channels"),
)
_NO_FILES = Grant("no-files", "it needs no file by name; it is told so instead of killed")
_DESCRIPTORS = (
    Grant("stdio", "/dev/null, or where standard error went in the foreground"),
    Grant("channel", "socketpairs to the parent and to the processes it has routes to"),
    Grant("log", "the syslog socket, connected before confinement"),
    Grant("epoll", "the loop (a kqueue on BSD)"),
)
_STDIO = Grant("stdio", "memory, time and descriptors it holds")

_PARENT = Policy(
    Process.PARENT,
    user="root",
    root="any",
    confined=False,
    descriptors=(
        *_DESCRIPTORS,
        Grant("pipe", "signals wake its loop through one; programs that start, and lookup, get ends of others"),
        Grant("file", "the pid file, files it opens for a child that is starting, and included ones for lookup"),
        Grant("directory", "the offline folder, while it looks through it"),
        Grant("body-read", "a message that sendmail kept, opened as its owner, on the way to an agent"),
        Grant("tcp-listener", "kept to hand to the next set of children"),
        Grant("unix-listener", "the control and submission sockets, to hand to the next set of children"),
    ),
    promises=(
        _STDIO,
        Grant("rpath", "configuration, certificates, tables: opened and passed, not parsed"),
        Grant("wpath", "pid file and mailboxes opened for agents"),
        Grant("cpath", "pid file and control socket, made and removed"),
        Grant("fattr", "mode of the control socket"),
        Grant("getpw", "mail users by name"),
        Grant("sendfd", "listeners, assets, channels"),
        Grant("proc", "starts and signals children"),
        Grant("exec", "starts children"),
        Grant("id", "a child becomes its user"),
        Grant("inet", "binds the listeners"),
        Grant("unix", "control socket, LMTP sockets"),
        Grant("chown", "owner of a mailbox that it makes"),
    ),
)

_KEYS = Policy(
    Process.KEYS,
    user="_sps_keys",
    root="empty",
    confined=True,
    descriptors=_DESCRIPTORS,
    limits=_files(64, "a few channels and nothing else"),
    syscalls=(*_SYSCALLS, _NO_FILES),
    promises=(_STDIO,),
    capsicum=Capsicum(True, "it only reads and writes descriptors that it holds already"),
)

_CONTROL = Policy(
    Process.CONTROL,
    user="_sps_control",
    root="empty",
    confined=True,
    descriptors=(
        *_DESCRIPTORS,
        Grant("unix-listener", "the control socket, bound by the parent"),
        Grant("unix-client", "operators' connections"),
    ),
    limits=_files(256, "a bounded number of operators at a time"),
    syscalls=(*_SYSCALLS, _NO_FILES, Grant("accept", "operators connect")),
    promises=(
        _STDIO,
        Grant("unix", "accept on the control socket"),
        Grant("recvfd", "the control socket, and channels to a new generation, come after confinement"),
    ),
    capsicum=Capsicum(True, "accept and descriptor passing work in capability mode"),
)

_SMTP = Policy(
    Process.SMTP,
    user="_sps_smtp",
    root="empty",
    confined=True,
    descriptors=(
        *_DESCRIPTORS,
        Grant("tcp-listener", "bound by the parent"),
        Grant("tcp", "clients' connections"),
        Grant("unix-listener", "local submission, bound by the parent"),
        Grant("unix-client", "local submitters"),
        Grant("body-write", "spool files for large bodies, write-only, handed out by queue"),
    ),
    limits=_files(16_640, "10,240 sessions, 6,144 spool files among them, and the listeners"),
    syscalls=(*_SYSCALLS, _NO_FILES, Grant("accept", "clients connect; it cannot connect to anyone itself")),
    promises=(
        _STDIO,
        Grant("inet", "accept clients"),
        Grant("unix", "accept local submitters"),
        Grant("recvfd", "listeners after confinement, and spool files from queue"),
    ),
    capsicum=Capsicum(True, "it accepts on listeners that it was given and never connects"),
)

_LOOKUP = Policy(
    Process.LOOKUP,
    user="_sps_lookup",
    root="empty",
    confined=True,
    descriptors=(
        *_DESCRIPTORS,
        Grant("udp", "DNS queries"),
        Grant("tcp", "DNS answers that do not fit into UDP"),
        Grant("table", "databases, and a file that is read again for that moment; read-only, opened by the parent"),
        Grant("pipe", "threads wake the loop; made by the parent: to filter and table programs, with a .forward in it"),
        Grant("eventfd", "threads wake the loop"),
    ),
    limits=_files(2048, "a socket for each outstanding DNS query, three pipes for each program"),
    syscalls=(
        *_SYSCALLS,
        _NO_FILES,
        Grant("connect", "asks name servers"),
        Grant("databases", "entries of tables that makemap made"),
        Grant("threads", "password hashes and blocking resolvers stay off the loop"),
    ),
    tcp=(Grant("connect", "name servers over TCP"),),
    promises=(
        _STDIO,
        Grant("inet", "asks name servers"),
        Grant("recvfd", "tables read again, databases made anew, included files, pipes of programs and .forwards"),
    ),
    capsicum=Capsicum(False, "capability mode refuses connect and bind to addresses, which DNS needs"),
)

_QUEUE = Policy(
    Process.QUEUE,
    user="_sps_queue",
    root="spool",
    confined=True,
    descriptors=(
        *_DESCRIPTORS,
        Grant("spool", "the database and bodies"),
        Grant("pipe", "threads wake the loop"),
        Grant("eventfd", "threads wake the loop"),
    ),
    limits=_files(16_640, "spool files of all sessions that receive large bodies"),
    syscalls=(
        *_SYSCALLS,
        Grant("files", "the spool"),
        Grant("threads", "syncs do not stop the loop"),
    ),
    paths=(PathGrant("{root}/queue", "write", "the spool, and nothing beside it"),),
    promises=(
        _STDIO,
        Grant("rpath", "reads the spool"),
        Grant("wpath", "writes the spool"),
        Grant("cpath", "makes and removes bodies and the database's files"),
        Grant("fattr", "SQLite sets the mode of its files"),
        Grant("flock", "SQLite locks its files"),
        Grant("sendfd", "hands spool files to smtp and delivery"),
        Grant("recvfd", "channels to a new generation of smtp, lookup and delivery"),
    ),
    capsicum=Capsicum(False, "SQLite opens its files by path, which capability mode refuses"),
)

_DELIVERY = Policy(
    Process.DELIVERY,
    user="_sps_delivery",
    root="empty",
    confined=True,
    descriptors=(
        *_DESCRIPTORS,
        Grant("tcp", "remote servers"),
        Grant("unix-peer", "LMTP servers, connected by the parent"),
        Grant("body-read", "large bodies, read-only, from queue"),
    ),
    limits=_files(8192, "connections kept to many hosts, and a body each"),
    syscalls=(
        *_SYSCALLS,
        _NO_FILES,
        Grant("connect", "connects to remote servers"),
        Grant("bodies", "large bodies"),
    ),
    tcp=(Grant("connect", "remote servers"),),
    promises=(
        _STDIO,
        Grant("inet", "connects to remote servers"),
        Grant("recvfd", "bodies, agents' channels, LMTP sockets"),
        Grant("sendfd", "passes a body on to an agent"),
    ),
    capsicum=Capsicum(False, "capability mode refuses connect to addresses, which is all it does"),
)

_AGENT = Policy(
    Process.AGENT,
    user="",
    root="any",
    confined=True,
    descriptors=(
        *_DESCRIPTORS,
        Grant("file", "this user's mailbox"),
        Grant("directory", "this user's Maildir, to sync it"),
        Grant("body-read", "a large body, read-only, from delivery"),
        Grant("pipe", "threads wake the loop"),
        Grant("eventfd", "threads wake the loop"),
    ),
    limits=_files(64, "one delivery at a time, or a few"),
    syscalls=(
        *_SYSCALLS,
        Grant("files", "the mailbox"),
        Grant("threads", "syncs run side by side"),
    ),
    paths=(PathGrant("{writable}", "write", "this user's mailbox, as the parent's configuration names it"),),
    promises=(
        _STDIO,
        Grant("rpath", "looks at the mailbox"),
        Grant("wpath", "writes the mailbox"),
        Grant("cpath", "makes, links and removes files of the Maildir"),
        Grant("fattr", "mode and times of what it delivers"),
        Grant("flock", "locks an mbox"),
        Grant("recvfd", "large bodies"),
    ),
    capsicum=Capsicum(False, "a Maildir is used by path, and the mail user's rights bound it already"),
)

RUNNER = Policy(
    Process.AGENT,
    user="",
    root="any",
    confined=True,
    descriptors=(
        *_DESCRIPTORS,
        Grant("file", "the file that an alias or a .forward names; a large message that a command is given"),
        Grant("memory-file", "a small message that a command is given"),
        Grant("directory", "where a new file is, to sync it"),
        Grant("body-read", "a large body, read-only, from delivery"),
        Grant("pipe", "commands' output; signals wake the loop through another"),
    ),
    limits=_files(1024, "seven commands at a time, and what a command itself opens: it inherits this"),
    promises=(
        _STDIO,
        Grant("rpath", "the user's .forward"),
        Grant("wpath", "files that an alias or the user's .forward names"),
        Grant("cpath", "makes such a file, and one for a large message"),
        Grant("fattr", "mode of such a file"),
        Grant("flock", "locks such a file"),
        Grant("recvfd", "large bodies"),
        Grant("proc", "starts commands, and ends those that take too long"),
        Grant("exec", "starts commands; those have no promises of ours"),
    ),
    capsicum=Capsicum(False, "commands are arbitrary programs, which capability mode would break"),
    refuses=(
        Grant("others' memory", "no command reads or changes another process, were it its own user's"),
        Grant("system", "no delivery changes the system, whatever set-user-id program it may find"),
        Grant("new kernel surface", "new namespaces and kernel programs are where users become root"),
    ),
)  # fmt: skip

SUBMITTER = Policy(
    Process.AGENT,
    user="",
    root="any",
    confined=True,
    descriptors=(
        *_DESCRIPTORS,
        Grant("body-read", "the message that sendmail kept, read-only, opened as its owner"),
        Grant("unix-peer", "smtp's local socket, connected by the parent"),
    ),
    limits=_files(32, "one message and one connection"),
    syscalls=(*_SYSCALLS, _NO_FILES, Grant("bodies", "the message")),
    promises=(_STDIO,),
    capsicum=Capsicum(True, "it only reads and writes descriptors that it holds already"),
)

# Of each process; the agents that run commands have RUNNER, and those that submit kept mail SUBMITTER.
POLICIES: dict[Process, Policy] = {
    policy.process: policy for policy in (_PARENT, _KEYS, _CONTROL, _SMTP, _LOOKUP, _QUEUE, _DELIVERY, _AGENT)
}


def policy_of(process: Process, commands: bool = False, submits: bool = False) -> Policy:
    """The policy of a process; an agent that runs `commands`, or `submits` kept mail, has one of its own."""
    if process is not Process.AGENT:
        return POLICIES[process]
    return RUNNER if commands else SUBMITTER if submits else POLICIES[process]


# No confined process (but RUNNER) reaches others past its channels (Landlock scopes; Linux 6.12).
SCOPES: tuple[Grant, ...] = (
    Grant("abstract-unix", "abstract Unix sockets have no file permissions that could refuse"),
    Grant("signal", "not even its own user's other processes"),
)
