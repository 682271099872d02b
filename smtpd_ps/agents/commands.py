"""One run of `/bin/sh -c` as the mail user: its input, environment, output, time limit and end.

Runs in agents that run commands. What the command is was decided elsewhere; its message is bytes of
strangers, its output any program's. The message is given as a file that is complete before the
command starts: whatever becomes of this process, no command ever takes half a message for a whole one.
"""

import os
import signal
from collections.abc import Callable, Mapping

from smtpd_ps.agents.bodies import BodyError, Item, write_all
from smtpd_ps.agents.line_ends import ToLf
from smtpd_ps.pure.mda_result import EX_OSERR, LastLine, Verdict, judge, timed_out
from smtpd_ps.runtime.loop import Loop, Timer

SHELL = "/bin/sh"
IN_MEMORY_BYTES = 262_144  # a larger message is in a file
SCRATCH = "/tmp"  # noqa: S108  # the name is random, the file made exclusively, and unlinked at once
READ_BYTES = 65_536
LAST_READS = 16  # of output that is there when the command has ended
_DEFAULTS = (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGXFSZ)


def message_file(item: Item, size_bytes: int) -> int:
    """A descriptor of the whole message with LF line ends, at its start. Raises OSError, BodyError."""
    if size_bytes <= IN_MEMORY_BYTES and hasattr(os, "memfd_create"):
        fd = os.memfd_create("message", os.MFD_CLOEXEC)
    else:
        fd = scratch_file()
    try:
        convert = ToLf()
        for chunk in item.chunks():
            write_all(fd, convert.feed(chunk))
        write_all(fd, convert.finish())
        os.lseek(fd, 0, os.SEEK_SET)
    except (OSError, BodyError):
        os.close(fd)
        raise
    return fd


def scratch_file() -> int:
    """A file without a name."""
    path = f"{SCRATCH}/smtpd_ps.{os.urandom(16).hex()}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    return fd


class Command:
    """A command under way. `done` is called once, with what became of it."""

    def __init__(self, loop: Loop, job: int, done: "Callable[[Command, Verdict], None]") -> None:
        self._loop = loop
        self.job = job
        self._done = done
        self._pid = 0
        self._output = -1
        self._last = LastLine()
        self._timer: Timer | None = None
        self._timed_out = False

    def start(self, line: str, environment: Mapping[str, str], home: str, message: int, limit_secs: float) -> None:
        """Run `line` with the file `message` as its input, in a session of its own. Raises OSError."""
        self._output, writer = os.pipe()
        try:
            os.set_blocking(self._output, False)
            self._pid = os.fork()
            if not self._pid:
                _become(line, environment, home, message, writer)
        except OSError:
            os.close(self._output)
            raise
        finally:
            os.close(writer)
        self._loop.read_on(self._output, self._readable)
        self._timer = self._loop.call_later(limit_secs, self._too_long)

    def _readable(self) -> None:
        self._read()

    def _read(self) -> bool:
        """Take what was written; False at its end, or where there is nothing now."""
        if self._output < 0:
            return False
        try:
            chunk = os.read(self._output, READ_BYTES)
        except BlockingIOError:
            return False
        if chunk:
            self._last.feed(chunk)
            return True
        self._close_output()
        return False

    def _close_output(self) -> None:
        if self._output >= 0:
            self._loop.forget(self._output)
            os.close(self._output)
            self._output = -1

    def _too_long(self) -> None:
        self._timed_out = True
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of its process group."""
        for kill in (os.killpg, os.kill):  # the second where it has not made its group yet
            try:
                kill(self._pid, number)
            except ProcessLookupError:
                continue
            return

    def ended(self) -> bool:
        """Whether it has ended; then `done` was called."""
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if not pid:
            return False
        if self._timer is not None:
            self._timer.cancel()
        for _ in range(LAST_READS):  # what it started may still write: it is not waited for
            if not self._read():
                break
        self._close_output()
        if self._timed_out:
            verdict = timed_out(self._last.text)
        else:
            verdict = judge(os.waitstatus_to_exitcode(status), self._last.text)
        self._done(self, verdict)
        return True


def _become(line: str, environment: Mapping[str, str], home: str, message: int, writer: int) -> None:
    """In the forked process: become the command. Never returns."""
    try:
        os.setsid()
        for number in _DEFAULTS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.dup2(message, 0)
        os.dup2(writer, 1)
        os.dup2(writer, 2)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        try:
            os.chdir(home)
        except OSError:
            os.chdir("/")
        os.execve(SHELL, [SHELL, "-c", line], dict(environment))  # noqa: S606  # a shell is what mda asks for
    finally:
        os._exit(EX_OSERR)
