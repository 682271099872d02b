"""Threads that check passwords, so that no other session waits while a hash is computed.

Runs in lookup. Started after confinement, so that the sandbox holds for them too; they compute
and touch nothing else. Results come back to the loop through a pipe.
"""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue

from smtpd_ps.lookup.password_hash import PasswordHashes, Verdict
from smtpd_ps.runtime.loop import Loop

THREADS = 2
MAX_QUEUED = 512
_SWITCH_SECS = 0.0005  # passlib's hashes are Python: let the loop in between often

Done = Callable[[Verdict], None]


class Checking:
    """A bounded queue of passwords to check."""

    def __init__(self, loop: Loop, hashes: PasswordHashes) -> None:
        """Before confinement."""
        self._loop, self._hashes = loop, hashes
        self._work: SimpleQueue[tuple[str, str, Done] | None] = SimpleQueue()
        self._results: deque[tuple[Verdict, Done]] = deque()
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
        """Have `done` called on the loop's thread; False where too many are waiting."""
        if self._queued >= MAX_QUEUED:
            return False
        self._queued += 1
        self._work.put((password, stored, done))
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
            password, stored, done = work
            self._results.append((self._hashes.verify(password, stored), done))
            del work, password, stored
            try:
                os.write(self._wake_write, b"\0")
            except BlockingIOError:
                continue  # a full pipe wakes the loop as well

    def _on_results(self) -> None:
        os.read(self._wake_read, 4096)
        while self._results:
            verdict, done = self._results.popleft()
            self._queued -= 1
            done(verdict)
