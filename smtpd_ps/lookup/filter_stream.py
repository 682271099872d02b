"""A message on its way through the filter programs that asked for its lines.

Runs in lookup, on bytes of strangers and of programs. Nothing is kept but what is on its way: smtp sends
no more than it was granted, a program that does not read holds up its messages, and one whose
output nobody takes is not read.
"""

from collections import deque
from collections.abc import Callable

from smtpd_ps.contract.messages.filters import (
    FILTER_BACK_WINDOW_BYTES,
    FILTER_CHUNK_BYTES,
    FILTER_WINDOW_BYTES,
    FilterCredit,
    FilterData,
)
from smtpd_ps.lookup.filter_program import FilterProgram
from smtpd_ps.pure.filter_protocol import data_line, data_prefix
from smtpd_ps.runtime.loop import Loop

HIGH_BYTES = 262_144  # from here on who writes is not read
LOW_BYTES = 65_536  # and from here on read again
GRANT_BYTES = 8192  # credit is given in no smaller pieces, but at the end
LINES_IN_A_GO = 2000

Send = Callable[[FilterData | FilterCredit], None]


class _Stage:
    """One program on the way: a `Passage` of it."""

    def __init__(self, stream: "FilterStream", index: int, program: FilterProgram) -> None:
        self._stream, self._index, self.program = stream, index, program
        self.token = 0
        self.lines: deque[bytes] = deque()  # dots doubled
        self.size_bytes = 0
        self.ended = False  # it was sent the last line
        self.moved = True  # since it was looked at
        self._soon = False

    def came_out(self, line: bytes) -> None:
        self.moved = True
        self._stream.came_out(self._index, line)

    def lost(self) -> None:
        self._stream.fail()

    def pump(self) -> None:
        self._soon = False
        self._stream.pump(self._index)

    def pump_soon(self, loop: Loop) -> None:
        """Once for all the lines that come with one read."""
        if not self._soon:
            self._soon = True
            loop.call_soon(self.pump)

    @property
    def waits(self) -> bool:
        moved, self.moved = self.moved, False
        return not moved and (self.ended or bool(self.lines))


class FilterStream:
    """One message. `over` is called once, when nothing more will happen."""

    def __init__(
        self, loop: Loop, session: int, transaction: int, send: Send, window_bytes: int, over: Callable[[], None]
    ) -> None:
        self._loop, self.session, self.transaction = loop, session, transaction
        self._send, self._over = send, over
        self._stages: list[_Stage] = []
        self._partial = b""  # of a line that has not come whole
        self._consumed = max(0, window_bytes - FILTER_WINDOW_BYTES)  # to be granted
        self._out: list[bytes] = []
        self._out_bytes = 0
        self._window_bytes = FILTER_BACK_WINDOW_BYTES
        self._came_last = False  # all has come out
        self._done = False

    def begin(self, programs: list[tuple[FilterProgram, int]]) -> bool:
        """Lead it through these programs, each with the session's number there; False where one takes nothing."""
        for index, (program, number) in enumerate(programs):
            stage = _Stage(self, index, program)
            token = program.enter(number, self.session, stage)
            if token is None:
                return False
            stage.token = token
            self._stages.append(stage)
        self._grant()
        return True

    # What smtp sends.

    def feed(self, data: bytes, last: bool) -> None:
        """Bytes of the message."""
        if self._done:
            return
        *lines, self._partial = (self._partial + data).split(b"\r\n")
        if last and self._partial:
            lines.append(self._partial)
        for line in lines:
            self._put(0, b"." + line if line.startswith(b".") else line)
        if last:
            self._put(0, b".")
        if self._stages:
            self.pump(0)
        elif not self._done:  # nobody is left to see it
            self._consumed += len(data)
            self._grant()

    def credit(self, size_bytes: int) -> None:
        """Smtp takes more."""
        self._window_bytes = min(self._window_bytes + size_bytes, FILTER_BACK_WINDOW_BYTES)
        self._flush()

    # Between programs.

    def _put(self, index: int, line: bytes) -> None:
        if index == len(self._stages):
            self._deliver(line)
            return
        stage = self._stages[index]
        stage.lines.append(line)
        stage.size_bytes += len(line) + 2
        if index and stage.size_bytes > HIGH_BYTES:
            before = self._stages[index - 1]
            before.program.pause(before)

    def pump(self, index: int) -> None:
        """Send a program what waits for it, as far as it reads."""
        if self._done:
            return
        stage = self._stages[index]
        program, lines = stage.program, stage.lines
        if not lines:
            return
        prefix = data_prefix(program.clock(), self.session, stage.token)
        gone = 0
        while lines and program.writable:
            line = lines.popleft()
            gone += len(line) + 2
            if not program.send_line(prefix + line):
                self.fail()
                return
            stage.ended = line == b"."
        if gone:
            stage.moved = True
            stage.size_bytes -= gone
        if index:
            if stage.size_bytes < LOW_BYTES:
                before = self._stages[index - 1]
                before.program.resume(before)
        else:
            self._consumed += gone
            self._grant()

    def came_out(self, index: int, line: bytes) -> None:
        """A program wrote a line of the message."""
        if self._done:
            return
        stage = self._stages[index]
        if line == b".":
            stage.program.leave(self.session, stage)
            if not stage.ended:
                self.fail()  # it has not seen the whole message
                return
        self._put(index + 1, line)
        if index + 1 < len(self._stages):
            self._stages[index + 1].pump_soon(self._loop)

    def _grant(self) -> None:
        waiting = bool(self._stages and self._stages[0].lines)
        if self._consumed >= GRANT_BYTES or (self._consumed and not waiting):
            self._send(FilterCredit(self.session, self.transaction, self._consumed))
            self._consumed = 0

    # Back to smtp.

    def _deliver(self, line: bytes) -> None:
        if line == b".":
            self._came_last = True
            self._flush()
            return
        text = data_line(line[1:] if line.startswith(b".") else line) + b"\r\n"
        self._out.append(text)
        self._out_bytes += len(text)
        if self._out_bytes >= FILTER_CHUNK_BYTES:
            self._flush()
            if self._out_bytes > HIGH_BYTES and self._stages:
                last = self._stages[-1]
                last.program.pause(last)

    def _flush(self) -> None:
        if self._done:
            return
        size = min(self._out_bytes, self._window_bytes)
        if size and (size == self._out_bytes or size >= FILTER_CHUNK_BYTES):
            data = b"".join(self._out)
            for at in range(0, size, FILTER_CHUNK_BYTES):
                part = data[at : min(size, at + FILTER_CHUNK_BYTES)]
                last = self._came_last and at + len(part) == len(data)
                self._send(FilterData(self.session, self.transaction, part, last))
            self._out = [data[size:]] if size < len(data) else []
            self._out_bytes -= size
            self._window_bytes -= size
            if self._came_last and not self._out_bytes:
                self._finish()
                return
        elif self._came_last and not self._out_bytes:
            self._send(FilterData(self.session, self.transaction, b"", True))
            self._finish()
            return
        if self._out_bytes < LOW_BYTES and self._stages:
            last_stage = self._stages[-1]
            last_stage.program.resume(last_stage)

    # Ending.

    def fail(self) -> None:
        """A program has failed: there is no message."""
        if not self._done:
            text = "451 4.3.0 Temporary failure, try again later"
            self._send(FilterData(self.session, self.transaction, b"", True, text))
            self._finish()

    def drop(self) -> None:
        """The session is over."""
        if not self._done:
            self._finish()

    def _finish(self) -> None:
        self._done = True
        for stage in self._stages:
            if not stage.ended:
                # It waits for the rest, which will not come.
                stage.program.send_line(data_prefix(stage.program.clock(), self.session, stage.token) + b".")
            stage.program.leave(self.session, stage)
            stage.lines.clear()
        self._out.clear()
        self._over()
