"""A bounded cache of what lookup has found out: DNS answers, users, decisions.

Runs in lookup. Entries have an expiry (seconds of the loop's clock). Instead of an exact LRU
order there are two generations: what was used since the last turnover stays, the rest goes.
That costs one dict lookup a hit.
"""

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

FOREVER = float("inf")


class Cache(Generic[K, V]):
    """At most about `limit` entries."""

    __slots__ = ("_half", "_new", "_old")

    def __init__(self, limit: int) -> None:
        self._half = max(1, limit // 2)
        self._new: dict[K, tuple[float, V]] = {}
        self._old: dict[K, tuple[float, V]] = {}

    def get(self, key: K, now: float) -> V | None:
        """The value of `key`, None where there is none that is still good."""
        entry = self._new.get(key)
        if entry is None:
            entry = self._old.get(key)
            if entry is None:
                return None
            if entry[0] > now:
                self._put(key, entry)
        return entry[1] if entry[0] > now else None

    def put(self, key: K, value: V, expires: float) -> None:
        """Keep `value` until `expires`."""
        self._put(key, (expires, value))

    def _put(self, key: K, entry: tuple[float, V]) -> None:
        if len(self._new) >= self._half and key not in self._new:
            self._old, self._new = self._new, {}
        self._new[key] = entry

    def __len__(self) -> int:
        return len(self._new) + len(self._old)
