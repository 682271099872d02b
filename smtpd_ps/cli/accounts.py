"""Users and groups of an installation: what differs from the table, and the commands that make them.

Runs in smtpctl_ps as root and, for the check alone, at the daemon's start. Commands are argument
vectors made from names of our own table.
"""

import grp
import os
import pwd
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from smtpd_ps.contract.installation import ACCOUNTS, Account

Run = Callable[[Sequence[str]], None]
_NO_LOGIN = ("/usr/sbin/nologin", "/sbin/nologin", "/usr/bin/nologin", "/bin/false", "/usr/bin/false")


class SetupError(Exception):
    """Something could not be made. One line."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is wrong with an account, and the commands that put it right (none: by hand)."""

    text: str
    commands: tuple[tuple[str, ...], ...] = ()


def missing_users() -> list[str]:
    """Names of the users that `smtpctl_ps setup` has still to make."""
    return [account.name for account in ACCOUNTS if _user(account.name) is None]


def plans(system: str = sys.platform) -> list[Plan]:
    """What differs from the table; empty when all accounts are as they should be."""
    out: list[Plan] = []
    for account in ACCOUNTS:
        user, group = _user(account.name), _group(account.name)
        if group is None:
            out.append(Plan(f"group {account.name}: missing", (group_command(account, system),)))
        if user is None:
            out.append(Plan(f"user {account.name}: missing", (user_command(account, system),)))
            continue
        out += [Plan(f"user {account.name}: {text}") for text in _faults(user, group)]
    return out


def _faults(user: pwd.struct_passwd, group: grp.struct_group | None) -> list[str]:
    out = []
    if user.pw_uid == 0:
        out.append("has uid 0")
    sharing = sorted(other.pw_name for other in pwd.getpwall() if other.pw_uid == user.pw_uid)
    if len(sharing) > 1:
        out.append(f"shares its uid: {', '.join(sharing)}")
    if group is not None and user.pw_gid != group.gr_gid:
        out.append(f"primary group is {user.pw_gid}, {group.gr_gid} declared")
    if user.pw_shell not in _NO_LOGIN:
        out.append(f"shell is {user.pw_shell!r}, a nologin shell declared")
    others = sorted(g.gr_name for g in grp.getgrall() if user.pw_name in g.gr_mem and g.gr_name != user.pw_name)
    if others:
        out.append(f"is a member of {', '.join(others)}")
    return out


def group_command(account: Account, system: str) -> tuple[str, ...]:
    """The command that makes the account's group."""
    if system.startswith("freebsd"):
        return ("pw", "groupadd", "-n", account.name)
    if system.startswith("openbsd"):
        return ("groupadd", account.name)
    return ("groupadd", "--system", account.name)


def user_command(account: Account, system: str) -> tuple[str, ...]:
    """The command that makes the user: own group, no password, no shell, no home."""
    name, comment = account.name, account.comment
    if system.startswith("freebsd"):
        return ("pw", "useradd", "-n", name, "-g", name, "-c", comment, "-d", "/nonexistent",
                "-s", "/usr/sbin/nologin", "-h", "-")  # fmt: skip
    if system.startswith("openbsd"):
        return ("useradd", "-g", name, "-c", comment, "-d", "/var/empty", "-s", "/sbin/nologin",
                "-L", "daemon", "-r", "500..999", name)  # fmt: skip
    shell = next((path for path in _NO_LOGIN if os.path.exists(path)), _NO_LOGIN[0])
    return ("useradd", "--system", "--gid", name, "--comment", comment, "--home-dir", "/nonexistent",
            "--no-create-home", "--shell", shell, name)  # fmt: skip


def run_command(argv: Sequence[str]) -> None:
    """Run one of the commands above with a fixed path. Raises SetupError with what it said."""
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    try:
        done = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False)  # noqa: S603
    except FileNotFoundError:
        raise SetupError(f"{argv[0]}: not found; make the user by hand: {' '.join(argv)}") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise SetupError(f"{' '.join(argv)}: {said[0] if said else f'exit status {done.returncode}'}")


def _user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _group(name: str) -> grp.struct_group | None:
    try:
        return grp.getgrnam(name)
    except KeyError:
        return None
