"""A byte stream with a remote peer (TCP or Unix socket) in the loop, with or without TLS.

Runs in smtp and delivery; moves bytes of strangers and parses none of them. One recv a readiness, of
at most 64 KiB (256 KiB while more than that is coming in), and all that one loop turn writes goes out
with one send. This module does not import ssl: a TLS pump, made by runtime/tls.py, is handed to
`start_tls`, so that processes without TLS never load it.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from smtpd_ps.runtime import tracing
from smtpd_ps.runtime.loop import Loop, Timer

READ_BYTES = 65_536
READ_MORE_BYTES = 262_144  # after a read that was filled: a large message costs less in few large blocks
HANDSHAKE_SECS = 30.0
CLOSE_SECS = 30.0  # for the peer to take the last bytes after close_when_sent
LINGER_SECS = 2.0  # to swallow what the peer still sends, so that a reset does not destroy our last reply
LINGER_BYTES = 1_048_576
CONTROL_BYTES = 65_536  # TLS control records a peer may provoke without reading them


class TlsError(Exception):
    """The handshake failed or the peer broke the TLS protocol. The text is for logs."""


class PlaintextWaiting(Exception):
    """Bytes arrived before the TLS handshake may begin: an injection, or a broken peer."""


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """What a finished handshake agreed on."""

    version: str  # "TLSv1.3"
    cipher: str  # OpenSSL's name of the suite
    bits: int  # of the symmetric key
    verified: bool  # the peer's certificate was demanded and verified
    peer_subject: str = ""  # the certificate's common name, where it was verified
    fingerprint: str = ""  # "SHA256:" and lower-case hex, where the peer sent a certificate
    server_name: str = ""  # SNI


class Pump(Protocol):
    """The TLS machine between ciphertext and plaintext; no socket. Made by runtime/tls.py."""

    def feed(self, data: bytes) -> None:
        """Take ciphertext that was received."""

    def handshake(self) -> TlsInfo | None:
        """Go on with the handshake; None when more ciphertext is needed. Raises TlsError."""

    def read(self) -> bytes | None:
        """Plaintext; b"" when more ciphertext is needed, None after close_notify. Raises TlsError."""

    def write(self, data: bytes) -> None:
        """Encrypt; the handshake must be finished. Raises TlsError."""

    def output(self) -> bytes:
        """Take the ciphertext to send."""

    def output_bytes(self) -> int:
        """How much ciphertext `output` would return."""

    def close(self) -> None:
        """Produce a close_notify. Never raises."""


class Stream:
    """A connected non-blocking socket with a write buffer.

    `on_data` gets plaintext as it comes. `on_close` is called exactly once, however the stream
    ends, and last of all: with "" at the peer's EOF or after our own `close_when_sent` or
    `abort`, else with what went wrong ("tls: ..." for TLS). An EOF without close_notify counts as
    EOF: SMTP and LMTP mark their own ends. With an `on_end` the peer's EOF closes nothing: it is
    called instead, once, and its owner closes when all is said.

    `unsent_bytes` is what waits to be sent; callers bound it. `on_drained` is called whenever it
    gets back to 0.
    """

    __slots__ = (
        "_closing", "_ended", "_fd", "_head", "_loop", "_on_close", "_on_data", "_on_tls", "_out", "_paused", "_pump",
        "_read_bytes", "_sock", "_swallowed_bytes", "_timer", "_waiting", "closed", "on_drained", "on_end", "tls",
        "unsent_bytes",
    )  # fmt: skip

    def __init__(
        self, loop: Loop, sock: socket.socket, on_data: Callable[[bytes], None], on_close: Callable[[str], None]
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._fd = sock.fileno()
        self._on_data = on_data
        self._on_close = on_close
        self.on_drained: Callable[[], None] | None = None
        self.on_end: Callable[[], None] | None = None
        self._out: list[bytes] = []  # as written, not yet encrypted where there is TLS
        self._head: bytes | memoryview = b""  # for the wire; goes before all of _out
        self.unsent_bytes = 0
        self._waiting = False  # for writability
        self._paused = False
        self._read_bytes = READ_BYTES
        self._closing = False
        self._ended = False  # the peer sends no more
        self.closed = False
        self._pump: Pump | None = None
        self.tls: TlsInfo | None = None  # set when a handshake has finished
        self._on_tls: Callable[[TlsInfo], None] | None = None
        self._swallowed_bytes = 0
        self._timer: Timer | None = None  # of the handshake, or of the close
        sock.setblocking(False)
        loop.read_on(self._fd, self._on_readable)

    # Writing.

    def write(self, data: bytes) -> None:
        """Queue `data` for the end of the turn. Ignored once the stream is closed or closing."""
        if self._closing or self.closed or not data:
            return
        self._out.append(data)
        self.unsent_bytes += len(data)
        self._loop.at_turn_end(self._flush)

    def _flush(self) -> None:
        if not self._waiting and not self.closed:
            self._send()

    def _send(self) -> None:
        before = self.unsent_bytes
        try:
            while data := self._head or self._gather():
                try:
                    sent = self._sock.send(data)
                except BlockingIOError:
                    sent = 0
                self.unsent_bytes -= sent
                if tracing.mask & tracing.IO:
                    tracing.write("io", f"fd={self._sock.fileno()} sent {sent} of {len(data)} bytes")
                if sent < len(data):
                    self._head = memoryview(data)[sent:]
                    if not self._waiting:
                        self._waiting = True
                        self._loop.write_on(self._fd, self._send)
                        if self._closing:
                            self._limit_close()
                    return
                self._head = b""
        except OSError as error:
            self._close(self._why(error))
            return
        except TlsError as error:
            self._fail(str(error))
            return
        if self._waiting:
            self._waiting = False
            self._loop.write_off(self._fd)
        if self._closing:
            self._finish()
        elif before and not self.unsent_bytes and self.on_drained is not None:
            self.on_drained()

    def _gather(self) -> bytes:
        """Take all that may go on the wire now."""
        out = self._out
        if self._pump is None:
            if not out:
                return b""
            data = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            return data
        plain_bytes = 0
        if out and self.tls is not None:
            plain = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
            plain_bytes = len(plain)
            self._pump.write(plain)
        data = self._pump.output()
        self.unsent_bytes += len(data) - plain_bytes
        return data

    # Reading.

    def pause_reading(self) -> None:
        """No more on_data until `resume_reading`. A handshake goes on."""
        self._paused = True
        self._watch_reading()

    def resume_reading(self) -> None:
        """Undo `pause_reading`. Data comes in a later turn, never from within this call."""
        if not self._paused:
            return
        self._paused = False
        self._watch_reading()
        if self.tls is not None:
            self._loop.call_soon(self._deliver)  # records may have been decrypted already

    def _watch_reading(self) -> None:
        if self.closed or self._closing or self._ended:
            return
        if self._paused and (self._pump is None or self.tls is not None):
            self._loop.read_off(self._fd)
        else:
            self._loop.read_on(self._fd, self._on_readable)

    def _on_readable(self) -> None:
        try:
            data = self._sock.recv(self._read_bytes)
        except BlockingIOError:
            return
        except OSError as error:
            self._close(self._why(error))
            return
        if tracing.mask & tracing.IO:
            tracing.write("io", f"fd={self._sock.fileno()} received {len(data)} bytes")
        self._read_bytes = READ_BYTES if len(data) < READ_BYTES else READ_MORE_BYTES
        if self._pump is None:
            if data:
                self._on_data(data)
            else:
                self._peer_closed()
            return
        if not data:
            if self.tls is None:
                self._close("tls: the peer closed during the handshake")
            else:
                self._peer_closed()
            return
        self._pump.feed(data)
        if self.tls is None:
            self._handshake()
        else:
            self._deliver()

    def _peer_closed(self) -> None:
        if self.unsent_bytes and not self._waiting:
            self._send()  # written in this very turn: it may only have closed its sending side
        if self.on_end is None or self._closing:
            self._close("")
        elif not self.closed:
            self._ended = True
            self._loop.read_off(self._fd)
            self.on_end()

    # TLS.

    def start_tls(
        self,
        pump: Pump,
        on_done: Callable[[TlsInfo], None] | None = None,
        *,
        implicit: bool = False,
        handshake_secs: float = HANDSHAKE_SECS,
    ) -> None:
        """Switch to TLS; what was written before still goes out in plain text, before the handshake.

        `pump` comes from runtime.tls.server_pump or client_pump. Nothing that was received before
        this call reaches `on_data` afterwards. Raises PlaintextWaiting when the peer has already
        sent more (RFC 3207 section 4 has both sides wait; `implicit`, for a port that speaks TLS
        from the start, leaves this check out). A failure, or no end within `handshake_secs`,
        closes the stream with "tls: ...".
        """
        if self._pump is not None:
            raise TlsError("TLS is active already")
        if self.closed or self._closing:
            return
        if not implicit and self._bytes_waiting():
            raise PlaintextWaiting("plain text after STARTTLS")
        if self._out:
            self._head = b"".join((self._head, *self._out))
            self._out.clear()
        self._pump = pump
        self._on_tls = on_done
        self._timer = self._loop.call_later(handshake_secs, self._handshake_late)
        self._watch_reading()
        self._handshake()

    def _bytes_waiting(self) -> bool:
        try:
            return bool(self._sock.recv(1, socket.MSG_PEEK))
        except OSError:
            return False  # nothing there, or an error that the next read reports

    def _handshake(self) -> None:
        pump = self._pump
        assert pump is not None
        try:
            info = pump.handshake()
        except TlsError as error:
            self._fail(str(error))
            return
        self._loop.at_turn_end(self._flush)
        if info is None:
            return
        self.tls = info
        self._stop_timer()
        self._watch_reading()
        if self._on_tls is not None:
            self._on_tls(info)
        self._deliver()

    def _handshake_late(self) -> None:
        self._fail("handshake timed out")

    def _deliver(self) -> None:
        """Hand out what has been decrypted."""
        pump = self._pump
        if pump is None:
            return
        try:
            while not (self._paused or self._closing or self._ended or self.closed):
                data = pump.read()
                if data is None:
                    self._peer_closed()
                    return
                if not data:
                    break
                self._on_data(data)
        except TlsError as error:
            self._fail(str(error))
            return
        if pump.output_bytes() and not self.closed:
            if pump.output_bytes() > CONTROL_BYTES:
                self._fail("the peer asks for records that it does not read")
                return
            self._loop.at_turn_end(self._flush)

    def _fail(self, text: str) -> None:
        """End with "tls: text"; the peer gets the alert if the kernel takes it at once."""
        if self.closed:
            return
        if self._pump is not None and not self._head:
            self._send_now(self._pump.output())
        self._close(f"tls: {text}")

    # The end.

    def close_when_sent(self) -> None:
        """Take nothing more, send what is queued (and TLS's close_notify), then close.

        A peer that does not take it within CLOSE_SECS is cut off.
        """
        if self._closing or self.closed:
            return
        self._closing = True
        self._loop.read_off(self._fd)
        if self._pump is not None and self.tls is None:
            self._close("")  # nothing can be said in the middle of a handshake
            return
        self._stop_timer()
        if self._waiting:
            self._limit_close()
        else:
            self._loop.at_turn_end(self._flush)

    def _limit_close(self) -> None:
        """Only when the kernel is full: at once is the rule, and a timer a session would cost."""
        self._timer = self._loop.call_later(CLOSE_SECS, self._close_late)

    def _close_late(self) -> None:
        self._close("the peer does not read")

    def _finish(self) -> None:
        """All is sent: close, but swallow what the peer is sending, lest the kernel reset it."""
        self._stop_timer()
        if self._pump is not None:
            self._pump.close()
            self._send_now(self._pump.output())
        if self._swallow():
            try:
                self._sock.shutdown(socket.SHUT_WR)
            except OSError as error:
                self._close(_text(error))
                return
            self._timer = self._loop.call_later(LINGER_SECS, self.abort)
            self._loop.read_on(self._fd, self._on_swallow)
        else:
            self._close("")

    def _on_swallow(self) -> None:
        if not self._swallow():
            self._close("")

    def _swallow(self) -> bool:
        """Read and forget; False when the peer has nothing more to say, or too much."""
        try:
            got = len(self._sock.recv(READ_BYTES))
        except BlockingIOError:
            return self._swallowed_bytes > 0
        except OSError:
            return False
        self._swallowed_bytes += got
        return got > 0 and self._swallowed_bytes < LINGER_BYTES

    def _send_now(self, data: bytes) -> None:
        try:
            if data:
                self._sock.send(data)
        except OSError:
            return  # an alert or close_notify is a courtesy, and the stream is closed next

    def _why(self, error: OSError) -> str:
        """What to say of it; a connection that breaks in the middle of a handshake is a handshake that failed."""
        return f"tls: {_text(error)}" if self._pump is not None and self.tls is None else _text(error)

    def abort(self) -> None:
        """Close at once; what was not sent is lost."""
        self._close("")

    def _close(self, reason: str) -> None:
        if self.closed:
            return
        self.closed = True
        self._stop_timer()
        self._loop.forget(self._fd)
        self._sock.close()
        self._out.clear()
        self._head = b""
        self._pump = None
        self._on_tls = None
        self.on_drained = self.on_end = None
        self._on_close(reason)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _text(error: OSError) -> str:
    return os.strerror(error.errno) if error.errno else str(error)
