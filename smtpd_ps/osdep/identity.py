"""Becoming another user below another root directory, for good. The same on every system.

Runs in every child as it is confined, as root.
"""

import contextlib
import os
import time

from smtpd_ps.contract.messages import Common
from smtpd_ps.contract.policy import Policy
from smtpd_ps.osdep.errors import ConfineError


def check_target(common: Common) -> None:
    """Raises ConfineError when the set-up would leave the process root."""
    if common.privileged and not (common.uid and common.gid):
        raise ConfineError("refusing to run as root")


def enter_root(policy: Policy, common: Common) -> None:
    """Make the declared directory the root directory, and go there. Raises ConfineError, OSError."""
    if policy.root == "any":
        return
    root = common.root
    if not root:
        raise ConfineError("no root directory to enter")
    there = os.stat(root)
    if there.st_uid != 0 or there.st_mode & 0o022:
        raise ConfineError(f"{root} is not root's alone to write")
    os.chroot(root)
    os.chdir("/")
    here = os.stat("/")
    if (here.st_dev, here.st_ino) != (there.st_dev, there.st_ino):
        raise ConfineError(f"{root} did not become the root directory")


def become_user(common: Common) -> None:
    """Take on uid, gid and groups, real, effective and saved. Raises ConfineError, OSError."""
    os.setgroups(list(common.groups))
    os.setresgid(common.gid, common.gid, common.gid)
    os.setresuid(common.uid, common.uid, common.uid)
    if os.getresuid() != (common.uid,) * 3 or os.getresgid() != (common.gid,) * 3:
        raise ConfineError("the user did not change")
    if set(os.getgroups()) - {common.gid} != set(common.groups) - {common.gid}:
        raise ConfineError("the groups did not change")
    for regain in (os.setresuid, os.setresgid):
        with contextlib.suppress(PermissionError):
            regain(0, 0, 0)
            raise ConfineError("root could be regained")


def make_directories(paths: tuple[str, ...]) -> None:
    """A mailbox that is not there yet is made now, as the mail user; later only what is in it."""
    for path in paths:
        try:
            os.makedirs(path, 0o700, exist_ok=True)
        except OSError as error:
            raise ConfineError(f"{path}: {error.strerror}") from error


def load_time_zone() -> None:
    """Let the C library read its time zone while it can."""
    time.tzset()
    time.strftime("%z", time.localtime())
