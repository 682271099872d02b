"""Filter and table programs: started as their own users, started again when they end.

Runs in the parent, as root. What is run, and as whom, comes from smtpd.conf alone. Their input,
output and errors are pipes whose other ends lookup gets; not a byte of them is seen here. Lookup
names a program that must be ended (ProgramFailed), and can neither start another nor change one.
"""

import os
import signal
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass

from smtpd_ps.config.commands import ProgramError, argv, identity
from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ProgramSettings
from smtpd_ps.contract.values import ProgramKind
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop, Timer
from smtpd_ps.runtime.spawn import describe_exit, spawn_program

FIRST_DELAY_SECS = 1.0
LONGEST_DELAY_SECS = 60.0
STABLE_SECS = 60.0  # one that ran so long begins with the first delay again
LEAVE_SECS = 2.0  # between the end of its input, SIGTERM and SIGKILL
_END_STEP_SECS = 0.5  # the same when the daemon stops
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": "/",
}

Pipes = tuple[int, int, int]  # lookup's ends of its input, output and errors
Started = tuple[m.Program, Pipes]


@dataclass(slots=True, eq=False)
class _Program:
    settings: ProgramSettings
    instance: int = 0
    pid: int = 0  # 0: it does not run
    user: str = ""
    group: str = ""
    started_at: float = 0.0
    failures: int = 0
    timer: Timer | None = None  # of the next start, or of the next step to its end

    def __str__(self) -> str:
        return f"{self.settings.kind} {self.settings.name}"

    def cancel(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Programs:
    """The programs of one generation. `tell` sends to its lookup, and drops what nobody takes."""

    def __init__(
        self, loop: Loop, log: Log, settings: Iterable[ProgramSettings], privileged: bool, tell: Callable[..., None]
    ) -> None:
        self._loop, self._log, self._privileged, self._tell = loop, log, privileged, tell
        self._programs: dict[tuple[ProgramKind, str], _Program] = {
            (each.kind, each.name): _Program(each) for each in settings
        }
        self._serving = False  # lookup takes messages
        self._released = False
        self._ended_early: list[tuple[_Program, str]] = []

    # Starting.

    def start(self) -> list[Started]:
        """Start all; what to hand to lookup with its set-up. One that cannot be started is tried again later."""
        started: list[Started] = []
        for program in self._programs.values():
            made = self._start(program)
            if made is not None:
                started.append(made)
        return started

    def serve(self) -> None:
        """Lookup serves: tell it what has happened meanwhile, and go on from there."""
        self._serving = True
        ended, self._ended_early = self._ended_early, []
        for program, text in ended:
            self._again(program, text)

    def _start(self, program: _Program) -> Started | None:
        program.instance = program.instance % (2**32 - 1) + 1
        program.started_at = self._loop.now()
        try:
            pipes = self._spawn(program)
        except (ProgramError, OSError) as error:
            text = f"cannot be started: {error}"
            self._log.error(f"{program} {text}")
            self._again(program, text)
            return None
        self._log.info(f"{program} started as {program.user or 'ourselves'} (pid {program.pid})")
        return m.Program(program.settings.kind, program.settings.name, program.instance), pipes

    def _spawn(self, program: _Program) -> Pipes:
        """Raises ProgramError, OSError."""
        settings = program.settings
        path, words = argv(settings)
        ids = None
        if self._privileged:
            program.user, uid, program.group, gid = identity(settings)
            ids = uid, gid
            if uid == 0:
                self._log.warning(f"{program} runs as root, as smtpd.conf says")
        with ExitStack() as theirs, ExitStack() as ours:
            their_in, our_in = _pipe(theirs, ours)
            our_out, their_out = _pipe(ours, theirs)
            our_err, their_err = _pipe(ours, theirs)
            root = settings.chroot if self._privileged else ""
            program.pid = spawn_program(path, words, ENVIRONMENT, (their_in, their_out, their_err), ids, root)
            ours.pop_all()
        return our_in, our_out, our_err

    def _again(self, program: _Program, text: str) -> None:
        """Start it later, and tell lookup that it is gone."""
        if self._released:
            return
        if not self._serving:
            self._ended_early.append((program, text))
            return
        if self._loop.now() - program.started_at >= STABLE_SECS:
            program.failures = 0
        delay_secs = min(LONGEST_DELAY_SECS, FIRST_DELAY_SECS * 2 ** min(program.failures, 16))
        program.failures += 1
        program.timer = self._loop.call_later(delay_secs, lambda: self._restart(program))
        self._log.info(f"{program} is started again in {delay_secs:.0f} s")
        settings = program.settings
        self._tell(m.ProgramGone(settings.kind, settings.name, program.instance, text[:512], int(delay_secs)))

    def _restart(self, program: _Program) -> None:
        program.timer = None
        started = self._start(program)
        if started is not None:
            message, pipes = started
            self._tell(message, *pipes)

    # Ending.

    def failed(self, message: m.ProgramFailed) -> None:
        """Lookup has no more use for this instance of a program, and has closed its pipes."""
        program = self._programs.get((message.kind, message.name))
        if program is None:
            self._log.warning(f"lookup named a {message.kind} that is not in smtpd.conf")
        elif program.pid and program.instance == message.instance and program.timer is None:
            self._leave(program)

    def _leave(self, program: _Program) -> None:
        """Its input has ended; in a while it is told, then made to end."""
        program.timer = self._loop.call_later(LEAVE_SECS, lambda: self._terminate(program))

    def _terminate(self, program: _Program) -> None:
        _signal(program.pid, signal.SIGTERM)
        program.timer = self._loop.call_later(LEAVE_SECS, lambda: self._kill(program))

    def _kill(self, program: _Program) -> None:
        self._log.warning(f"ending {program} (pid {program.pid}), which does not leave")
        _signal(program.pid, signal.SIGKILL)

    def reap(self) -> None:
        """Collect those that have ended (after SIGCHLD)."""
        for program in self._programs.values():
            if not program.pid:
                continue
            pid, status = os.waitpid(program.pid, os.WNOHANG)
            if not pid:
                continue
            program.cancel()
            program.pid = 0
            text = f"ended: {describe_exit(status)}"
            if self._released:
                self._log.debug(f"{program} (pid {pid}) {text}")
            else:
                self._log.warning(f"{program} (pid {pid}) {text}")
            self._again(program, text)

    def release(self) -> None:
        """Lookup is gone, and with it the other end of their input: have them end, and start none again."""
        self._released = True
        for program in self._programs.values():
            if not program.pid:
                program.cancel()
            elif program.timer is None:
                self._leave(program)

    def end(self) -> None:
        """The daemon stops: wait a moment for those that are left, then end them by pid."""
        self._released = True
        for step in (None, signal.SIGTERM, signal.SIGKILL):
            deadline = self._loop.now() + _END_STEP_SECS
            for program in self.running:
                if step is not None:
                    _signal(program.pid, step)
            while self.running:
                self.reap()
                if self._loop.now() > deadline and step is not signal.SIGKILL:
                    break
                self._loop.sleep(0.005)

    @property
    def running(self) -> list[_Program]:
        """Those that have a process."""
        return [program for program in self._programs.values() if program.pid]

    def rows(self, client: int, index: int) -> list[m.ProgramRow]:
        """What `show processes` says of those that run."""
        return [
            m.ProgramRow(
                client, program.settings.kind, program.settings.name, index, program.pid, program.user, program.group,
                program.settings.chroot if self._privileged else "", self._privileged,
            )
            for program in self.running
        ]  # fmt: skip


def _pipe(reading: ExitStack, writing: ExitStack) -> tuple[int, int]:
    """A pipe; each side closes its end unless it is told otherwise."""
    reader, writer = os.pipe()
    reading.callback(os.close, reader)
    writing.callback(os.close, writer)
    return reader, writer


def _signal(pid: int, number: signal.Signals) -> None:
    """To the program and to what it has started, which are a session of their own."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:  # it has not come so far, and is still one of ours
        os.kill(pid, number)
