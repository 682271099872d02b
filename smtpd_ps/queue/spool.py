"""Opens the spool: the database and the body files below one directory.

Runs in queue, confined. A damaged database is set aside, loudly, and what can still be read of it is in
a new one: one bad page must keep neither new mail out nor old mail in.
"""

import os
from pathlib import Path

from smtpd_ps.queue.bodies import BodyFiles
from smtpd_ps.queue.shared import Logger
from smtpd_ps.queue.store.embedded import EmbeddedStore, NotADatabase
from smtpd_ps.queue.store.protocol import Store
from smtpd_ps.queue.store.salvage import finish, salvage

DATABASE = "queue.db"
BODIES = "bodies"
RESERVE = "reserve"
OLD_QUEUE_SECS = 10.0  # for the queue of a daemon that was killed to be gone


def open_spool(directory: Path, log: Logger) -> tuple[Store, BodyFiles]:
    """Store and body files, made where they are missing. Raises StoreError, OSError."""
    os.umask(0o077)
    path = directory / DATABASE

    def repair(why: str) -> None:
        salvage(path, directory / BODIES, why, log.error)

    finish(path, log.error)
    try:
        store = EmbeddedStore(path, OLD_QUEUE_SECS, repair)
        why = store.check()
        if why:
            store.mend(why)
    except NotADatabase as error:
        repair(str(error))
        store = EmbeddedStore(path)
    bodies = BodyFiles(directory / BODIES)
    _sync_names(directory)
    return store, bodies


def _sync_names(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
