"""Opens the spool: the database and the body files below one directory.

Runs in queue, confined. A database that is none any more is set aside with its bodies, loudly, and
a fresh one is begun: one bad file must not keep new mail out.
"""

import os
import time
from pathlib import Path

from smtpd_ps.queue.bodies import BodyFiles
from smtpd_ps.queue.shared import Logger
from smtpd_ps.queue.store.embedded import EmbeddedStore, NotADatabase
from smtpd_ps.queue.store.protocol import Store

DATABASE = "queue.db"
BODIES = "bodies"
RESERVE = "reserve"
OLD_QUEUE_SECS = 10.0  # for the queue of a daemon that was killed to be gone


def open_spool(directory: Path, log: Logger) -> tuple[Store, BodyFiles]:
    """Store and body files, made where they are missing. Raises StoreError, OSError."""
    os.umask(0o077)
    try:
        store = EmbeddedStore(directory / DATABASE, OLD_QUEUE_SECS)
    except NotADatabase as error:
        aside = f".damaged-{int(time.time())}"
        log.error(f"{error}: set aside as {DATABASE}{aside}, with its bodies; starting an empty queue")
        for name in (DATABASE, f"{DATABASE}-wal", BODIES):
            path = directory / name
            if path.exists():
                path.rename(directory / f"{name}{aside}")
        store = EmbeddedStore(directory / DATABASE)
    bodies = BodyFiles(directory / BODIES)
    _sync_names(directory)
    return store, bodies


def _sync_names(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
