"""One client's connection: the stream on one side, the session's core on the other.

Runs in smtp. Moves a remote client's bytes into pure/smtp_session, and carries out its actions.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from smtpd_ps.contract import messages as m
from smtpd_ps.pure.smtp_service import Action, Close, StartTls, State, Wait, WriteBody
from smtpd_ps.pure.smtp_session import ServerSession
from smtpd_ps.runtime.stream import PlaintextWaiting, Stream, TlsInfo

if TYPE_CHECKING:
    import socket

    from smtpd_ps.smtp.server import SmtpServer

MAX_UNSENT_BYTES = 65_536  # replies that the client does not read; beyond it we do not read either


class Connection:
    """Lives until its session is finished and its stream is closed."""

    __slots__ = ("_file", "_paused", "_server", "idle_ticks", "session", "stream")

    def __init__(self, server: SmtpServer, sock: socket.socket, session: ServerSession) -> None:
        self._server = server
        self.session = session
        self.stream: Stream | None = Stream(server.loop, sock, self._on_data, self._on_close)
        self.idle_ticks = 0
        self._paused = False
        self._file = -1  # descriptor of the spool file

    def _on_data(self, data: bytes) -> None:
        self.perform(self.session.receive(data))

    def _on_close(self, reason: str) -> None:
        self.stream = None  # breaks the reference cycle
        self.perform(self.session.disconnected(reason))
        self._server.stream_closed(self)

    def perform(self, actions: list[Action]) -> None:
        """Carry out what the session wants, in order."""
        stream = self.stream
        failed = False
        for action in actions:
            kind = type(action)
            if kind is bytes:
                if stream is not None:
                    stream.write(action)  # type: ignore[arg-type]
            elif kind is str:
                self._server.log.info(action)  # type: ignore[arg-type]
            elif isinstance(action, m.CommitFile):
                self._close_file()
                if failed:
                    self._server.send(m.Abort(action.session, action.transaction))
                    self._server.loop.call_soon(lambda tx=action.transaction: self._not_stored(tx))  # type: ignore[misc]
                else:
                    self._server.send(action)
            elif isinstance(action, m.Message):
                if isinstance(action, m.Abort):
                    self._close_file()
                self._server.send(action)
            elif isinstance(action, WriteBody):
                failed = not self._write(action.data) or failed
            elif isinstance(action, Wait):
                self._server.loop.call_later(action.secs, self._wait_over)
            elif isinstance(action, StartTls):
                self._start_tls(action.implicit)
            elif isinstance(action, Close) and stream is not None:
                stream.close_when_sent()
        session = self.session
        if session.finished:
            self._server.session_finished(self)
        elif stream is not None:
            self._throttle(stream)

    def _throttle(self, stream: Stream) -> None:
        """Read only while what comes can be kept small."""
        session = self.session
        stop = not session.wants_data or stream.unsent_bytes > MAX_UNSENT_BYTES
        if not stop and session.state is State.DATA and self._server.congested:
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
        if self.stream is not None:
            self._throttle(self.stream)

    # TLS.

    def _start_tls(self, implicit: bool) -> None:
        assert self.stream is not None
        try:
            self.stream.start_tls(self._server.pump(self.session.service), self._tls_started, implicit=implicit)
        except PlaintextWaiting:
            self.perform(self.session.plaintext_waiting())

    def _tls_started(self, info: TlsInfo) -> None:
        text = f"{info.version}:{info.cipher}:{info.bits}"
        self.perform(self.session.tls_started(text, info.verified))

    def _wait_over(self) -> None:
        self.perform(self.session.wait_over())

    # The spool file.

    def file_opened(self, fd: int) -> None:
        """Queue's answer to BodyOpen. The descriptor is ours now."""
        if self.session.state is State.CLOSED:
            os.close(fd)
            return
        self._file = fd
        self.perform(self.session.file_opened())

    def _write(self, data: bytes) -> bool:
        """Append to the spool file; a regular file, so that blocking is no matter."""
        if self._file < 0:
            return False
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            self._server.log.error(f"cannot write a message to the spool: {os.strerror(error.errno or 0)}")
            self._close_file()
            self.session.file_failed()
            return False
        return True

    def _not_stored(self, transaction: int) -> None:
        self.perform(self.session.committed(transaction, 452, "4.3.1 Mail system full"))

    def _close_file(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
