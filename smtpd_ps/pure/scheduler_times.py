"""When an envelope is tried again, given up, and warned about: arithmetic only.

Pure; used in queue. All times are Unix milliseconds, handed in; parses nothing.
"""

from dataclasses import dataclass

from smtpd_ps.contract.settings import QueueSettings, RouteShape

RELAY_SHAPES = frozenset({"mx", "host"})  # of actions that leave this host


@dataclass(frozen=True, slots=True)
class Curve:
    """The retry curve of one action (OpenSMTPD's: creation + base x n x n)."""

    base_ms: int
    ttl_ms: int
    bounce_ttl_ms: int

    def next_try_ms(self, created_ms: int, tries: int, now_ms: int) -> int:
        """The first point of the curve after `tries` attempts that is still to come.

        A point in the past is skipped, so that a queue that stood still does not try at once
        as often as it would have tried meanwhile.
        """
        n = max(tries, 1)
        if self.base_ms <= 0:
            return now_ms
        while (due_ms := created_ms + self.base_ms * n * n) <= now_ms:
            n += 1
        return due_ms

    def expires_ms(self, created_ms: int, bounce: bool) -> int:
        """When it is given up: 4 days, a bounce of ours 7 days (or as configured)."""
        return created_ms + (self.bounce_ttl_ms if bounce else self.ttl_ms)


def curve(settings: QueueSettings, shape: RouteShape, ttl_secs: int) -> Curve:
    """The curve of an action of `shape`; `ttl_secs` 0 takes the queue's own lifetime."""
    base_secs = settings.retry_relay_secs if shape in RELAY_SHAPES else settings.retry_local_secs
    return Curve(base_secs * 1000, (ttl_secs or settings.ttl_secs) * 1000, settings.bounce_ttl_secs * 1000)


def warnings_due(warn_secs: tuple[int, ...], created_ms: int, next_try_ms: int) -> int:
    """How many of the "delayed" marks the next try falls at or after."""
    return sum(1 for mark in warn_secs if next_try_ms >= created_ms + mark * 1000)
