"""What an MDA's end means, and the last line of what it wrote.

Pure; runs in agents. The output is any program's, often one that quotes a stranger's message, so
it is bounded here and escaped where it is logged or bounced (FEATURES A10, QUIRKS 34).
"""

import errno
from dataclasses import dataclass

from smtpd_ps.contract.values import Status

MAX_LINE_BYTES = 256
EX_OSERR, EX_TEMPFAIL = 71, 75
_TEMPORARY = frozenset((EX_OSERR, EX_TEMPFAIL))
_SIGNALLED = range(129, 129 + 64)  # how a shell says that what it ran was ended by a signal
_WORDS = {
    64: "command line usage error",
    65: "data format error",
    66: "cannot open input",
    67: "user unknown",
    68: "host name unknown",
    69: "service unavailable",
    70: "internal software error",
    EX_OSERR: "system resource problem",
    72: "critical OS file missing",
    73: "cannot create the output file",
    74: "input/output error",
    EX_TEMPFAIL: "temporary failure",
    76: "remote error in protocol",
    77: "permission denied",
    78: "local configuration error",
    126: "the command cannot be executed",
    127: "the command was not found",
}


class LastLine:
    """Takes output piece by piece and keeps the beginning of its last line that is not blank."""

    __slots__ = ("_kept", "_line")

    def __init__(self) -> None:
        self._line = b""  # the line now being written, as much as is kept of it
        self._kept = b""

    def feed(self, chunk: bytes) -> None:
        """The next piece, cut anywhere."""
        *whole, rest = chunk.split(b"\n")
        if whole:
            whole[0] = self._line + whole[0]
            self._line = b""
            last = next((line for line in reversed(whole) if line.strip()), None)
            if last is not None:
                self._kept = last[:MAX_LINE_BYTES]
        self._line = (self._line + rest)[:MAX_LINE_BYTES]

    @property
    def text(self) -> str:
        """The line, "" where there was none."""
        last = self._line if self._line.strip() else self._kept
        return last.strip().decode(errors="backslashreplace")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of the message, and why, as queue, log and bounce say it."""

    status: Status
    text: str


def judge(exit_code: int, last_line: str) -> Verdict:
    """Of a command that has ended; `exit_code` is negative for a signal (os.waitstatus_to_exitcode)."""
    if exit_code == 0:
        return Verdict(Status.OK, "Delivered")
    signal = -exit_code if exit_code < 0 else exit_code - 128 if exit_code in _SIGNALLED else 0
    if signal:
        return Verdict(Status.TEMPFAIL, _text("4.3.0", f"terminated; signal {signal}", last_line))
    why = _WORDS.get(exit_code, f"exit status {exit_code}")
    if exit_code in _TEMPORARY:
        return Verdict(Status.TEMPFAIL, _text("4.3.0", why, last_line))
    return Verdict(Status.PERMFAIL, _text("5.3.0", why, last_line))


def timed_out(last_line: str) -> Verdict:
    """Of a command that took too long."""
    return Verdict(Status.TEMPFAIL, _text("4.3.0", "terminated; timeout", last_line))


def not_started(error: OSError) -> Verdict:
    """Of a command that the system did not start."""
    return Verdict(Status.TEMPFAIL, _text("4.3.0", errno.errorcode.get(error.errno or 0, "cannot start it"), ""))


def _text(code: str, why: str, last_line: str) -> str:
    return f'{code} {why}: "{last_line}"' if last_line else f"{code} {why}"
