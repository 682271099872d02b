"""Log lines, whatever they quote."""

import select
import subprocess
import sys

import pytest

from smtpd_ps.contract.values import Process
from smtpd_ps.runtime.log import GATHERED_LINES, MAX_LINE, Log, escape
from smtpd_ps.runtime.loop import Loop


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


def test_lines_of_a_turn_are_written_together(capsys: pytest.CaptureFixture[str]) -> None:
    """In their order, once the turn's replies are sent; and each at once before and after that."""
    log, loop, seen = Log(Process.SMTP, foreground=True), Loop(), []
    log.info("before")
    assert capsys.readouterr().err == "smtp: before\n"
    log.gather(loop.at_turn_end)
    loop.call_soon(lambda: log.info("one"))
    loop.call_soon(lambda: log.info("two"))
    loop.call_soon(lambda: loop.at_turn_end(lambda: seen.append(capsys.readouterr().err)))  # a reply
    loop.turn()
    assert seen == [""]
    assert capsys.readouterr().err == "smtp: one\nsmtp: two\n"
    loop.call_soon(lambda: log.info("three"))
    loop.turn()
    assert capsys.readouterr().err == "smtp: three\n"
    log.info("four")
    log.gather(None)
    log.info("five")
    assert capsys.readouterr().err == "smtp: four\nsmtp: five\n"
    loop.close()


def test_a_warning_waits_for_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """What may be the last words is written at once, with what was said before; and so are very many lines."""
    log, loop = Log(Process.SMTP, foreground=True), Loop()
    log.gather(loop.at_turn_end)
    log.info("said before")
    log.warning("odd")
    assert capsys.readouterr().err == "smtp: said before\nsmtp: odd\n"
    for _ in range(GATHERED_LINES):
        log.info("much")
    assert capsys.readouterr().err == "smtp: much\n" * GATHERED_LINES
    loop.close()


def test_writes_are_small_enough_to_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines of several processes in one pipe are not mixed: no write of several lines is over PIPE_BUF."""
    writes: list[str] = []
    monkeypatch.setattr(sys.stderr, "write", writes.append)
    log, loop = Log(Process.SMTP, foreground=True), Loop()
    log.gather(loop.at_turn_end)
    lines = [str(number) * 300 for number in range(10, 50)]
    for line in lines:
        log.info(line)
    log.gather(None)
    assert "".join(writes) == "".join(f"smtp: {line}\n" for line in lines)
    assert 1 < len(writes) < 40
    assert all(len(text) <= select.PIPE_BUF for text in writes if text.count("\n") > 1)
    loop.close()
