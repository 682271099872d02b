"""Room for the write-ahead log, written out before it is needed.

Runs in queue, at the start. The sync of a log that grows waits for the file system's own journal as well; that
of one which is written over does not, and takes two thirds of the time. SQLite begins the log anew after each
checkpoint and keeps the file, so this is for the first round alone. Zeros are no frames of a log for it.
"""

import os
from pathlib import Path

ROOM_BYTES = 16 * 1024 * 1024
SPARE = 16  # times as much has to be free
_CHUNK = bytes(256 * 1024)


def lay_out(log: Path) -> bool:
    """Lengthen an open database's log to ROOM_BYTES. False where room is short: it works without as well."""
    try:
        fd = os.open(log, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    begin_bytes = at = os.fstat(fd).st_size
    try:
        disk = os.fstatvfs(fd)
        if disk.f_bavail * disk.f_frsize < SPARE * ROOM_BYTES:
            return False
        while at < ROOM_BYTES:
            at += os.pwrite(fd, _CHUNK[: ROOM_BYTES - at], at)
        if at > begin_bytes:
            os.fsync(fd)
    except OSError:
        os.ftruncate(fd, begin_bytes)
        return False
    finally:
        os.close(fd)
    return True
