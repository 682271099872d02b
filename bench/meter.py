"""CPU spent between two moments: the server's, the load's, and everyone else's."""

import os
import time

from bench import kernel
from bench.peer import Peer


class Meter:
    """Counts from its construction on."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._start = self._now()
        self._roles = kernel.cpu_by_role(peer.pids())

    def _now(self) -> tuple[float, float, float, float]:
        ours = self._peer.site.load.cpu_secs() + kernel.own_cpu_secs()
        return time.perf_counter(), self._peer.cpu_secs(), ours, kernel.machine_busy_secs()

    def by_role(self, messages: int) -> dict[str, float]:
        """CPU seconds for 1000 messages by what a process is; only processes that still live."""
        now = kernel.cpu_by_role(self._peer.pids())
        return {
            role: round((secs - self._roles.get(role, 0.0)) / max(messages, 1) * 1000, 4) for role, secs in now.items()
        }

    def read(self, messages: int) -> dict[str, float]:
        """So far. `foreign_cpu_share` is what neither server nor load explain: other work, kernel threads."""
        wall, server, ours, busy = (now - then for then, now in zip(self._start, self._now(), strict=True))
        return {
            "cpu_s_per_1000": server / max(messages, 1) * 1000,
            "cpu_s": server,
            "load_cpu_s": ours,
            "foreign_cpu_share": max(0.0, busy - server - ours) / (wall * (os.cpu_count() or 1)),
        }
