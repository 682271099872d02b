"""One client's connection: the stream on one side, the session's core on the other.

Runs in smtp. Moves a remote client's bytes into pure/smtp_session, and carries out its actions.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from smtpd_ps.contract import messages as m
from smtpd_ps.pure.smtp_service import Action, Close, Rest, StartTls, State, Wait, WriteBody
from smtpd_ps.pure.smtp_session import ServerSession
from smtpd_ps.runtime import tracing
from smtpd_ps.runtime.stream import PlaintextWaiting, Stream, TlsInfo

if TYPE_CHECKING:
    import socket

    from smtpd_ps.smtp.server import SmtpServer

_RECEIVING = (State.DATA, State.CHUNK, State.STREAM)
MAX_UNSENT_BYTES = 65_536  # replies that the client does not read; beyond it we do not read either


class Connection:
    """Lives until its session is finished and its stream is closed."""

    __slots__ = (
        "_file", "_password_at", "_paused", "_rests", "_server", "idle_ticks", "message_ticks", "session", "stream",
    )  # fmt: skip

    def __init__(self, server: SmtpServer, sock: socket.socket, session: ServerSession) -> None:
        self._server = server
        self.session = session
        self.stream: Stream | None = Stream(server.loop, sock, self._on_data, self._on_close)
        self.stream.on_end = self._on_end
        self.idle_ticks = 0
        self.message_ticks = 0  # since its message began
        self._paused = False
        self._rests = False  # until the client has read
        self._file = -1  # descriptor of the spool file
        self._password_at = 0.0  # the loop's time when the last password was given

    def _on_data(self, data: bytes) -> None:
        if tracing.mask & tracing.SMTP:
            self._trace_input(data)
        self.perform(self.session.receive(data))

    def _trace_input(self, data: bytes) -> None:
        """Commands; never what is said in DATA or in answer to AUTH."""
        shown = tracing.commands(data) if self.session.state is State.COMMAND else f"({len(data)} bytes)"
        tracing.write("smtp", f"{self.session.id:016x} <<< {shown}")

    def _trace_output(self, data: bytes) -> None:
        tracing.write("smtp", f"{self.session.id:016x} >>> {data.decode('utf-8', 'replace')}")

    def _on_end(self) -> None:
        self.perform(self.session.input_ended())

    def _on_close(self, reason: str) -> None:
        self.stream = None  # breaks the reference cycle
        self.perform(self.session.disconnected(reason))
        self._server.stream_closed(self)

    def perform(self, actions: list[Action]) -> None:
        """Carry out what the session wants, in order."""
        stream = self.stream
        for action in actions:
            kind = type(action)
            if kind is bytes:
                if tracing.mask & tracing.SMTP:
                    self._trace_output(action)  # type: ignore[arg-type]
                if stream is not None:
                    stream.write(action)  # type: ignore[arg-type]
            elif kind is str:
                self._server.log.info(action)  # type: ignore[arg-type]
            elif (special := _SPECIAL.get(kind)) is not None:
                special(self, action)
            else:
                self._server.send(action)  # type: ignore[arg-type]
        session = self.session
        if session.finished:
            self._server.session_finished(self)
        elif stream is not None:
            self._throttle(stream)

    def _close_stream(self, _action: Close) -> None:
        if self.stream is not None:
            self.stream.close_when_sent()

    def _check_password(self, action: m.AuthRequest) -> None:
        self._password_at = self._server.loop.now()
        self._server.send(action)

    def _wait(self, action: Wait) -> None:
        loop = self._server.loop
        loop.call_later(max(0.0, self._password_at + action.secs - loop.now()), self._wait_over)

    def _wait_over(self) -> None:
        self.perform(self.session.wait_over())

    def _rest(self, _action: Rest) -> None:
        self._server.loop.call_soon(self._rested)

    def _rested(self) -> None:
        stream = self.stream
        if stream is not None and stream.unsent_bytes > MAX_UNSENT_BYTES:
            self._rests = True
        elif stream is not None:
            self.perform(self.session.go_on())

    def _throttle(self, stream: Stream) -> None:
        """Read only while what comes can be kept small."""
        session = self.session
        stop = not session.wants_data or stream.unsent_bytes > MAX_UNSENT_BYTES
        if not stop and session.state in _RECEIVING and self._server.congested:
            stop = True
            self._server.wait_for_queue(self)
        if stop == self._paused:
            return
        self._paused = stop
        if stop:
            stream.on_drained = self.look_again
            stream.pause_reading()
        else:
            stream.resume_reading()

    def look_again(self) -> None:
        """Something that may have stopped the reading has changed."""
        if self._rests:
            self._rests = False
            self._rested()
        elif self.stream is not None:
            self._throttle(self.stream)

    # TLS.

    def _start_tls(self, action: StartTls) -> None:
        if self.stream is None:
            return
        try:
            self.stream.start_tls(self._server.pump(self.session.service), self._tls_started, implicit=action.implicit)
        except PlaintextWaiting:
            self.perform(self.session.plaintext_waiting())

    def _tls_started(self, info: TlsInfo) -> None:
        text = f"{info.version}:{info.cipher}:{info.bits}"
        self.perform(self.session.tls_started(text, info.verified, info.fingerprint))

    # The spool file.

    def file_opened(self, fd: int) -> None:
        """Queue's answer to BodyOpen. The descriptor is ours now."""
        if self.session.state is State.CLOSED:
            os.close(fd)
            self._server.bodies -= 1
            return
        self._file = fd
        self.perform(self.session.file_opened())

    def _write(self, action: WriteBody) -> None:
        """Append to the spool file; a regular file, so that blocking is no matter."""
        if self._file < 0:
            return  # a write failed before, and the message will be refused
        view = memoryview(action.data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            self._server.log.error(f"cannot write a message to the spool: {os.strerror(error.errno or 0)}")
            self._close_file()
            self.session.file_failed()

    def _open_file(self, action: m.BodyOpen) -> None:
        server = self._server
        if server.bodies < server.max_bodies:
            server.bodies += 1
            server.send(action)
        else:
            server.log.warning(f"{server.bodies} messages have spool files: one more is refused")
            server.loop.call_soon(self._no_file)

    def _no_file(self) -> None:
        if self.session.state is not State.CLOSED:
            self.perform(self.session.file_refused(""))

    def _commit_file(self, action: m.CommitFile) -> None:
        if self._file >= 0:
            self._close_file()
            self._server.send(action)
            return
        # The last write failed, after the session had decided to commit.
        self._server.send(m.Abort(action.session, action.transaction))
        self._server.loop.call_soon(lambda: self._not_stored(action.transaction))

    def _not_stored(self, transaction: int) -> None:
        self.perform(self.session.committed(transaction, 452, "4.3.1 Mail system full"))

    def _abort(self, action: m.Abort) -> None:
        self._close_file()
        self._server.send(action)

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
            self._server.bodies -= 1


_SPECIAL: dict[type, Callable[[Connection, Any], None]] = {
    StartTls: Connection._start_tls,
    WriteBody: Connection._write,
    m.CommitFile: Connection._commit_file,
    m.Abort: Connection._abort,
    m.AuthRequest: Connection._check_password,
    m.BodyOpen: Connection._open_file,
    Wait: Connection._wait,
    Rest: Connection._rest,
    Close: Connection._close_stream,
}
"""How the rarer actions are carried out; other messages are sent."""
