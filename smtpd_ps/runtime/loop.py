"""The event loop: readiness callbacks, timers, and work done once at the end of a turn.

Runs in every process. The end of a turn is what makes batches: channels write all frames of a
turn with one send, and queue commits all that a turn brought with one sync. Why not asyncio:
docs/decisions/0002.
"""

import heapq
import itertools
import time
from collections.abc import Callable

from smtpd_ps.runtime.poller import READ, WRITE, make_poller

Callback = Callable[[], None]
_FEW_TIMERS = 64  # are not looked through for cancelled ones


class Timer:
    """A callback that will run once at `when` (seconds of time.monotonic) unless cancelled."""

    __slots__ = ("_callback", "when")

    def __init__(self, when: float, callback: Callback) -> None:
        self.when = when
        self._callback: Callback | None = callback

    def cancel(self) -> None:
        """Never run. Harmless when it has run."""
        self._callback = None

    @property
    def live(self) -> bool:
        """Whether it is still to run."""
        return self._callback is not None

    def run(self) -> None:
        """Run the callback, once."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class _Watch:
    __slots__ = ("on_read", "on_write")

    def __init__(self) -> None:
        self.on_read: Callback | None = None
        self.on_write: Callback | None = None


class Loop:
    """One a process. Not thread-safe: a thread tells the loop through a pipe of its own."""

    def __init__(self) -> None:
        self._poller = make_poller()
        self._watches: dict[int, _Watch] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._timers_bound = _FEW_TIMERS
        self._order = itertools.count()
        self._soon: list[Callback] = []
        self._turn_end: dict[Callback, None] = {}
        self._running = False

    def close(self) -> None:
        """Give the poller's descriptor back; for tests that make many loops."""
        self._poller.close()

    def now(self) -> float:
        """Seconds of the monotonic clock."""
        return time.monotonic()

    @staticmethod
    def sleep(secs: float) -> None:
        """Block this process; only for the parent while it waits for a child to end."""
        time.sleep(secs)

    # Readiness.

    def read_on(self, fd: int, callback: Callback) -> None:
        """Call back while `fd` is readable (or closed by the peer)."""
        self._watch(fd, READ, callback)

    def accept_on(self, fd: int, callback: Callback) -> None:
        """As read_on, for a listening socket that several processes may accept from; it is watched for nothing else."""
        if fd not in self._watches:
            watch = self._watches[fd] = _Watch()
            watch.on_read = callback
            self._poller.share(fd)

    def read_off(self, fd: int) -> None:
        """Stop; harmless when not on."""
        self._watch(fd, READ, None)

    def write_on(self, fd: int, callback: Callback) -> None:
        """Call back while `fd` is writable."""
        self._watch(fd, WRITE, callback)

    def write_off(self, fd: int) -> None:
        """Stop; harmless when not on."""
        self._watch(fd, WRITE, None)

    def forget(self, fd: int) -> None:
        """Stop watching `fd`; call before closing it."""
        self._watch(fd, READ | WRITE, None)

    def _watch(self, fd: int, which: int, callback: Callback | None) -> None:
        watch = self._watches.get(fd)
        if watch is None:
            if callback is None:
                return
            watch = self._watches[fd] = _Watch()
        before = (READ if watch.on_read else 0) | (WRITE if watch.on_write else 0)
        if which & READ:
            watch.on_read = callback
        if which & WRITE:
            watch.on_write = callback
        after = before | which if callback else before & ~which
        if before == after:
            return
        if not before:
            self._poller.register(fd, after)
        elif after:
            self._poller.modify(fd, after)
        else:
            del self._watches[fd]
            self._poller.unregister(fd)

    # Time.

    def call_later(self, delay_secs: float, callback: Callback) -> Timer:
        """Run `callback` once, `delay_secs` from now."""
        if len(self._timers) >= self._timers_bound:
            self._drop_cancelled()
        timer = Timer(self.now() + delay_secs, callback)
        heapq.heappush(self._timers, (timer.when, next(self._order), timer))
        return timer

    def _drop_cancelled(self) -> None:
        """Keep the heap at no more than twice the timers that are live."""
        self._timers = [entry for entry in self._timers if entry[2].live]
        heapq.heapify(self._timers)
        self._timers_bound = max(_FEW_TIMERS, 2 * len(self._timers))

    def call_soon(self, callback: Callback) -> None:
        """Run `callback` in the next turn."""
        self._soon.append(callback)

    def at_turn_end(self, callback: Callback) -> None:
        """Run `callback` once when this turn's events are handled. Asking twice runs it once."""
        self._turn_end[callback] = None

    # Running.

    def run(self) -> None:
        """Serve until `stop`."""
        self._running = True
        while self._running:
            self.turn()

    def stop(self) -> None:
        """Return from `run` after this turn."""
        self._running = False

    def turn(self, longest_secs: float | None = None) -> None:
        """Wait for events (at most `longest_secs`), handle them, run what the turn's end asks for."""
        watches = self._watches
        ready = self._poller.poll(self._patience(longest_secs))
        # Looked up before the first callback: it may close a descriptor whose number another then gets.
        for watch, mask in [(watch, mask) for fd, mask in ready if (watch := watches.get(fd))]:
            if mask & READ and watch.on_read:
                watch.on_read()
            if mask & WRITE and watch.on_write:
                watch.on_write()
        if self._timers:
            self._run_timers()
        if self._soon:
            soon, self._soon = self._soon, []
            for callback in soon:
                callback()
        while self._turn_end:
            ending, self._turn_end = self._turn_end, {}
            for callback in ending:
                callback()

    def _patience(self, longest_secs: float | None) -> float | None:
        if self._soon or self._turn_end:
            return 0
        while self._timers and not self._timers[0][2].live:
            heapq.heappop(self._timers)
        if not self._timers:
            return longest_secs
        wait = max(0.0, self._timers[0][0] - self.now())
        return wait if longest_secs is None else min(wait, longest_secs)

    def _run_timers(self) -> None:
        now = self.now()
        while self._timers and self._timers[0][0] <= now:
            heapq.heappop(self._timers)[2].run()
