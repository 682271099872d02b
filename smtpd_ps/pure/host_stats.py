"""What the hosts of each domain said last, and the mail that waits for those that fail.

Pure; runs in delivery; the clock is handed in. Texts of remote servers are kept as they were escaped.
"""

from collections.abc import Iterator

KEPT_SECS = 4 * 3600  # mta.c
MAX_DOMAINS = 10_000
MAX_TEXT = 900


class _Stat:
    __slots__ = ("deferred", "text", "told_secs")

    def __init__(self) -> None:
        self.text = ""
        self.told_secs = 0.0
        self.deferred: dict[int, None] = {}


class HostStats:
    """By domain in lower case, the one that was heard of last at the end. `max_deferred` envelopes each."""

    def __init__(self, max_deferred: int) -> None:
        self._max_deferred = max_deferred
        self._stats: dict[str, _Stat] = {}

    def told(self, domain: str, text: str, now_secs: float) -> None:
        """A host of `domain` said this, or this was said of all of them."""
        stat = self._stats.pop(domain, None)
        if stat is None:
            stat = _Stat()
            while len(self._stats) >= MAX_DOMAINS:
                del self._stats[next(iter(self._stats))]
        self._stats[domain] = stat
        stat.text, stat.told_secs = text[:MAX_TEXT], now_secs

    def defer(self, domain: str, evpid: int) -> None:
        """An envelope waits because no host of `domain` can be reached."""
        stat = self._stats.get(domain)
        if stat is not None and len(stat.deferred) < self._max_deferred:
            stat.deferred[evpid] = None

    def release(self, domain: str) -> tuple[int, ...]:
        """The envelopes that wait for `domain`, which takes mail again; they are forgotten here."""
        stat = self._stats.get(domain)
        if stat is None or not stat.deferred:
            return ()
        deferred, stat.deferred = tuple(stat.deferred), {}
        return deferred

    def rows(self, now_secs: float) -> Iterator[tuple[str, int, str]]:
        """Domain, Unix time and text of each that is not too old."""
        for domain, stat in self._stats.items():
            if stat.told_secs + KEPT_SECS > now_secs:
                yield domain, int(stat.told_secs), stat.text

    def sweep(self, now_secs: float) -> None:
        """Forget what is too old."""
        while self._stats:
            domain = next(iter(self._stats))
            if self._stats[domain].told_secs + KEPT_SECS > now_secs:
                return
            del self._stats[domain]
