"""Keeping a message in the offline folder, for the daemon to take when it runs.

Runs in sendmail, as whoever calls it. The folder is root's and sticky: nobody sees the files of
others, and nobody but its owner (or root) can rename or remove one.
"""

import contextlib
import os
from collections.abc import Iterable

from smtpd_ps.pure.offline_mail import Envelope, format_head

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def keep(folder: str, envelope: Envelope, body: Iterable[bytes]) -> str:
    """Store a message for good; its file's name. Raises OSError, OfflineError, having left nothing.

    It is written under a name that is not looked at, synced, and then renamed. The folder itself cannot
    be opened for syncing; the second fsync makes file systems with a journal write the new name down.
    """
    name = os.urandom(16).hex()
    head = format_head(name, envelope)
    draft, final = f"{folder}/.{name}", f"{folder}/{name}"
    fd = os.open(draft, _NEW, 0o600)
    at = draft
    try:
        os.fchmod(fd, 0o600)  # whatever the umask was
        with open(fd, "wb", closefd=False) as file:
            file.write(head)
            for piece in body:
                file.write(piece)
        os.fsync(fd)
        os.rename(draft, final)
        at = final
        os.fsync(fd)
    except BaseException:  # an interrupt too
        with contextlib.suppress(OSError):
            os.unlink(at)
        raise
    finally:
        os.close(fd)
    return name
