"""Room kept back for the day when the disk is full: even removing a message writes first.

Runs in queue. A file of RESERVE_BYTES lies beside the database. When a commit fails for lack of room,
the file is given up, and with its room the deliveries that are done can be written down, which frees
theirs; a body that is stored encrypted needs room to be delivered at all. It is made again when there is room.
"""

import errno
import os
from pathlib import Path

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
RESERVE_BYTES = 2 * 1024 * 1024


class Reserve:
    """The file. Nothing here raises: without a reserve the queue works as well, while there is room."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.kept = False

    def keep(self) -> None:
        """Take the room, unless it is kept already or not there."""
        if self.kept:
            return
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                _allocate(fd)
            finally:
                os.close(fd)
        except OSError:
            self._remove()
            return
        self.kept = True

    def release(self) -> bool:
        """Give the room back; whether there was any."""
        was_kept, self.kept = self.kept, False
        return was_kept and self._remove()

    def _remove(self) -> bool:
        try:
            os.unlink(self._path)
        except OSError:
            return False
        return True


def _allocate(fd: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, RESERVE_BYTES)
        return
    at = os.fstat(fd).st_size
    while at < RESERVE_BYTES:
        at += os.pwrite(fd, bytes(min(65_536, RESERVE_BYTES - at)), at)
