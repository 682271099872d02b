"""What a store must do. `embedded` and `ram` do it; one suite of tests checks both.

Runs in queue. A store keeps small bodies; large ones are files (queue/bodies) of which it knows
only that they exist. It does one thing at a time and blocks while it does.
"""

from typing import NamedTuple, Protocol

from smtpd_ps.queue.store.records import StoredMessage


class StoreError(Exception):
    """The store could not do it now: an I/O error. Nothing of the group was stored."""


class StoreFull(StoreError):
    """The store could not do it for lack of room. Nothing of the group was stored."""


class Insert(NamedTuple):
    """A new message; `body` is None when it is in a file."""

    message: StoredMessage
    body: bytes | None


class Group(NamedTuple):
    """Changes that become durable together or not at all."""

    inserts: list[Insert]
    updates: list[StoredMessage]
    removals: list[int]  # message ids


class Due(NamedTuple):
    """A stored message and when it is due, in order of (due_ms, msgid)."""

    due_ms: int
    msgid: int


class Damaged(NamedTuple):
    """A stored message that is not what was stored. It stays, marked, until removed."""

    msgid: int
    reason: str
    envelopes: int = 0  # that were due until this was found out


Loaded = StoredMessage | Damaged


class Store(Protocol):
    """Every method may raise StoreError. Times are Unix milliseconds."""

    def write(self, group: Group) -> None:
        """Make all of `group` durable with one sync, or raise and store nothing of it."""

    def due(self, before_ms: int, after: Due | None, limit: int) -> list[Due]:
        """Undamaged messages due at or before `before_ms`, those after `after` in order, at most `limit`."""

    def next_due_ms(self, after_ms: int) -> int | None:
        """When the first message due later than `after_ms` is due."""

    def load(self, msgids: list[int]) -> list[Loaded]:
        """Those messages that are there. Damaged ones are marked so and not due again."""

    def scan(self, after_msgid: int, limit: int) -> list[Loaded]:
        """Messages with a greater id, in order of id, damaged ones too."""

    def body(self, message: StoredMessage) -> bytes:
        """The body of a message that is not in a file. Raises records.DamagedRecord."""

    def mark_damaged(self, msgid: int, reason: str) -> None:
        """Keep it, but never again as due."""

    def damaged(self, after_msgid: int, limit: int) -> list[Damaged]:
        """Those that are marked as damaged and have a greater id, in order of id."""

    def reread(self, msgid: int) -> StoredMessage | None:
        """A message that is marked as damaged, its mark left aside. Raises records.DamagedRecord."""

    def heal(self, message: StoredMessage) -> None:
        """Take its mark away: it is due as its envelopes are."""

    def hurry(self, after_msgid: int, limit: int, due_ms: int) -> tuple[int, int]:
        """Make messages with a greater id due at `due_ms`, but for those paused as a whole: (envelopes
        concerned, last id seen; 0 at the end).
        """

    def any_in(self, first_msgid: int, last_msgid: int) -> bool:
        """Whether any id of that range is taken."""

    def has(self, msgid: int) -> bool:
        """Whether that id is taken."""

    def count_envelopes(self) -> int:
        """Of all messages that are not damaged."""

    def tidy(self, idle: bool) -> None:
        """Housekeeping: call now and then, with `idle` when there is nothing better to do."""

    def close(self) -> None:
        """Finish. Harmless when closed."""
