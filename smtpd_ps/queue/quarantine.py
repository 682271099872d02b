"""Damaged messages, for the operator: list them, and put back what can be read after all.

Runs in queue. A message is put aside where its record or its body is not what was stored (queue/window);
it stays until it is removed or put back. What makes it readable again is done outside: a file system that
was not mounted, a file out of a backup.
"""

from collections.abc import Iterator

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import message_id_text
from smtpd_ps.queue.desk import Desk
from smtpd_ps.queue.shared import Shared
from smtpd_ps.queue.store.protocol import StoreError
from smtpd_ps.queue.store.records import DamagedRecord, StoredMessage
from smtpd_ps.queue.window import Window

STEP = 200  # messages
MAX_REASON = 2000


class Quarantine:
    """Answers through `desk`."""

    def __init__(self, shared: Shared, window: Window, desk: Desk) -> None:
        self._s = shared
        self._window = window
        self._desk = desk

    def show(self, message: m.ShowCorrupt) -> None:
        """A CorruptRow a message."""
        self._desk.stream(message.client, self._rows(message.client))

    def _rows(self, client: int) -> Iterator[int]:
        after = 0
        while found := self._s.store.damaged(after, STEP):
            for one in found:
                after = one.msgid
                row = m.CorruptRow(client, one.msgid, one.envelopes, one.reason[:MAX_REASON])
                self._s.peers.control.send(row)
            yield len(found)

    def put_back(self, message: m.Uncorrupt) -> None:
        """Read a message again, its body too; where all is right, it is due as it was."""
        client, msgid = message.client, message.msgid
        if not msgid:
            self._desk.stream(client, self._put_back_all())
            return
        try:
            count = self._put_back(msgid)
        except DamagedRecord as error:
            self._desk.done(client, 0, f"message {message_id_text(msgid)} is damaged still: {error}", ok=False)
        except (StoreError, OSError) as error:
            self._desk.done(client, 0, str(error), ok=False)
        else:
            self._desk.done(client, count)

    def _put_back_all(self) -> Iterator[int]:
        after = 0
        while found := self._s.store.damaged(after, STEP):
            for one in found:
                after = one.msgid
                try:
                    yield self._put_back(after)
                except (DamagedRecord, OSError) as error:
                    self._s.log.warning(f"msgid={message_id_text(after)} is damaged still: {error}")
                    yield 0

    def _put_back(self, msgid: int) -> int:
        """How many envelopes it has. Raises DamagedRecord, StoreError, OSError."""
        message = self._s.store.reread(msgid)
        if message is None:
            return 0
        self._check_body(message)
        self._s.store.heal(message)
        self._s.counters.envelopes += len(message.envelopes)
        self._s.log.info(f"put back msgid={message_id_text(msgid)}")
        self._window.look_again()
        return len(message.envelopes)

    def _check_body(self, message: StoredMessage) -> None:
        if message.in_file:
            with open(self._s.bodies.open_checked(message), "rb"):
                return
        self._s.store.body(message)
