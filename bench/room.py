"""A mount name space for one server: its own users, resolver and fixed paths, none of them the machine's.

The mounts end with the last process in it, however that ends.
"""

import grp
import pwd
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

FIRST_ID = 50000  # between those that Debian gives out and those it reserves
MAILBOX_USER = "benchvm"

# Joins the control group before anything else runs, then mounts SOURCE on TARGET in pairs up to "--".
_ENTER = 'echo $$ >"$1"; shift; while [ "$1" != -- ]; do mount --bind "$1" "$2"; shift 2; done; shift; exec "$@"'


@dataclass(frozen=True, slots=True)
class Accounts:
    """User and group names to ids, and the files that say so."""

    uids: dict[str, int]
    gids: dict[str, int]
    passwd: str
    group: str


def with_accounts(passwd: str, group: str, users: Iterable[str], groups: Iterable[str] = ()) -> Accounts:
    """The texts of passwd(5) and group(5) with these users added, each with a group of its name.

    Names that are there already keep their ids.
    """
    uids = _ids(passwd)
    gids = _ids(group)
    users = tuple(users)
    free = (number for number in range(FIRST_ID, 65000) if number not in {*uids.values(), *gids.values()})
    for name in (*users, *groups):
        if name not in gids:
            gids[name] = next(free)
            group = f"{group.rstrip()}\n{name}:x:{gids[name]}:\n"
    for name in users:
        if name not in uids:
            uids[name] = gids[name] if gids[name] not in uids.values() else next(free)
            passwd = f"{passwd.rstrip()}\n{name}:x:{uids[name]}:{gids[name]}::/nonexistent:/usr/sbin/nologin\n"
    return Accounts(uids, gids, passwd, group)


def _ids(text: str) -> dict[str, int]:
    fields = (line.split(":") for line in text.splitlines())
    return {line[0]: int(line[2]) for line in fields if len(line) > 2 and line[2].isdigit()}


def bench_accounts(users: Iterable[str], groups: Iterable[str] = ()) -> Accounts:
    """This machine's users with those of the servers."""
    passwd = "".join(
        f"{u.pw_name}:x:{u.pw_uid}:{u.pw_gid}:{u.pw_gecos}:{u.pw_dir}:{u.pw_shell}\n" for u in pwd.getpwall()
    )
    group = "".join(f"{g.gr_name}:x:{g.gr_gid}:{','.join(g.gr_mem)}\n" for g in grp.getgrall())
    return with_accounts(passwd, group, (*users, MAILBOX_USER), groups)


def furnish(folder: Path, accounts: Accounts) -> list[tuple[Path, Path]]:
    """Write the files of a room; what to mount where.

    `lookup file` keeps libasr from asking the machine's name server for 127.0.0.1 at each connection;
    without a name server line glibc asks 127.0.0.1, if ever.
    """
    folder.mkdir(exist_ok=True)
    texts = {"passwd": accounts.passwd, "group": accounts.group, "resolv.conf": "lookup file\n"}
    mounts = []
    for name, text in texts.items():
        path = folder / name
        path.write_text(text)
        path.chmod(0o644)
        mounts.append((path, Path("/etc", name).resolve()))
    return mounts


def entering(procs: Path, mounts: Sequence[tuple[Path, Path]], command: Sequence[str]) -> list[str]:
    """The command that runs `command` in a new room, as a member of a control group (its cgroup.procs)."""
    pairs = [str(path) for pair in mounts for path in pair]
    return ["unshare", "--mount", "sh", "-ec", _ENTER, "room", str(procs), *pairs, "--", *command]


def joining(procs: Path, command: Sequence[str]) -> list[str]:
    """The command that runs `command` as a member of a control group, in no room."""
    return ["sh", "-ec", _ENTER, "room", str(procs), "--", *command]
