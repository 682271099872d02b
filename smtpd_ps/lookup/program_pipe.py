"""Lines to and from one run of a filter or table program, with bounds on everything.

Runs in lookup; cuts what a program of the operator's writes into lines, and parses none of them.

    pipe = LinePipe(loop, input_fd, output_fd, on_line, on_gone)
    pipe.send(b"config|ready")      # one line without its end; False where the bound is reached
    pipe.writable                   # False while it does not read: let new work wait, or fail it
    pipe.on_writable = more         # called when it reads again
    pipe.pause(); pipe.resume()     # no line is handed over in between, and soon it cannot write
    pipe.fail("rubbish")            # give it up: closed, and on_gone is called

`on_line` gets a line without its end. `on_gone` is called once, with why, when the program has
closed a side, does not keep to the bounds, or was given up; never after `close`. All calls come
from the loop, none from within `send`.
"""

import os
from collections.abc import Callable

from smtpd_ps.runtime import tracing
from smtpd_ps.runtime.loop import Loop

READ_BYTES = 65_536
MAX_LINE_BYTES = 65_536
HIGH_WATER_BYTES = 262_144  # not writable from here on
LOW_WATER_BYTES = 65_536  # and writable again from here on
MAX_UNSENT_BYTES = 1_048_576  # send refuses beyond it


class LinePipe:
    """Owns both descriptors, which become non-blocking."""

    __slots__ = (
        "_full", "_in", "_input_fd", "_lines", "_loop", "_max_line_bytes", "_on_gone", "_on_line", "_out",
        "_output_fd", "_paused", "_waiting", "closed", "on_writable", "unsent_bytes",
    )  # fmt: skip

    def __init__(
        self,
        loop: Loop,
        input_fd: int,
        output_fd: int,
        on_line: Callable[[bytes], None],
        on_gone: Callable[[str], None],
        max_line_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        """`input_fd` is the program's standard input, to write to, `output_fd` its output, to read from."""
        self._loop = loop
        self._input_fd, self._output_fd = input_fd, output_fd
        self._on_line, self._on_gone = on_line, on_gone
        self._max_line_bytes = max_line_bytes
        self.on_writable: Callable[[], None] | None = None
        self._in = b""  # an unfinished line
        self._lines: list[bytes] = []  # whole ones that wait for resume, the first one last
        self._out: list[bytes] = []
        self.unsent_bytes = 0
        self._waiting = False  # for the program to read
        self._full = False
        self._paused = False
        self.closed = False
        os.set_blocking(input_fd, False)
        os.set_blocking(output_fd, False)
        loop.read_on(output_fd, self._on_readable)

    @property
    def writable(self) -> bool:
        """Whether it reads what it is sent, more or less."""
        return not self._full and not self.closed

    # Writing.

    def send(self, line: bytes) -> bool:
        """Queue a line, which has no end of line in it, for the end of the turn. False: it was not taken."""
        if b"\n" in line:
            raise ValueError("a line with an end of line in it")
        if tracing.mask & tracing.FILTERS:
            tracing.write("filters", f"fd={self._input_fd} > {line[:500].decode('utf-8', 'replace')}")
        if self.closed or self.unsent_bytes + len(line) >= MAX_UNSENT_BYTES:
            return False
        self._out.append(line)
        self._out.append(b"\n")
        self.unsent_bytes += len(line) + 1
        if self.unsent_bytes >= HIGH_WATER_BYTES:
            self._full = True
        if not self._waiting:
            self._loop.at_turn_end(self._flush)
        return True

    def _flush(self) -> None:
        if self._waiting or self.closed:
            return
        self._write()

    def _write(self) -> None:
        while self.unsent_bytes:
            data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
            try:
                sent = os.write(self._input_fd, data)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                self.fail("it has closed its input" if isinstance(error, BrokenPipeError) else str(error))
                return
            self._out = [data[sent:]]
            self.unsent_bytes -= sent
            if not sent:
                break
        if self._full and self.unsent_bytes <= LOW_WATER_BYTES:
            self._full = False
            if self.on_writable is not None:
                self._loop.call_soon(self._tell_writable)
        if bool(self.unsent_bytes) is not self._waiting:
            self._waiting = not self._waiting
            if self._waiting:
                self._loop.write_on(self._input_fd, self._write)
            else:
                self._loop.write_off(self._input_fd)

    def _tell_writable(self) -> None:
        if self.writable and self.on_writable is not None:
            self.on_writable()

    # Reading.

    def pause(self) -> None:
        """Hand over no line until `resume`."""
        if not self._paused and not self.closed:
            self._paused = True
            self._loop.read_off(self._output_fd)

    def resume(self) -> None:
        """Go on; the lines that have come already in the next turn."""
        if self._paused and not self.closed:
            self._paused = False
            self._loop.read_on(self._output_fd, self._on_readable)
            if self._lines:
                self._loop.call_soon(self._hand_over)

    def _on_readable(self) -> None:
        try:
            data = os.read(self._output_fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self.fail(str(error))
            return
        if not data:
            self.fail("it has closed its output in the middle of a line" if self._in else "it has closed its output")
            return
        *lines, self._in = (self._in + data).split(b"\n")
        lines.reverse()
        self._lines[:0] = lines
        self._hand_over()
        if len(self._in) > self._max_line_bytes and not self.closed:
            self.fail(f"a line of more than {self._max_line_bytes} bytes")

    def _hand_over(self) -> None:
        while self._lines and not self._paused and not self.closed:
            line = self._lines.pop()
            if len(line) > self._max_line_bytes:
                self.fail(f"a line of more than {self._max_line_bytes} bytes")
                return
            self._on_line(line)

    # Ending.

    def fail(self, why: str) -> None:
        """Give this run of the program up. Harmless when closed."""
        if not self.closed:
            self.close()
            self._loop.call_soon(lambda: self._on_gone(why))

    def close(self) -> None:
        """Close both sides without a word. Harmless when closed."""
        if self.closed:
            return
        self.closed = True
        for fd in (self._input_fd, self._output_fd):
            self._loop.forget(fd)
            os.close(fd)
        self._in = b""
        self._lines.clear()
        self._out.clear()
        self.unsent_bytes = 0
