"""`smtpctl_ps top`: the daemon's numbers on the whole screen, each second, with their change.

Runs in the operator's command, on a terminal that understands ANSI sequences. What it draws is bounded by
the window; it asks for counters alone, whatever is in the queue.
"""

import os
import select
import sys
import termios
import time
import tty
from collections.abc import Iterator, Mapping

from smtpd_ps.cli.ask import Conversation, DaemonError
from smtpd_ps.cli.monitor import HEADER, digest, line
from smtpd_ps.cli.shows import human_secs

_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
_HOME, _CLEAR_LINE, _CLEAR_REST = "\x1b[H", "\x1b[K", "\x1b[J"
KEYS = "q quits"
_WIDTH = 44  # of a column: name, value, change
_QUIT = (b"q", b"Q", b"\x03", b"\x04")


def top(state_dir: str | None, seconds: float = 1.0) -> int:
    """Draw until q is pressed. Raises DaemonError where there is no terminal, or no daemon any more."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise DaemonError("top draws on a terminal; use monitor or show stats")
    fd = sys.stdin.fileno()
    saved = termios.tcgetattr(fd)
    with Conversation(state_dir) as conversation:
        try:
            tty.setcbreak(fd)
            _put(_ENTER)
            _run(conversation, fd, seconds)
        except KeyboardInterrupt:
            return 0
        finally:
            _put(_LEAVE)
            termios.tcsetattr(fd, termios.TCSADRAIN, saved)
    return 0


def _run(conversation: Conversation, fd: int, seconds: float) -> None:
    before: dict[str, int] = {}
    then = time.monotonic()
    while True:
        counters = conversation.counters()
        now = time.monotonic()
        size = os.get_terminal_size(sys.stdout.fileno())
        lines = page(counters, before, max(now - then, 0.001), size.columns, size.lines)
        _put(_HOME + "".join(f"{text}{_CLEAR_LINE}\r\n" for text in lines) + _CLEAR_REST)
        before, then = counters, now
        ready, _, _ = select.select([fd], [], [], seconds)
        if ready and os.read(fd, 16)[:1] in _QUIT:
            return


def _put(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def page(
    counters: Mapping[str, int], before: Mapping[str, int], elapsed_secs: float, columns: int, rows: int
) -> list[str]:
    """The lines of a screen of `columns` and `rows`; the last row stays free for the cursor."""
    first = max(0, counters.get("scheduler.envelope", 0) - counters.get("scheduler.envelope.incoming", 0))
    change = digest(counters, first).since(digest(before or counters, first))
    head = [
        f"smtpd_ps   up {human_secs(counters.get('uptime', 0))}   {time.strftime('%H:%M:%S')}   {KEYS}",
        "",
        *HEADER.splitlines(),
        line(counters, change),
        "",
    ]
    cells = list(_cells(counters, before, elapsed_secs))
    across = max(1, columns // _WIDTH)
    room = max(0, rows - 1 - len(head))
    down = min(room, -(-len(cells) // across))
    body = []
    for row in range(down):
        across_it = (cells[at + row] for at in range(0, len(cells), down) if at + row < len(cells))
        body.append("".join(cell[:_WIDTH].ljust(_WIDTH) for cell in across_it))
    return [text.rstrip()[:columns] for text in (head + body)[: rows - 1]]


def _cells(counters: Mapping[str, int], before: Mapping[str, int], elapsed_secs: float) -> Iterator[str]:
    for name, value in sorted(counters.items()):
        if name == "uptime":
            continue
        rate = (value - before.get(name, value)) / elapsed_secs
        shown = f"{rate:+.0f}/s" if round(rate) else ""
        yield f"{name[:30]:30} {value:>6} {shown:>6}"
