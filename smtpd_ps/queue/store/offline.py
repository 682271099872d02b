"""What the store holds, read without the daemon and without touching a file of it.

Runs in smtpctl_ps, as root, where no daemon runs; parses the database's pages and those of its log
(pure/sqlite_pages), which may have rotted. SQLite itself would make files of root beside it.
"""

from collections.abc import Iterator
from pathlib import Path

from smtpd_ps.queue.store.coding import Coder
from smtpd_ps.queue.store.protocol import Damaged
from smtpd_ps.queue.store.records import DamagedRecord, NoKey, StoredMessage, decode_record
from smtpd_ps.queue.store.salvage import COLUMNS, Pages


def stored_messages(path: Path) -> Iterator[StoredMessage | Damaged | NoKey]:
    """Every message of the database at `path`, in no order; NoKey for one that is encrypted. Raises OSError."""
    coder = Coder()
    pages = Pages(path)
    try:
        for row in pages.rows():
            if not row.live or row.of_index or len(row.values) != COLUMNS:
                continue
            _alias, _due_ms, envelopes, crc, record, damage = row.values
            count = envelopes if isinstance(envelopes, int) else 0
            if isinstance(damage, str):
                yield Damaged(row.rowid, damage, count)
                continue
            try:
                yield decode_record(row.rowid, record, crc, coder)
            except NoKey as error:
                yield error
            except DamagedRecord as error:
                yield Damaged(row.rowid, str(error), count)
    finally:
        pages.close()
