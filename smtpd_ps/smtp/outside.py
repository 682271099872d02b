"""What the sessions need from outside: message ids, randomness, the date.

Runs in smtp. The time zone must be known before confinement: `Clock()` reads it.
"""

import os
import time
from collections import deque

from smtpd_ps.pure.received import date_text

_POOL_BYTES = 4096


class MessageIds:
    """Ids leased by queue; each is used once."""

    def __init__(self) -> None:
        self._ids: deque[int] = deque()

    def lease(self, ids: tuple[int, ...]) -> None:
        """Queue sent more."""
        self._ids.extend(ids)

    def take(self) -> int | None:
        """The unused id that was leased first, so that ids follow each other in the store; None when there is none."""
        return self._ids.popleft() if self._ids else None

    def give_back(self, msgid: int) -> None:
        """An id that queue has not seen: it may be used after all."""
        self._ids.appendleft(msgid)

    def __len__(self) -> int:
        return len(self._ids)


class Randomness:
    """Random bits of the system, fetched in blocks."""

    def __init__(self) -> None:
        self._pool = b""
        self._at = 0

    def bits(self, size_bytes: int) -> int:
        """`size_bytes` x 8 random bits."""
        end = self._at + size_bytes
        if end > len(self._pool):
            self._pool = os.urandom(_POOL_BYTES)
            self._at, end = 0, size_bytes
        value = int.from_bytes(self._pool[self._at : end])
        self._at = end
        return value

    def bits64(self) -> int:
        """64 random bits."""
        return self.bits(8)

    def fraction(self) -> float:
        """Evenly between 0 and 1."""
        return self.bits(4) / 2**32


class Clock:
    """The date of now as mail writes it, made once a second."""

    def __init__(self) -> None:
        self._second = 0
        self._text = ""
        self.date()

    def date(self) -> str:
        """RFC 5322 date of now in the system's time zone."""
        second = int(time.time())
        if second != self._second:
            local = time.localtime(second)
            self._text = date_text(second, local.tm_gmtoff, local.tm_zone)
            self._second = second
        return self._text
