"""Signals as loop events: a handler that only wakes the loop.

Runs in the parent; parses nothing but the signal numbers the interpreter writes.
"""

import signal
import socket
from collections.abc import Callable, Iterable

from smtpd_ps.runtime.loop import Loop


def watch_signals(loop: Loop, signals: Iterable[signal.Signals], callback: Callable[[int], None]) -> None:
    """Call `callback(number)` in the loop for each of `signals`."""
    reader, writer = socket.socketpair()
    reader.setblocking(False)
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    for number in signals:
        signal.signal(number, lambda _number, _frame: None)

    def arrived() -> None:
        for number in reader.recv(256):
            callback(number)

    _keep.append((reader, writer))
    loop.read_on(reader.fileno(), arrived)


_keep: list[tuple[socket.socket, socket.socket]] = []  # open for the life of the process
