"""One session with a server: the client machine driven over a stream.

Runs in delivery; moves the bytes of a remote server into pure/smtp_client.
"""

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from errno import EIO
from typing import Protocol, assert_never

from smtpd_ps.delivery.dialer import TcpDial, UnixDials
from smtpd_ps.delivery.downgrade import downgrade
from smtpd_ps.delivery.outgoing_reports import Reporting
from smtpd_ps.delivery.tasks import Task
from smtpd_ps.pure.relay_planner import BLOCKED, Choice
from smtpd_ps.pure.seven_bit import Unconvertible, Writer
from smtpd_ps.pure.smtp_client import SmtpClient
from smtpd_ps.pure.smtp_client_body import BareLineEnd, Stuffer
from smtpd_ps.pure.smtp_client_events import (
    ClientOptions,
    Event,
    Finished,
    Mail,
    Ready,
    Refused,
    StartTls,
    StreamBody,
)
from smtpd_ps.runtime import tracing
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop
from smtpd_ps.runtime.stream import PlaintextWaiting, Pump, Stream, TlsError, TlsInfo

CHUNK_BYTES = 131_072
TLS_TROUBLE = "tls: "  # how Stream marks it


class Owner(Protocol):
    """The pool that a connection belongs to."""

    def connection_ready(self, connection: "Connection") -> None:
        """The session is set up and takes mail."""

    def connection_finished(self, connection: "Connection", finished: Finished) -> None:
        """A transaction is over; the connection may be idle again."""

    def refuses_source(self, source: str) -> bool:
        """Whether the operator wants no connection from this address."""

    def connection_closed(self, connection: "Connection", error: str) -> None:
        """It is gone. `error` is "" where that is nobody's fault."""


class Wiring:
    """What every connection needs of its process."""

    __slots__ = (
        "connect_timeout_secs", "dials", "io_timeout_secs", "log", "loop", "make_pump", "next_request", "reporting",
    )  # fmt: skip

    def __init__(
        self,
        loop: Loop,
        log: Log,
        dials: UnixDials,
        make_pump: Callable[[str, bool, str], Pump],
        next_request: Callable[[], int],
        connect_timeout_secs: float,
        io_timeout_secs: float,
    ) -> None:
        self.loop = loop
        self.log = log
        self.dials = dials
        self.make_pump = make_pump  # of action, whether to verify, host name
        self.next_request = next_request
        self.connect_timeout_secs = connect_timeout_secs
        self.io_timeout_secs = io_timeout_secs
        self.reporting = Reporting()


class Connection:
    """Dials at once. `established`: the session was set up. `deadline`: when the peer has been silent too long."""

    __slots__ = (
        "_action", "_at_bytes", "_body", "_dial", "_helo_names", "_options", "_owner", "_reports", "_request",
        "_stream", "_stuffer", "_wiring", "_writer", "blocked", "chosen_source", "client", "connected",
        "counted_domain", "deadline", "dialed_at", "error", "established", "failures", "last_used", "path", "session",
        "source", "target", "tls_failed",
    )  # fmt: skip

    def __init__(
        self,
        wiring: Wiring,
        owner: Owner,
        choice: Choice,
        options: ClientOptions,
        action: str,
        helo_names: Mapping[str, str] | None = None,
    ) -> None:
        self._wiring = wiring
        self._owner = owner
        self._action = action
        self._options = options
        self._helo_names = helo_names  # by source address, where only the kernel knows that
        self.target = target = choice.target
        self.path = choice.path
        self.chosen_source = choice.source.address  # "" for the kernel's choice
        self._reports = reports = wiring.reporting.session(action)  # None: no filter wants to know
        self.client = SmtpClient(options) if reports is None else reports.client(options)
        self.session = os.urandom(8).hex() if reports is None else reports.session
        self.source = ""
        self.established = False
        self.tls_failed = False
        self.connected = False
        self.blocked = False
        self.counted_domain = ""  # whose connections this one counts as
        self.failures = 0  # messages that were refused
        self.last_used = self.dialed_at = now = wiring.loop.now()
        self.deadline = now + wiring.connect_timeout_secs * 2  # the dial has its own
        self.error = ""
        self._stream: Stream | None = None
        self._dial: TcpDial | None = None
        self._request = 0
        self._body: Task | None = None  # being streamed
        self._at_bytes = 0  # of it
        self._stuffer = Stuffer()
        self._writer: Writer | None = None  # of a body that is sent in 7 bits
        if target.address.startswith("/"):
            self._request = wiring.next_request()
            wiring.dials.dial(self._request, action, self._on_connected, self._on_dial_failed)
        else:
            wiring.log.info(
                f"{self.session} mta connecting address={_scheme(options)}://{target.address}:{target.port} "
                f"host={target.name}"
            )
            self._dial = TcpDial(
                wiring.loop,
                target,
                choice.source.address,
                wiring.connect_timeout_secs,
                self._on_connected,
                self._on_dial_failed,
            )

    @property
    def relay(self) -> str:
        """`address (name)`, for logs and results."""
        return f"{self.target.address} ({self.target.name})"

    # Connecting.

    def _on_connected(self, sock: socket.socket) -> None:
        self._dial = None
        loop = self._wiring.loop
        self.deadline = loop.now() + self._wiring.io_timeout_secs
        if sock.family != socket.AF_UNIX:
            self.source = sock.getsockname()[0]
            if refusal := self._refusal():
                sock.close()
                self._on_dial_failed(refusal)
                return
            self._wiring.log.info(f"{self.session} mta connected")
            if self._reports is not None:
                self._reports.connected(
                    self.target.name, sock.getsockname()[:2], (self.target.address, self.target.port)
                )
        self.connected = True
        self._stream = Stream(loop, sock, self._on_data, self._on_close)
        self._stream.on_drained = self._more_body
        if self._options.tls in ("implicit", "implicit-verify"):
            self._start_tls(implicit=True)

    def _refusal(self) -> str:
        """Why the source that the kernel chose cannot be used."""
        if self._owner.refuses_source(self.source):
            self.blocked = True
            return BLOCKED
        if self._helo_names is not None:
            name = self._helo_names.get(self.source)
            if name is None:
                return f"helo-src has no name for the source address {self.source}"
            self._options = replace(self._options, helo=name)
            reports = self._reports
            self.client = SmtpClient(self._options) if reports is None else reports.client(self._options)
        return ""

    def _on_dial_failed(self, text: str) -> None:
        self._dial = None
        self._owner.connection_closed(self, text)

    def _start_tls(self, implicit: bool) -> None:
        stream = self._stream
        assert stream is not None
        verify = self._options.tls in ("require-verify", "implicit-verify")
        try:
            pump = self._wiring.make_pump(self._action, verify, self.target.name)
            stream.start_tls(pump, self._on_tls, implicit=implicit)
        except PlaintextWaiting as error:
            self._give_up(str(error))  # an injection: no reason to go on without TLS
        except TlsError as error:
            self._give_up(f"{TLS_TROUBLE}{error}")

    def _on_tls(self, info: TlsInfo) -> None:
        if self._reports is not None:
            self._reports.tell("link-tls", (f"{info.version}:{info.cipher}:{info.bits}",))
        self._wiring.log.info(f"{self.session} mta tls ciphers={info.version}:{info.cipher}:{info.bits}")
        if self._options.tls not in ("implicit", "implicit-verify"):
            self._handle(self.client.tls_started())

    # The session.

    def give(self, mail: Mail) -> None:
        """Send a message; only while the client accepts one."""
        self.deadline = self._wiring.loop.now() + self._wiring.io_timeout_secs
        if mail.eight_bit and not self.client.takes_eight_bit and (answer := downgrade(mail)):
            self._handle([Finished(mail, [answer] * len(mail.recipients), False)])
            return
        self._handle(self.client.send(mail))

    def _on_data(self, data: bytes) -> None:
        if tracing.mask & tracing.MTA:
            tracing.write("mta", f"{self.session} {self.relay} <<< {data[:2000].decode('utf-8', 'replace')}")
        self.deadline = self._wiring.loop.now() + self._wiring.io_timeout_secs
        self._handle(self.client.receive(data))

    def _handle(self, events: list[Event]) -> None:
        refused = False
        for event in events:
            if isinstance(event, Refused):
                refused = True
                self.error = self.error or event.text  # known before a Finished of the same moment is reported
        for event in events:
            match event:
                case Finished():
                    self.last_used = self._wiring.loop.now()
                    self._owner.connection_finished(self, event)
                case StreamBody():
                    self._begin_body(event.mail)
                case Ready():
                    if not refused:  # else it ended as it began, and would be tried again for ever
                        self.established = True
                        self._owner.connection_ready(self)
                case StartTls():
                    self._flush()
                    self._start_tls(implicit=False)
                case Refused():
                    self._flush()
                    if self._stream is not None:
                        self._stream.close_when_sent()
                case _:
                    assert_never(event)
        self._flush()

    def _flush(self) -> None:
        if self._stream is not None and (data := self.client.take_output()):
            if tracing.mask & tracing.MTA:
                tracing.write("mta", f"{self.session} {self.relay} >>> {tracing.commands(data)}")
            self._stream.write(data)

    # A body in a file.

    def _begin_body(self, mail: Mail) -> None:
        assert isinstance(mail.task, Task)
        self._body = mail.task
        self._at_bytes = 0
        self._stuffer = Stuffer()
        self._writer = None if mail.leaves is None else Writer(mail.leaves)
        self._flush()
        if mail.prefix and self._stream is not None:
            self._stream.write(self._stuffer.feed(mail.prefix))
        else:
            self._more_body()

    def _more_body(self) -> None:
        """All written so far has left: the peer reads, and there is room for more."""
        self.deadline = self._wiring.loop.now() + self._wiring.io_timeout_secs
        data = b""
        while self._body is not None and not data:
            try:
                data = self._next_piece(self._body)
            except (BareLineEnd, Unconvertible):  # the latter where the file has changed since it was looked through
                self._handle(self.client.refuse_body())
                self.abort()
            except OSError as error:
                self._give_up(f"cannot read the message: {os.strerror(error.errno or 0)}")
        if data and self._stream is not None:
            self._stream.write(data)
            self._flush()

    def _next_piece(self, task: Task) -> bytes:
        left_bytes = task.job.size_bytes - self._at_bytes
        if not left_bytes:
            return self._end_of_body()
        # Other tasks may share the descriptor's offset, so every read says where.
        chunk = os.pread(task.fd, min(CHUNK_BYTES, left_bytes), self._at_bytes)
        if not chunk:
            raise OSError(EIO, "the stored message is shorter than it was")
        self._at_bytes += len(chunk)
        piece = self._stuffer.feed(chunk if self._writer is None else self._writer.feed(chunk))
        # The end goes with the last piece: one packet less, and one wake-up of the peer.
        return piece if len(chunk) < left_bytes else piece + self._end_of_body()

    def _end_of_body(self) -> bytes:
        self._body = None
        self.client.body_sent()
        end = b"" if self._writer is None else self._stuffer.feed(self._writer.finish())
        return end + self._stuffer.finish()

    # The end.

    def quit(self) -> None:
        """Leave politely."""
        self.client.quit()
        self._flush()
        if self._stream is not None:
            self._stream.close_when_sent()
        else:
            self.abort("")

    def check_deadline(self, now: float) -> None:
        """Give up on a peer that has been silent for too long."""
        if now >= self.deadline and not self.client.idle:
            if self._reports is not None:
                self._reports.tell("timeout")
            self._give_up("Connection timeout")

    def _give_up(self, error: str) -> None:
        self.error = self.error or error
        self.abort(error)

    def abort(self, error: str = "") -> None:
        """End it now."""
        self.error = self.error or error
        if self._stream is not None:
            self._stream.abort()
            return
        if self._dial is not None:
            self._dial.cancel()
        self._wiring.dials.cancel(self._request)
        self._owner.connection_closed(self, self.error)

    def _on_close(self, reason: str) -> None:
        if (reason or self.error).startswith(TLS_TROUBLE):
            self.tls_failed = True
        unexpected = not self.client.dead
        self.error = error = self.error or reason or ("Connection closed unexpectedly" if unexpected else "")
        self._body = None
        self._stream = None
        for event in self.client.lost(error):
            if isinstance(event, Finished):
                self._owner.connection_finished(self, event)
        if self._reports is not None:
            self._reports.closed()
        if self.source:
            why = error or "quit"
            self._wiring.log.info(f"{self.session} mta disconnected reason={why} messages={self.client.mails}")
        self._owner.connection_closed(self, error)


def _scheme(options: ClientOptions) -> str:
    if options.lmtp:
        return "lmtp"
    return {
        "opportunistic": "smtp",
        "require": "smtp+tls",
        "require-verify": "smtp+tls",
        "never": "smtp+notls",
        "implicit": "smtps",
        "implicit-verify": "smtps",
    }[options.tls]
