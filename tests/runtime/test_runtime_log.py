"""Log lines, whatever they quote."""

import subprocess
import sys

import pytest

from smtpd_ps.contract.values import Process
from smtpd_ps.runtime.log import MAX_LINE, Log, escape


def test_a_line_stays_a_line():
    """Line breaks and escape sequences of strangers are shown, not obeyed; length is bounded."""
    assert escape("a\r\nb\x1b[2J") == "a\\r\\nb\\x1b[2J"
    assert len(escape("x" * 10_000)) == MAX_LINE


def test_escaping_imports_nothing_late():
    """The codec comes with the module: a confined process cannot open its file any more."""
    code = "import sys, smtpd_ps.runtime.log; sys.exit('encodings.unicode_escape' not in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_nobody_caught_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    """An exception ends the process, but not without its lines in the log, escaped like any other."""
    log = Log(Process.QUEUE, foreground=True)
    try:
        raise ValueError("odd\nbytes")
    except ValueError as error:
        log.uncaught(type(error), error, error.__traceback__)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "queue: ValueError: odd\\nbytes"
    assert lines[1].startswith("queue: Traceback: ") and lines[1].endswith(" test_what_nobody_caught_is_logged")
