"""How often each of many may fail: so many times at once, and then again as time passes.

Pure; runs in smtp. The clock is handed in, and memory is bounded: of too many the one that failed
longest ago is forgotten.
"""

from collections.abc import Hashable

MAX_KEYS = 16_384


class FailureBudget:
    """`limit` failures, of which one is forgiven every `forgiven_secs`."""

    def __init__(self, limit: int, forgiven_secs: float, max_keys: int = MAX_KEYS) -> None:
        self._limit = limit
        self._forgiven_secs = forgiven_secs
        self._max_keys = max_keys
        self._failures: dict[Hashable, tuple[float, float]] = {}  # how many are left at that moment; latest last

    def failed(self, key: Hashable, now: float) -> None:
        """Once more."""
        left = self._left(key, now) + 1
        self._failures.pop(key, None)
        self._failures[key] = min(left, float(self._limit)), now
        if len(self._failures) > self._max_keys:
            del self._failures[next(iter(self._failures))]

    def spent(self, key: Hashable, now: float) -> bool:
        """Whether `key` has to wait."""
        return key in self._failures and self._left(key, now) > self._limit - 1

    def _left(self, key: Hashable, now: float) -> float:
        count, when = self._failures.get(key, (0.0, now))
        return max(0.0, count - (now - when) / self._forgiven_secs)
