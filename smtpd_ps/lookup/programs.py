"""Filter and table programs as lookup sees them: which run, their lines, what they say on standard error.

Runs in lookup. The parent starts the programs and hands over their pipes (m.Program); whoever
speaks a program's protocol is its `User` here:

    programs.use("filter", "rspamd", user)      # before `started`; user has opened, line and gone
    user.opened(pipe)       # a new run: speak the handshake (program_pipe.LinePipe)
    user.line(line)         # bytes of the program, without the end of the line
    user.gone(why)          # that run is over, what was asked of it is lost; another one will be opened
    pipe.fail(why)          # by the user: it does not keep to the protocol; `gone` follows

A run that is given up has its pipes closed, and the parent is asked to end it and start it again.
What a program writes to standard error is logged with its name, so many lines a time and no more.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import ProgramKind
from smtpd_ps.lookup.program_pipe import READ_BYTES, LinePipe
from smtpd_ps.runtime.loop import Loop

MAX_ERROR_LINE = 1024
MAX_ERROR_LINES = 100  # logged in a window; the others are counted
ERROR_WINDOW_SECS = 10.0


State = Literal["running", "registering", "not running"]


@dataclass(frozen=True, slots=True)
class Figures:
    """How a program does, for `show tables` and `show filters`."""

    state: State
    in_flight: int
    asked: int
    failed: int
    latencies_secs: tuple[float, ...]  # of the newest answers
    offers: str


class User(Protocol):
    """Who speaks a program's protocol."""

    def opened(self, pipe: LinePipe) -> None:
        """A new run of the program."""

    def line(self, line: bytes) -> None:
        """It wrote a line."""

    def gone(self, why: str) -> None:
        """The run is over."""


@dataclass(slots=True)
class Run:
    """One run of a program."""

    kind: ProgramKind
    name: str
    instance: int
    pipe: LinePipe
    errors: "_Errors"

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


class Programs:
    """All programs. Before `attach` nothing is sent to the parent, but kept until then."""

    def __init__(self, loop: Loop, warn: Callable[[str], None]) -> None:
        self._loop, self._warn = loop, warn
        self._users: dict[tuple[ProgramKind, str], User] = {}
        self._runs: dict[tuple[ProgramKind, str], Run] = {}
        self._figures: dict[tuple[ProgramKind, str], Callable[[], Figures]] = {}
        self.starts: dict[tuple[ProgramKind, str], int] = {}  # by kind and name, for `show`
        self._send: Callable[[m.Message], None] | None = None
        self._unsent: list[m.ProgramFailed] = []

    def use(self, kind: ProgramKind, name: str, user: User, figures: Callable[[], Figures] | None = None) -> None:
        """`user` speaks to the program of that name from its next run on; `figures` tell how it does."""
        self._users[kind, name] = user
        if figures is not None:
            self._figures[kind, name] = figures

    def states(self, client: int, wanted: ProgramKind) -> list[m.ProgramState]:
        """How the programs of a kind do."""
        out = []
        for (kind, name), figures in self._figures.items():
            if kind != wanted:
                continue
            now = figures()
            latencies = sorted(now.latencies_secs)
            p50, p95, p99 = (percentile_usecs(latencies, part) for part in (50, 95, 99))
            out.append(m.ProgramState(
                client, kind, name, now.state, self.starts.get((kind, name), 0), now.in_flight, now.asked, now.failed,
                p50, p95, p99, now.offers,
            ))  # fmt: skip
        return out

    def attach(self, send: Callable[[m.Message], None]) -> None:
        """How to reach the parent."""
        self._send = send
        unsent, self._unsent = self._unsent, []
        for message in unsent:
            send(message)

    def await_users(self, ready: Callable[[], bool], patience_secs: float) -> None:
        """Turn the loop until `ready`, for `patience_secs` at most. For the set-up, before anyone is served."""
        deadline = self._loop.now() + patience_secs
        while not ready() and (left_secs := deadline - self._loop.now()) > 0:
            self._loop.turn(left_secs)

    def started(self, message: m.Program, input_fd: int, output_fd: int, error_fd: int) -> None:
        """The parent has started a program."""
        key = (message.kind, message.name)
        user = self._users.get(key)
        if user is None:
            self._warn(f"{message.kind} {message.name} runs, and nobody here uses it")
            for fd in (input_fd, output_fd, error_fd):
                os.close(fd)
            return
        earlier = self._runs.get(key)
        if earlier is not None:
            self._over(earlier, "it was started again")
        errors = _Errors(self._loop, self._warn, error_fd, f"{message.kind} {message.name}")
        pipe = LinePipe(self._loop, input_fd, output_fd, user.line, lambda why: self._lost(run, why))
        run = self._runs[key] = Run(message.kind, message.name, message.instance, pipe, errors)
        self.starts[key] = message.instance
        user.opened(pipe)

    def ended(self, message: m.ProgramGone) -> None:
        """The parent says that a program has ended, or could not be started; it has logged it."""
        key = (message.kind, message.name)
        run = self._runs.get(key)
        if run is not None and run.instance == message.instance:
            self._over(run, message.text)

    def _lost(self, run: Run, why: str) -> None:
        """Its pipe has closed, by its doing or ours."""
        if self._runs.get((run.kind, run.name)) is not run:
            return
        run.errors.finish()
        self._warn(f"{run}: {why}; it is given up")
        failed = m.ProgramFailed(run.kind, run.name, run.instance)
        if self._send is None:
            self._unsent.append(failed)
        else:
            self._send(failed)
        self._over(run, why)

    def _over(self, run: Run, why: str) -> None:
        del self._runs[run.kind, run.name]
        run.pipe.close()
        run.errors.finish()
        self._users[run.kind, run.name].gone(why)

    def running(self) -> Iterable[Run]:
        """Those that run."""
        return self._runs.values()


def percentile_usecs(latencies_secs: Sequence[float], part: int) -> int:
    """The latency, of sorted ones, that `part` percent do not exceed; 0 of none."""
    if not latencies_secs:
        return 0
    return int(latencies_secs[max(0, -(-len(latencies_secs) * part // 100) - 1)] * 1_000_000)


class _Errors:
    """Standard error of one run: lines for the log."""

    def __init__(self, loop: Loop, warn: Callable[[str], None], fd: int, name: str) -> None:
        self._loop, self._warn, self._fd, self._name = loop, warn, fd, name
        self._rest = b""
        self._window_ends = 0.0
        self._logged = self._dropped = 0
        self._closed = False
        os.set_blocking(fd, False)
        loop.read_on(fd, self._on_readable)

    def _on_readable(self) -> None:
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._close()
            return
        *lines, rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._say(line)
        if len(rest) > MAX_ERROR_LINE:
            self._say(rest)
            rest = b""
        self._rest = rest

    def _say(self, line: bytes) -> None:
        now = self._loop.now()
        if now >= self._window_ends:
            self._tell_dropped()
            self._window_ends, self._logged = now + ERROR_WINDOW_SECS, 0
        if self._logged >= MAX_ERROR_LINES:
            self._dropped += 1
        elif text := line[:MAX_ERROR_LINE].decode(errors="backslashreplace").rstrip():
            self._logged += 1
            self._warn(f"{self._name} says: {text}")

    def _tell_dropped(self) -> None:
        if self._dropped:
            self._warn(f"{self._name} said {self._dropped} more lines, which were not logged")
            self._dropped = 0

    def finish(self) -> None:
        """The program is over or given up: take what it has written so far, and close."""
        for _ in range(4):
            if not self._closed:
                self._on_readable()
        self._close()

    def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._loop.forget(self._fd)
            os.close(self._fd)
            if self._rest:
                self._say(self._rest)
            self._tell_dropped()
