"""Whole lines out of what was read.

Runs in filter and table programs; cuts what the mail server writes.
"""

MAX_LINE_BYTES = 1 << 20  # the server writes far shorter ones


class ProtocolError(Exception):
    """A line that the server should not have written; the text says which."""


class LineBuffer:
    """`cut` gives the lines that are complete, without their ends, and keeps the rest."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._rest_bytes = 0

    def cut(self, data: bytes) -> list[bytes]:
        """Raises ProtocolError where a line does not end."""
        head, newline, tail = data.partition(b"\n")
        if not newline:
            self._keep(data)
            return []
        if self._rest:
            head = b"".join(self._rest) + head
            self._rest, self._rest_bytes = [], 0
        *lines, rest = tail.split(b"\n")
        if rest:
            self._keep(rest)
        return [head, *lines]

    def _keep(self, data: bytes) -> None:
        self._rest.append(data)
        self._rest_bytes += len(data)
        if self._rest_bytes > MAX_LINE_BYTES:
            raise ProtocolError(f"a line of more than {MAX_LINE_BYTES} bytes")
