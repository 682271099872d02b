"""The far end of a filter or table program's pipes, in the test's own process."""

import contextlib
import os


class Far:
    """What a program would hold. `take` gives the other ends away: its input to write to, its output to read."""

    def __init__(self) -> None:
        self._input, self._their_input = os.pipe()
        self._their_output, self._output = os.pipe()
        self.given = (self._their_input, self._their_output)
        self._open = {self._input, self._output}

    def take(self) -> tuple[int, int]:
        """For who speaks to the program, and closes them."""
        return self.given

    def read(self) -> bytes:
        """What is there; blocks where there is nothing."""
        return os.read(self._input, 1 << 20)

    def read_lines(self) -> list[str]:
        """The whole lines that are there, without waiting."""
        os.set_blocking(self._input, False)
        data = b""
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self._input, 1 << 20):
                data += more
        os.set_blocking(self._input, True)
        return data.decode().splitlines()

    def write(self, data: bytes) -> None:
        """As its output."""
        os.write(self._output, data)

    def close_input(self) -> None:
        """It reads no more."""
        self._close(self._input)

    def close_output(self) -> None:
        """It writes no more."""
        self._close(self._output)

    def _close(self, fd: int) -> None:
        if fd in self._open:
            self._open.discard(fd)
            os.close(fd)

    def __del__(self) -> None:
        for fd in list(self._open):
            self._close(fd)
