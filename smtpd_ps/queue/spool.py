"""Opens the spool: the database and the body files below one directory.

Runs in queue, confined. A damaged database is set aside, loudly, and what can still be read of it is in
a new one: one bad page must keep neither new mail out nor old mail in.

Where the queue is encrypted, the file "key" beside the database holds what only the right key can read.
A wrong key is found out here, before anything is taken for damage.
"""

import os
from pathlib import Path

from smtpd_ps.queue.bodies import BodyFiles
from smtpd_ps.queue.shared import Logger
from smtpd_ps.queue.store.coding import Coder, WrongKey
from smtpd_ps.queue.store.embedded import EmbeddedStore, NotADatabase
from smtpd_ps.queue.store.log_room import lay_out
from smtpd_ps.queue.store.protocol import Store
from smtpd_ps.queue.store.records import DamagedRecord
from smtpd_ps.queue.store.salvage import finish, salvage

DATABASE = "queue.db"
LOG = f"{DATABASE}-wal"
BODIES = "bodies"
RESERVE = "reserve"
KEY_CHECK = "key"
MAX_CHECK_BYTES = 1024
OLD_QUEUE_SECS = 10.0  # for the queue of a daemon that was killed to be gone


def open_spool(directory: Path, log: Logger, coder: Coder | None = None) -> tuple[Store, BodyFiles]:
    """Store and body files, made where they are missing. Raises StoreError, OSError, WrongKey."""
    os.umask(0o077)
    path = directory / DATABASE
    coder = coder if coder is not None else Coder()
    checked = _check_key(directory / KEY_CHECK, coder)

    def repair(why: str) -> None:
        salvage(path, directory / BODIES, why, log.error, coder)

    finish(path, log.error)
    try:
        store = EmbeddedStore(path, OLD_QUEUE_SECS, repair, coder)
        why = store.check()
        if why:
            store.mend(why)
    except NotADatabase as error:
        repair(str(error))
        store = EmbeddedStore(path, coder=coder)
    try:
        _settle_key(directory / KEY_CHECK, store, coder, checked)
    except BaseException:
        store.close()
        raise
    lay_out(directory / LOG)
    bodies = BodyFiles(directory / BODIES, coder)
    _sync_names(directory)
    return store, bodies


def _check_key(path: Path, coder: Coder) -> bool | None:
    """Whether the key of `coder` is that of the file; None where there is no file."""
    try:
        with path.open("rb") as file:
            value = file.read(MAX_CHECK_BYTES)
    except FileNotFoundError:
        return None
    try:
        coder.check(value)
    except WrongKey:
        return False
    return True


def _settle_key(path: Path, store: EmbeddedStore, coder: Coder, checked: bool | None) -> None:
    """Raises WrongKey where mail is stored that this key, or none, cannot read; else this key is the key.

    The whole store is looked through only where the key is new or gone.
    """
    if checked or (checked is None and not coder.has_key):
        return
    sample = store.any_encrypted()
    if sample is not None and not _reads(coder, *sample):
        count = store.count_encrypted()
        holds = f"the queue holds {count} message{'s' if count > 1 else ''} encrypted with"
        raise WrongKey(f"{holds} another key" if coder.has_key else f"{holds} a key: give it with queue encryption")
    if coder.has_key:
        _write_whole(path, coder.check_value())
    else:
        path.unlink(missing_ok=True)


def _reads(coder: Coder, msgid: int, record: bytes) -> bool:
    try:
        coder.decode("record", msgid, record)
    except DamagedRecord:
        return False
    return True


def _write_whole(path: Path, data: bytes) -> None:
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)


def _sync_names(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
