"""A file that an alias or a .forward names: a message is appended to it as to an mbox.

Runs in agents that run commands, as the mail user or as the alias user.
"""

import os
import stat

from smtpd_ps.agents.bodies import Item
from smtpd_ps.agents.maildir import sync_folder
from smtpd_ps.agents.mbox import DELIVERED, MailboxGone, Mbox
from smtpd_ps.contract.values import Status
from smtpd_ps.pure.mda_result import Verdict

NOWHERE = "/dev/null"
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def append(path: str, item: Item) -> Verdict:
    """Append one message, synced. A file that is not there is made, mode 0600."""
    if path == NOWHERE:
        return Verdict(Status.OK, DELIVERED)
    try:
        fd = _open(path)
    except OSError as error:
        return Verdict(Status.TEMPFAIL, f"{path}: {os.strerror(error.errno or 0)}")
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink != 1 or status.st_uid not in (0, os.getuid()):
            return Verdict(Status.TEMPFAIL, f"{path} is not a plain file of its own with one name")
        (result,) = Mbox(fd).store([item])
    except MailboxGone:
        return Verdict(Status.TEMPFAIL, f"{path} was replaced")
    finally:
        os.close(fd)
    text = result.text if result.status == Status.OK else f"{path}: {result.text}"
    return Verdict(Status(result.status), text)


def _open(path: str) -> int:
    try:
        return os.open(path, _FLAGS)
    except FileNotFoundError:
        fd = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        sync_folder(path.rpartition("/")[0] or "/")
    except OSError:
        os.close(fd)
        raise
    return fd
