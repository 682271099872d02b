"""The loop of a filter or table program: standard input to a core, its output to standard output.

Runs in filter and table programs. Input is read in blocks, and what they bring is written when all of a block
was handled. A program without asynchronous handlers never imports asyncio. Standard output belongs to the
protocol: what handlers print goes to standard error.
"""

import os
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from smtpd_ps.filterkit.core import Core, Settled, Spawn
from smtpd_ps.filterkit.filter import Filter, StopProgram
from smtpd_ps.filterkit.filter_core import FilterCore
from smtpd_ps.filterkit.line_buffer import ProtocolError
from smtpd_ps.filterkit.table import Table
from smtpd_ps.filterkit.table_core import TableCore

READ_BYTES = 65536


def log(text: str) -> None:
    """A line on standard error, which the mail server logs with the program's name."""
    os.write(2, (text + "\n").encode(errors="backslashreplace"))


def run_filter(filter: Filter) -> int:
    """Serve until standard input ends; the program's exit status."""
    wanted = FilterCore(filter, log).handlers.asynchronous
    return serve(lambda spawn: FilterCore(filter, log, spawn), wanted)


def run_table(table: Table) -> int:
    """Serve until standard input ends; the program's exit status."""
    wanted = TableCore(table, log).asynchronous
    return serve(lambda spawn: TableCore(table, log, spawn), wanted)


def serve(make: Callable[[Spawn | None], Core], asynchronous: bool) -> int:
    """Drive the core that `make` makes."""
    sys.stdout.flush()
    out = os.dup(1)
    os.dup2(2, 1)
    try:
        if asynchronous:
            _serve_asynchronously(make, out)
        else:
            core = make(None)
            while data := os.read(0, READ_BYTES):
                core.receive(data)
                _write(out, core)
    except BrokenPipeError:
        return 0  # the server reads no more
    except (ProtocolError, StopProgram) as error:
        log(str(error))
        return 1
    return 0


def _write(out: int, core: Core) -> None:
    for piece in core.output():
        view = memoryview(piece)
        while view:
            view = view[os.write(out, view) :]


def _serve_asynchronously(make: Callable[[Spawn | None], Core], out: int) -> None:
    import asyncio

    async def main() -> None:
        loop = asyncio.get_running_loop()
        over: asyncio.Future[None] = loop.create_future()
        tasks: set[asyncio.Task[None]] = set()

        def spawn(awaitable: Awaitable[Any], settled: Settled) -> Callable[[], None]:
            async def wait() -> None:
                try:
                    result = await awaitable
                except asyncio.CancelledError as error:
                    settled(None, error)
                except Exception as error:  # noqa: BLE001  # whatever a handler raises
                    settled(None, error)
                else:
                    settled(result, None)

            task = loop.create_task(wait())
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            return lambda: _cancel(task)

        def on_readable() -> None:
            guarded(lambda: read())

        def read() -> None:
            data = os.read(0, READ_BYTES)
            if data:
                core.receive(data)
                _write(out, core)
            elif not over.done():
                over.set_result(None)

        def guarded(do: Callable[[], None]) -> None:
            try:
                do()
            except Exception as error:  # noqa: BLE001  # whatever it is, it ends the loop
                if not over.done():
                    over.set_exception(error)

        core = make(spawn)
        core.on_output(lambda: guarded(lambda: _write(out, core)))
        loop.add_reader(0, on_readable)
        try:
            await over
        finally:
            loop.remove_reader(0)
            for task in tasks:
                task.cancel()

    def _cancel(task: "asyncio.Task[None]") -> None:
        task.cancel()

    asyncio.run(main())
