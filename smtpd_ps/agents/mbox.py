"""mbox: messages appended to the user's file under lock, each whole or not at all.

Runs in agents, as the mail user; writes to the one descriptor the parent opened. The form is
mbox(5)'s: a From line, the message with LF line ends and quoted From lines, a blank line.
"""

import fcntl
import os
import time
from collections.abc import Sequence

from smtpd_ps.agents.bodies import BodyError, Item, write_all
from smtpd_ps.agents.line_ends import ToMbox
from smtpd_ps.contract.messages import AgentResult
from smtpd_ps.contract.values import Status

DELIVERED = "Delivered"
LOCK_SECS = 5.0
LOCK_PAUSE_SECS = 0.05


class MailboxGone(Exception):
    """The file was removed or replaced since the parent opened it: a new agent must open it again."""


class Mbox:
    """Stores batches in one mailbox."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def store(self, items: Sequence[Item]) -> list[AgentResult]:
        """Append what can be appended; one result an item. Raises MailboxGone."""
        try:
            locked = self._lock()
        except OSError as error:
            return _all_failed(items, error)
        if not locked:
            return [AgentResult(item.job.job, Status.TEMPFAIL, "the mailbox is locked") for item in items]
        try:
            if os.fstat(self._fd).st_nlink == 0:
                raise MailboxGone
            return self._append(items)
        except OSError as error:
            return _all_failed(items, error)
        finally:
            self._unlock()

    def _append(self, items: Sequence[Item]) -> list[AgentResult]:
        begin = os.fstat(self._fd).st_size
        stored: list[int] = []
        results: list[AgentResult] = []
        if begin and os.pread(self._fd, 1, begin - 1) != b"\n":
            write_all(self._fd, b"\n\n")  # someone left it in the middle of a line
        for item in items:
            size = os.fstat(self._fd).st_size
            try:
                self._write(item)
            except (OSError, BodyError) as error:
                os.ftruncate(self._fd, size)
                text = os.strerror(error.errno or 0) if isinstance(error, OSError) else str(error)
                results.append(AgentResult(item.job.job, Status.TEMPFAIL, text))
            else:
                stored.append(item.job.job)
        try:
            os.fsync(self._fd)
        except OSError:
            os.ftruncate(self._fd, begin)
            raise
        return results + [AgentResult(job, Status.OK, DELIVERED) for job in stored]

    def _write(self, item: Item) -> None:
        sender = item.job.sender or "MAILER-DAEMON"
        parts = [f"From {sender} {time.asctime()}\n".encode()]
        size = 0
        convert = ToMbox()
        for chunk in item.chunks():
            parts.append(convert.feed(chunk))
            size += len(parts[-1])
            if size > 262_144:
                write_all(self._fd, b"".join(parts))
                parts.clear()
                size = 0
        parts.append(convert.finish())
        write_all(self._fd, b"".join(parts))

    def _lock(self) -> bool:
        """Both kinds of lock that mail programs take; False when another program keeps one too long."""
        deadline = time.monotonic() + LOCK_SECS
        while True:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                try:
                    fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    fcntl.flock(self._fd, fcntl.LOCK_UN)
                    raise
            except (BlockingIOError, PermissionError):
                if time.monotonic() > deadline:
                    return False
                time.sleep(LOCK_PAUSE_SECS)
            else:
                return True

    def _unlock(self) -> None:
        fcntl.lockf(self._fd, fcntl.LOCK_UN)
        fcntl.flock(self._fd, fcntl.LOCK_UN)


def _all_failed(items: Sequence[Item], error: OSError) -> list[AgentResult]:
    text = os.strerror(error.errno or 0)
    return [AgentResult(item.job.job, Status.TEMPFAIL, text) for item in items]
