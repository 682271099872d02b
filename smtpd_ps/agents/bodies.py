"""One message to store, wherever its body is: in the job, or in a file that came with it.

Runs in agents. The body is bytes of strangers and is only copied.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass

from smtpd_ps.contract import messages as m
from smtpd_ps.pure.delivery_headers import local_headers

CHUNK_BYTES = 262_144


class BodyError(Exception):
    """The body is not what the job says."""


@dataclass(slots=True)
class Item:
    """A job, and the descriptor of its body where it has one; the descriptor is the item's to close."""

    job: m.AgentJob | m.AgentJobFile
    fd: int = -1

    @property
    def headers(self) -> bytes:
        """What goes before the body, with CRLF line ends."""
        return local_headers(self.job.sender, self.job.rcpt)

    def chunks(self) -> Iterator[bytes]:
        """Headers and body with CRLF line ends. Raises BodyError, OSError."""
        if isinstance(self.job, m.AgentJob):
            yield self.headers + self.job.body
            return
        yield self.headers
        at, size = 0, self.job.size_bytes
        while at < size:
            chunk = os.pread(self.fd, min(CHUNK_BYTES, size - at), at)
            if not chunk:
                raise BodyError(f"the body ends after {at} of {size} bytes")
            at += len(chunk)
            yield chunk

    def start(self, size_bytes: int) -> bytes:
        """The beginning of the body, as it is stored. Raises OSError."""
        if isinstance(self.job, m.AgentJob):
            return self.job.body[:size_bytes]
        return os.pread(self.fd, min(size_bytes, self.job.size_bytes), 0)

    def close(self) -> None:
        """Give the descriptor back."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def write_all(fd: int, data: bytes) -> None:
    """Write all of `data`. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
