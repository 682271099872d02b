"""Message ids: which are leased to whom, which are used up, and envelope ids made from them.

Runs in queue. A message id is below 2^31, so that an envelope id (its message's id in the upper
32 bits) fits 63 bits. Blocks lie at random places, ids within a block follow each other: a burst of
messages then lies together in the store, and an id tells an outsider little.
"""

import os
from collections import OrderedDict
from collections.abc import Callable

BLOCK_IDS = 1000
BLOCK_SPACING = 1024
BLOCKS = (1 << 31) // BLOCK_SPACING
BLOCKS_REMEMBERED = 4096  # of one lessee, those with unused ids; older ones are void

_ALL_USED = (1 << BLOCK_IDS) - 1


class LeaseError(Exception):
    """A message id that was not leased to whoever uses it, or that was used before."""


class LeaseVoid(Exception):
    """A message id of a lease so old that it is not known any more."""


class IdSpace:
    """Hands out blocks of ids that nothing in the store has."""

    def __init__(self, taken: Callable[[int, int], bool]) -> None:
        self._taken = taken
        self._leased: set[int] = set()  # blocks handed out since the start
        self._pool = b""

    def block(self) -> int:
        """The first id of a fresh block."""
        while True:
            number = self.random32() % BLOCKS
            first = number * BLOCK_SPACING + 1
            if number not in self._leased and not self._taken(first, first + BLOCK_IDS - 1):
                self._leased.add(number)
                return first

    def void(self, first: int) -> None:
        """A block that nobody may use any more."""
        self._leased.discard(first // BLOCK_SPACING)

    def random32(self) -> int:
        """32 random bits, from a pool: a system call in every thousand."""
        if not self._pool:
            self._pool = os.urandom(4096)
        word, self._pool = self._pool[:4], self._pool[4:]
        return int.from_bytes(word, "little")

    def evpids(self, msgid: int, count: int) -> list[int]:
        """`count` different envelope ids of a message."""
        return evpids_from(self.random32(), msgid, count)


def evpids_from(first: int, msgid: int, count: int) -> list[int]:
    """`count` envelope ids of a message that follow each other; `first` is the lower half of the first one."""
    high = msgid << 32
    return [high | (first + n & 0xFFFFFFFF) for n in range(count)]


class Lessee:
    """The ids of one smtp process: each may be used once."""

    def __init__(self, space: IdSpace) -> None:
        self._space = space
        self._blocks: OrderedDict[int, int] = OrderedDict()  # first id -> bits of those used
        self._voided = False
        self.left = 0  # not used as far as we know

    def lease(self) -> tuple[int, ...]:
        """A further block."""
        first = self._space.block()
        self._blocks[first] = 0
        self.left += BLOCK_IDS
        while len(self._blocks) > BLOCKS_REMEMBERED:
            self._space.void(self._blocks.popitem(last=False)[0])
            self._voided = True
        return tuple(range(first, first + BLOCK_IDS))

    def use(self, msgid: int) -> None:
        """Raises LeaseError unless `msgid` is leased here and was not used, LeaseVoid when it may have been."""
        offset = (msgid - 1) % BLOCK_SPACING
        first = msgid - offset
        used = self._blocks.get(first)
        if used is None and self._voided:
            raise LeaseVoid(f"message id {msgid:08x} is of no lease that is known")
        if used is None or offset >= BLOCK_IDS:
            raise LeaseError(f"message id {msgid:08x} was not leased")
        if used >> offset & 1:
            raise LeaseError(f"message id {msgid:08x} was used before")
        used |= 1 << offset
        self.left -= 1
        if used == _ALL_USED:
            del self._blocks[first]
            self._space.void(first)
        else:
            self._blocks[first] = used

    def give_back(self) -> None:
        """Whoever had them is gone: void all blocks. Ids that were used are in the store, or free again."""
        for first in self._blocks:
            self._space.void(first)
        self._blocks.clear()

    def forgo(self) -> None:
        """An id was used for a transaction that came to nothing; which one, nobody says."""
        self.left -= 1


class OwnIds:
    """The ids that queue uses itself, for bounces."""

    def __init__(self, space: IdSpace) -> None:
        self._space = space
        self._ready: list[int] = []

    def next(self) -> int:
        """An unused message id."""
        if not self._ready:
            first = self._space.block()
            self._ready = list(range(first + BLOCK_IDS - 1, first - 1, -1))
        return self._ready.pop()
