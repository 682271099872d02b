"""The log: one escaped line an event, to standard error or to syslog (facility mail).

Runs in every process. A line may quote bytes of strangers, so everything outside printable
characters is escaped here, whatever the caller did. A process that serves writes the lines of a loop turn
together, after the turn's replies (`gather`).
"""

import codecs
import os
import select
import socket
import sys
from collections.abc import Callable
from enum import IntEnum
from types import TracebackType

from smtpd_ps.contract.values import Process

MAX_LINE = 4096
GATHERED_LINES = 64  # are written before the turn's end
_FACILITY_MAIL = 2 << 3
_SYSLOG_PATHS = ("/dev/log", "/var/run/log")
codecs.lookup("unicode_escape")  # imported now: a confined process could not do it at its first odd byte


class Level(IntEnum):
    """syslog's severities, those we use."""

    CRITICAL = 2
    ERROR = 3
    WARNING = 4
    INFO = 6
    DEBUG = 7


def escape(text: str) -> str:
    """`text` as one printable line; anything else as a backslash escape."""
    if text.isprintable():
        return text[:MAX_LINE]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:MAX_LINE])


class Log:
    """Opened before confinement; needs no file afterwards."""

    def __init__(self, process: Process, foreground: bool, verbose: int = 0) -> None:
        self.process = process
        self.verbose = verbose
        self._socket = None if foreground else _connect()
        self.follow: Callable[[str], None] | None = None  # hears each line too (runtime/following)
        self._at_turn_end: Callable[[Callable[[], None]], None] | None = None
        self._held: list[tuple[Level, str]] = []

    @property
    def fileno(self) -> int | None:
        """The syslog socket's descriptor, if there is one."""
        return self._socket.fileno() if self._socket else None

    def critical(self, text: str) -> None:
        """The daemon will stop."""
        self._write(Level.CRITICAL, text)

    def error(self, text: str) -> None:
        """Something failed and someone should look."""
        self._write(Level.ERROR, text)

    def warning(self, text: str) -> None:
        """Something is off, or a peer misbehaves."""
        self._write(Level.WARNING, text)

    def info(self, text: str) -> None:
        """What OpenSMTPD logs of every session and delivery."""
        self._write(Level.INFO, text)

    def debug(self, text: str) -> None:
        """Only with -v or `log verbose`."""
        if self.verbose:
            self._write(Level.DEBUG, text)

    def trace(self, text: str) -> None:
        """What the operator asked to be traced (runtime/tracing)."""
        self._write(Level.DEBUG, text)

    def uncaught(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """For sys.excepthook: what nobody caught goes where an operator looks, a line a frame."""
        self.critical(f"{kind.__name__}: {error}")
        while trace is not None:
            code = trace.tb_frame.f_code
            self.critical(f"Traceback: {code.co_filename}:{trace.tb_lineno} {code.co_name}")
            trace = trace.tb_next

    def gather(self, at_turn_end: Callable[[Callable[[], None]], None] | None) -> None:
        """Write what is said of sessions and deliveries when the turn ends: the loop's `at_turn_end`, or None to
        write each line at once again. A warning or worse is never kept, nor what was said before it.
        """
        self._at_turn_end = at_turn_end
        self._write_held()

    def _write(self, level: Level, text: str) -> None:
        text = escape(text)
        if self.follow is not None:
            self.follow(text)
        self._held.append((level, f"{self.process.title}: {text}"))
        if self._at_turn_end is None or level <= Level.WARNING or len(self._held) >= GATHERED_LINES:
            self._write_held()
        elif len(self._held) == 1:
            self._at_turn_end(self._turn_ends)

    def _turn_ends(self) -> None:
        if self._at_turn_end is not None:
            self._at_turn_end(self._write_held)  # behind the replies that this end of the turn sends

    def _write_held(self) -> None:
        held, self._held = self._held, []
        if self._socket is None:
            _to_stderr([line for _level, line in held])
            return
        for level, line in held:
            try:
                packet = f"<{_FACILITY_MAIL | level}>smtpd_ps[{os.getpid()}]: {line}"
                self._socket.send(packet.encode("utf-8", "backslashreplace"))
            except OSError:
                _to_stderr([line])  # a full or gone syslog must not stop mail


def _to_stderr(lines: list[str]) -> None:
    """With few writes, each small enough not to be mixed with another process's where it is a pipe."""
    text = ""
    for line in lines:
        if text and len(text) + len(line) >= select.PIPE_BUF:
            sys.stderr.write(text)
            text = ""
        text += line + "\n"
    if text:
        sys.stderr.write(text)


def _connect() -> socket.socket | None:
    for path in _SYSLOG_PATHS:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            continue
        sock.setblocking(False)
        return sock
    return None
