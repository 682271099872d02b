"""`smtpctl_ps show queue` while no daemon runs: what waits in the store, which is only read.

Runs in the operator's command, as root. Without the configuration it is not known when mail expires (0), and
only the key can read what is encrypted; damaged messages are `show corrupt`'s, which needs the daemon.
"""

import fcntl
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.installation import paths
from smtpd_ps.queue.show import offline_row
from smtpd_ps.queue.spool import DATABASE
from smtpd_ps.queue.store.offline import stored_messages
from smtpd_ps.queue.store.records import StoredMessage


def store_at_rest(state_dir: str | None) -> Path | None:
    """The database, where there is one and no daemon and no import holds the state directory."""
    state = paths(state_dir)
    path = Path(state.queue) / DATABASE
    try:
        fd = os.open(f"{state.run}/lock", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return path if path.is_file() else None  # none was started since the last boot
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # and given up at once: nobody is to wait for us
    except BlockingIOError:
        return None
    finally:
        os.close(fd)
    return path if path.is_file() else None


def offline_rows(path: Path, msgid: int) -> Iterator[m.QueueRow]:
    """The envelopes of all messages, or of one; what cannot be shown is counted on standard error."""
    now_ms = time.time_ns() // 1_000_000
    unreadable = damaged = 0
    for message in stored_messages(path):
        if isinstance(message, StoredMessage):
            if msgid in (0, message.msgid):
                for evpid, stored in message.envelopes.items():
                    yield offline_row(message, evpid, stored, now_ms)
        elif isinstance(message, Exception):
            unreadable += 1
        else:
            damaged += 1
    for count, what in ((unreadable, "encrypted: only the daemon can show what is in it"), (damaged, "damaged")):
        if count:
            print(f"smtpctl_ps: {count} message{'s' if count > 1 else ''} {what}", file=sys.stderr)
