"""Threads that check passwords and read tables again, so that no session waits meanwhile.

Runs in lookup. Started after confinement, so that the sandbox holds for them too; they compute
and touch nothing else. Results come back to the loop through a pipe.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

from smtpd_ps.lookup.password_hash import PasswordHashes, Verdict
from smtpd_ps.runtime.loop import Loop

THREADS = 2
MAX_QUEUED = 512
_SWITCH_SECS = 0.0005  # passlib's hashes are Python: let the loop in between often

Done = Callable[[Verdict], None]
T = TypeVar("T")


class Checking:
    """A bounded queue of work for the threads."""

    def __init__(self, loop: Loop, hashes: PasswordHashes) -> None:
        """Before confinement."""
        self._loop, self._hashes = loop, hashes
        self._work: SimpleQueue[Callable[[], Callable[[], None]] | None] = SimpleQueue()
        self._results: deque[Callable[[], None]] = deque()
        self._queued = 0
        self._threads: list[threading.Thread] = []
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)

    def start(self) -> None:
        """After confinement."""
        sys.setswitchinterval(_SWITCH_SECS)
        self._loop.read_on(self._wake_read, self._on_results)
        for number in range(THREADS):
            thread = threading.Thread(target=self._check, name=f"check-{number}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def submit(self, password: str, stored: str, done: Done) -> bool:
        """Check a password: have `done` called on the loop's thread; False where too many are waiting."""
        return self.run(partial(self._hashes.verify, password, stored), done)

    def run(self, work: Callable[[], T], done: Callable[[T], None]) -> bool:
        """Have `work`, which raises nothing, done in a thread, and `done` called with its result as above."""
        if self._queued >= MAX_QUEUED:
            return False
        self._queued += 1
        self._work.put(lambda: partial(done, work()))
        return True

    def stop(self) -> None:
        """End the threads."""
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self._loop.forget(self._wake_read)
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _check(self) -> None:
        """What each thread does."""
        while (work := self._work.get()) is not None:
            self._results.append(work())
            del work  # it holds a password
            try:
                os.write(self._wake_write, b"\0")
            except BlockingIOError:
                continue  # a full pipe wakes the loop as well

    def _on_results(self) -> None:
        os.read(self._wake_read, 4096)
        while self._results:
            tell = self._results.popleft()
            self._queued -= 1
            tell()
