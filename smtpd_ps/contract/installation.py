"""What an installation consists of: users, groups, directories with their owners and modes.

The one table that `smtpctl_ps setup` makes, `setup --check` and `audit` compare with, and the
daemon holds at its start. Used in the parent and the command-line tools; parses nothing.
"""

from dataclasses import dataclass
from typing import Literal

SPOOL = "/var/spool/smtpd_ps"
RUN = "/var/run/smtpd_ps"
ALIAS_USER = "_sps_alias"  # runs the commands and writes the files that alias tables name; owns nothing


@dataclass(frozen=True, slots=True)
class Account:
    """A system user with a group of the same name, no password, no shell and no home."""

    name: str
    comment: str


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory below the state. `owner` "" is root (without privileges: whoever runs it)."""

    where: Literal["base", "spool", "queue", "empty", "run", "offline"]
    owner: str
    mode: int
    why: str
    stays_empty: bool = False


@dataclass(frozen=True, slots=True)
class StatePaths:
    """Where everything that is written lies."""

    base: str  # what --state-dir named, "" for the system's places
    spool: str
    queue: str
    empty: str
    run: str
    control_socket: str
    submission_socket: str
    pid_file: str
    offline: str


ACCOUNTS: tuple[Account, ...] = (
    Account("_sps_keys", "smtpd_ps private keys"),
    Account("_sps_control", "smtpd_ps control socket"),
    Account("_sps_smtp", "smtpd_ps SMTP server"),
    Account("_sps_lookup", "smtpd_ps tables and DNS"),
    Account("_sps_queue", "smtpd_ps queue"),
    Account("_sps_delivery", "smtpd_ps relaying and LMTP"),
    Account(ALIAS_USER, "smtpd_ps alias commands"),
    Account("_sps_filter", "smtpd_ps filter programs"),
    Account("_sps_table", "smtpd_ps table programs"),
)

# Where a filter or table program without a leading slash is looked for, in this order. "{arch}" is
# Debian's name of the machine (x86_64-linux-gnu); a directory that has it is left out elsewhere.
LIBEXEC: tuple[str, ...] = (
    "/usr/local/libexec/smtpd",
    "/usr/local/libexec/opensmtpd",
    "/usr/libexec/smtpd",
    "/usr/libexec/opensmtpd",
    "/usr/lib/{arch}/opensmtpd",
    "/usr/lib/opensmtpd",
)

# In the order in which they are made.
DIRECTORIES: tuple[Directory, ...] = (
    Directory("base", "", 0o711, "holds an instance of its own; only with --state-dir"),
    Directory("spool", "", 0o711, "root directory of queue: root's, so that queue cannot replace what is in it"),
    Directory("queue", "_sps_queue", 0o700, "the database and large bodies"),
    Directory("empty", "", 0o755, "root directory of the other processes", stays_empty=True),
    Directory("run", "", 0o755, "sockets and the pid file"),
    # Anyone may put a file there; nobody sees others' files, and nobody but its owner removes one.
    Directory("offline", "", 0o1733, "what sendmail keeps while the daemon is down, each file its sender's"),
)


def paths(state_dir: str | None = None) -> StatePaths:
    """The places below `state_dir`, or the system's."""
    base = state_dir.rstrip("/") if state_dir else ""
    spool = f"{base}/spool" if base else SPOOL
    run = f"{base}/run" if base else RUN
    return StatePaths(
        base=base,
        spool=spool,
        queue=f"{spool}/queue",
        empty=f"{base}/empty" if base else f"{SPOOL}/empty",
        run=run,
        control_socket=f"{run}/control.sock",
        submission_socket=f"{run}/smtpd_ps.sock",
        pid_file=f"{run}/smtpd_ps.pid",
        offline=f"{spool}/offline",
    )


def directories(places: StatePaths) -> tuple[tuple[str, Directory], ...]:
    """Path and rule of every directory of this installation, parents first."""
    return tuple((path, rule) for rule in DIRECTORIES if (path := getattr(places, rule.where)))


def state_dir_of(spool: str) -> str | None:
    """The --state-dir whose spool this is; None for the system's."""
    return None if spool == SPOOL else spool.removesuffix("/spool")
