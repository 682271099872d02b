"""Signals as loop events: a handler that only wakes the loop.

Runs in the parent, and in agents that run commands; parses nothing but the signal numbers the interpreter writes.
"""

import os
import signal
from collections.abc import Callable, Iterable

from smtpd_ps.runtime.loop import Loop


def watch_signals(loop: Loop, signals: Iterable[signal.Signals], callback: Callable[[int], None]) -> None:
    """Call `callback(number)` in the loop for each of `signals`."""
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in signals:
        signal.signal(number, lambda _number, _frame: None)

    def arrived() -> None:
        for number in os.read(reader, 256):
            callback(number)

    loop.read_on(reader, arrived)  # both ends stay open for the life of the process
