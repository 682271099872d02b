"""A message with bytes above 127 for a host that did not offer 8BITMIME.

Runs in delivery; hands message bytes to pure/seven_bit, a large body a piece at a time.
"""

import os
from errno import EIO

from smtpd_ps.contract.values import Status
from smtpd_ps.delivery.tasks import Task
from smtpd_ps.pure.seven_bit import Scan, Unconvertible, seven_bit
from smtpd_ps.pure.smtp_client_events import Answer, Mail

PIECE_BYTES = 131_072


def downgrade(mail: Mail) -> Answer | None:
    """Make `mail` one of 7 bits, or say why that cannot be. A body in a file is only looked through."""
    try:
        if mail.body is not None:
            mail.body = seven_bit(mail.body)
            mail.size_bytes = len(mail.body)
        else:
            assert isinstance(mail.task, Task)
            mail.leaves = _leaves(mail.task)
            mail.size_bytes = 0  # it will be larger, and is not known before it is written
    except Unconvertible as error:
        return Status.PERMFAIL, str(error)
    except OSError as error:
        return Status.TEMPFAIL, f"451 4.3.0 Cannot read the message: {os.strerror(error.errno or 0)}"
    mail.eight_bit = False
    return None


def _leaves(task: Task) -> frozenset[int]:
    """The parts to encode. Raises Unconvertible, OSError."""
    scan = Scan()
    at_bytes = 0
    while at_bytes < task.job.size_bytes:
        piece = os.pread(task.fd, min(PIECE_BYTES, task.job.size_bytes - at_bytes), at_bytes)
        if not piece:
            raise OSError(EIO, "the stored message is shorter than it was")
        scan.feed(piece)
        at_bytes += len(piece)
    scan.finish()
    return frozenset(scan.leaves)
