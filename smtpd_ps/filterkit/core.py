"""What the cores of filters and tables have in common: they call what the programmer wrote, and may have to wait.

Runs in filter and table programs. A core does no input or output: `run` feeds it and writes what it gives.
"""

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

from smtpd_ps.filterkit.line_buffer import LineBuffer

Settled = Callable[[Any, BaseException | None], None]
Spawn = Callable[[Awaitable[Any], Settled], Callable[[], None]]  # begins to wait; the result ends the waiting


class Core:
    """Feed it with `receive`, and write what `output` gives. `spawn` waits for what is asynchronous."""

    def __init__(self, log: Callable[[str], None], spawn: Spawn | None) -> None:
        self._log, self._spawn = log, spawn
        self._buffer = LineBuffer()
        self._is_ready = False
        self._notify: Callable[[], None] = lambda: None

    def on_output(self, notify: Callable[[], None]) -> None:
        """Call `notify` when something was written outside of `receive`."""
        self._notify = notify

    def receive(self, data: bytes) -> None:
        """What was read. Raises ProtocolError, and StopProgram of the filter or table."""
        raise NotImplementedError

    def output(self) -> Iterator[bytes]:
        """What is to be written, in pieces."""
        raise NotImplementedError

    def _begin(
        self, what: str, call: Callable[[], object], settled: Settled, afterwards: Callable[[], None]
    ) -> Callable[[], None] | None:
        """Call, and tell `settled` what came of it. Where that takes time: what ends the waiting, and `afterwards`."""
        try:
            result = call()
        except Exception as error:  # noqa: BLE001  # whatever it raises
            settled(None, error)
            return None
        if not isinstance(result, Awaitable):
            settled(result, None)
            return None
        if self._spawn is None:
            raise TypeError(f"{what}: nobody here waits for what is asynchronous")

        def later(result: object, error: BaseException | None) -> None:
            settled(result, error)
            afterwards()
            self._notify()

        return self._spawn(result, later)
