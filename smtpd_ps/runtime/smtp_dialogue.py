"""One SMTP or LMTP session over a blocking socket: the driver of pure/smtp_client for programs.

Runs in sendmail, the smtp client and the agents that submit offline mail; carries replies of servers
to pure/smtp_client, which parses them. The daemon's own relaying is delivery's.
"""

import socket
from collections.abc import Callable, Iterable

from smtpd_ps.pure.smtp_client import SmtpClient
from smtpd_ps.pure.smtp_client_body import BareLineEnd, Stuffer
from smtpd_ps.pure.smtp_client_events import (
    Answer,
    ClientOptions,
    Event,
    Finished,
    Mail,
    Ready,
    Refused,
    StartTls,
    StreamBody,
)

READ_BYTES = 65_536

Secure = Callable[[socket.socket], socket.socket]  # a handshake; raises OSError
Trace = Callable[[bytes, bytes], None]  # what was sent, what was received; one of them is empty


class DialogueError(Exception):
    """There is no session (any more); `temporary`: later there may be one."""

    def __init__(self, text: str, temporary: bool) -> None:
        super().__init__(text)
        self.temporary = temporary


class Dialogue:
    """A session on a connected socket, whose timeout bounds each wait.

    Before a body is sent, `abandon` is told what was answered to the recipients that are refused: where it
    says so, nobody gets the message, and the session ends.
    """

    def __init__(
        self,
        sock: socket.socket,
        options: ClientOptions,
        secure: Secure | None = None,
        trace: Trace | None = None,
        abandon: Callable[[list[Answer]], bool] = lambda _refusals: False,
    ) -> None:
        self._sock = sock
        self._client = SmtpClient(options)
        self._secure = secure
        self._trace = trace
        self._abandon = abandon
        self._finished: Finished | None = None
        self._body: Iterable[bytes] = ()
        self._ready = False

    def open(self) -> None:
        """Until mail can be sent. Raises DialogueError."""
        if self._client.secure:
            self._handshake()
        while not self._ready:
            self._turn()

    def send(self, mail: Mail, body: Iterable[bytes]) -> Finished:
        """Make one transaction; `body` has CRLF line ends, in pieces. Raises DialogueError where the session
        ends without it.
        """
        if not self._client.accepts_mail:
            raise DialogueError("the session has ended", temporary=True)
        self._finished, self._body = None, body
        self._handle(self._client.send(mail))
        while self._finished is None:
            self._turn()
        return self._finished

    def close(self) -> None:
        """Say goodbye."""
        self._client.quit()
        try:
            self._flush()
        except DialogueError:
            return  # what was to be decided has been
        finally:
            self._sock.close()

    def _turn(self) -> None:
        self._flush()
        try:
            data = self._sock.recv(READ_BYTES)
        except OSError as error:
            self._lost(f"Network error on read: {_reason(error)}")
            return
        if not data:
            self._lost("")
            return
        if self._trace is not None:
            self._trace(b"", data)
        self._handle(self._client.receive(data))

    def _flush(self) -> None:
        output = self._client.take_output()
        if output:
            if self._trace is not None:
                self._trace(output, b"")
            self._write(output)

    def _write(self, data: bytes) -> None:
        try:
            self._sock.sendall(data)
        except OSError as error:
            self._lost(f"Network error on write: {_reason(error)}")

    def _lost(self, why: str) -> None:
        """Raises DialogueError, unless a transaction was under way whose recipients have an answer now."""
        self._handle(self._client.lost(why))
        if self._finished is None:
            raise DialogueError(why or "Connection closed unexpectedly", temporary=True)

    def _handle(self, events: Iterable[Event]) -> None:
        refused: Refused | None = None
        for event in events:
            match event:
                case Ready():
                    self._ready = True
                case StartTls():
                    self._handshake()
                    self._client.tls_started()
                case StreamBody():
                    self._stream()
                case Finished():
                    self._finished = event
                case Refused():
                    refused = event
        if refused is not None and self._finished is None:
            self._flush()
            raise DialogueError(refused.text, temporary=not refused.text.startswith("5"))

    def _handshake(self) -> None:
        if self._secure is None:
            raise DialogueError("TLS is not to be used here", temporary=False)
        try:
            self._sock = self._secure(self._sock)
        except OSError as error:
            raise DialogueError(f"TLS: {_reason(error)}", temporary=True) from None

    def _stream(self) -> None:
        if self._abandon(self._client.refusals):
            self._handle(self._client.lost(""))  # without the final dot there is no message
            return
        stuffer = Stuffer()
        try:
            for piece in self._body:
                self._write(stuffer.feed(piece))
                if self._finished is not None:  # the connection is gone
                    return
            self._write(stuffer.finish())
        except BareLineEnd:
            self._handle(self._client.refuse_body())
            return
        if self._finished is None:
            self._client.body_sent()


def _reason(error: OSError) -> str:
    reason = getattr(error, "verify_message", "") or getattr(error, "reason", "")  # of an ssl.SSLError
    return str(reason) if reason else error.strerror or str(error)
