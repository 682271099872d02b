"""The body of a message on its way to a server: dots stuffed, ended by the lone dot, nothing smuggled.

Pure; runs in delivery; handles stored message bytes. Line ends must be CRLF: smtp refuses anything
else at input, and a spool that was changed by someone else is caught here (THREATS "smuggling").
"""

from smtpd_ps.pure.line_ends import find_line_dot, has_bare_line_end

END_OF_DATA = b".\r\n"


class BareLineEnd(Exception):
    """The body has a CR or LF that is not part of a CRLF."""


def stuffed(body: bytes) -> bytes:
    """`body` for the wire (RFC 5321 4.5.2), a missing last CRLF added and the lone dot put at its end.

    Raises BareLineEnd.
    """
    if has_bare_line_end(body):
        raise BareLineEnd
    if find_line_dot(body, len(body)) >= 0:
        body = body.replace(b"\r\n.", b"\r\n..")
    if body.startswith(b"."):
        body = b"." + body
    if body.endswith(b"\r\n") or not body:
        return body + END_OF_DATA
    return body + b"\r\n.\r\n"


class Stuffer:
    """The same for a body that comes in pieces cut anywhere."""

    __slots__ = ("_at_line_start", "_cr")

    def __init__(self) -> None:
        self._at_line_start = True
        self._cr = False  # a CR at the end of the last piece was held back

    def feed(self, chunk: bytes) -> bytes:
        """The next piece for the wire. Raises BareLineEnd."""
        if self._cr:
            chunk = b"\r" + chunk
            self._cr = False
        if chunk.endswith(b"\r"):
            chunk = chunk[:-1]
            self._cr = True
        if not chunk:
            return b""
        if has_bare_line_end(chunk):
            raise BareLineEnd
        dot = self._at_line_start and chunk.startswith(b".")
        self._at_line_start = chunk.endswith(b"\r\n")
        if find_line_dot(chunk, len(chunk)) >= 0:
            chunk = chunk.replace(b"\r\n.", b"\r\n..")
        return b"." + chunk if dot else chunk

    def finish(self) -> bytes:
        """The end of the body: a missing CRLF and the lone dot. Raises BareLineEnd."""
        if self._cr:
            raise BareLineEnd
        return END_OF_DATA if self._at_line_start else b"\r\n.\r\n"
