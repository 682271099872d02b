"""What delivery has to do: a message and those of its recipients that go together.

Runs in delivery.
"""

import os

from smtpd_ps.contract.settings import ActionSettings
from smtpd_ps.contract.values import Job, Recipient
from smtpd_ps.pure.delivery_headers import HEADER_SEARCH_BYTES, delivered_to
from smtpd_ps.pure.sender_rewrite import rewrite_sender

MAX_TRIES = 3  # connections that may break under one task before its recipients wait for the queue's next try


class Task:
    """Recipients that share one transaction, or one recipient for an agent.

    `fd` is the body of a large message, or -1; it belongs to the task, which `close` ends. `sender` is
    what the next host is told.
    """

    __slots__ = ("action", "fd", "job", "recipients", "sender", "tries")

    def __init__(
        self, job: Job, action: ActionSettings, recipients: list[Recipient], fd: int = -1, sender: str | None = None
    ) -> None:
        self.sender = rewrite_sender(job.sender, action.relay_mail_from) if sender is None else sender
        self.job = job
        self.action = action
        self.recipients = recipients
        self.fd = fd
        self.tries = 0

    def close(self) -> None:
        """Give the descriptor back. Harmless when done."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def previous_deliveries(job: Job, fd: int) -> frozenset[bytes]:
    """The addresses that the message's Delivered-To lines name: delivering to them again is a loop."""
    return delivered_to(os.pread(fd, HEADER_SEARCH_BYTES, 0) if fd >= 0 else job.body)


def share_fd(fd: int) -> int:
    """A descriptor of the same body for another task; -1 stays -1."""
    return os.dup(fd) if fd >= 0 else -1
