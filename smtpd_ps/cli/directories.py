"""Directories of an installation: what differs from the table, and making them so.

Runs in smtpctl_ps (setup) and at the daemon's start, as root or, in the unprivileged mode, as
whoever started it. No name below a directory that is not root's is followed.
"""

import os
import pwd
import stat
from dataclasses import dataclass

from smtpd_ps.contract.installation import Directory, directories, paths


@dataclass(frozen=True, slots=True)
class Wanted:
    """One directory with the ids of this host filled in."""

    path: str
    rule: Directory
    uid: int
    gid: int


def wanted(state_dir: str | None, owner: tuple[int, int] | None = None) -> list[Wanted]:
    """Every directory of the installation. Raises OSError where its owner does not exist.

    `owner` is the (uid, gid) that owns everything in the unprivileged mode.
    """
    out = []
    for path, rule in directories(paths(state_dir)):
        uid, gid = owner or (0, 0)
        if owner is None and rule.owner:
            try:
                entry = pwd.getpwnam(rule.owner)
            except KeyError:
                raise OSError(f"{path}: its owner {rule.owner} does not exist") from None
            uid, gid = entry.pw_uid, entry.pw_gid
        out.append(Wanted(path, rule, uid, gid))
    return out


def differences(directory: Wanted) -> list[str]:
    """What differs: texts without the path; "missing" alone when it is not there."""
    path, rule = directory.path, directory.rule
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return ["missing"]
    except PermissionError:
        return ["cannot be seen by this user"]
    if not stat.S_ISDIR(status.st_mode):
        return ["is a symbolic link" if stat.S_ISLNK(status.st_mode) else "is not a directory"]
    out = []
    if status.st_uid != directory.uid:
        out.append(f"owner is {owner_name(status.st_uid)}, {owner_name(directory.uid)} declared")
    if rule.owner and status.st_gid != directory.gid:
        out.append(f"group is {status.st_gid}, {directory.gid} declared")
    mode = stat.S_IMODE(status.st_mode)
    if mode != rule.mode and rule.where != "base":
        out.append(f"mode is {mode:04o}, {rule.mode:04o} declared")
    elif rule.where == "base" and mode & 0o022:
        out.append(f"mode is {mode:04o}: others may write to it")
    if rule.stays_empty and os.listdir(path):
        out.append("is not empty")
    return out


def owner_name(uid: int) -> str:
    """The user's name, or the number where there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def make(directory: Wanted) -> None:
    """Make it, or set its owner and mode. Raises OSError; what is not a directory is left alone."""
    try:
        os.mkdir(directory.path, 0o700)
        fresh = True
    except FileExistsError:
        fresh = False
    fd = os.open(directory.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if (status.st_uid, status.st_gid) != (directory.uid, directory.gid):
            os.fchown(fd, directory.uid, directory.gid)
        if fresh or directory.rule.where != "base":
            os.fchmod(fd, directory.rule.mode)
        elif stat.S_IMODE(status.st_mode) & 0o022:
            os.fchmod(fd, stat.S_IMODE(status.st_mode) & ~0o022)
    finally:
        os.close(fd)
