"""The SMTP server's process: its listeners, its sessions, and what the other processes say to them.

Runs in smtp; parses nothing itself.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Protocol

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import SmtpSettings
from smtpd_ps.pure import smtp_replies as say
from smtpd_ps.pure.smtp_service import Service, UnexpectedAnswer
from smtpd_ps.pure.smtp_session import ServerSession
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop
from smtpd_ps.runtime.stream import Pump
from smtpd_ps.smtp.acceptor import Acceptor
from smtpd_ps.smtp.connection import Connection
from smtpd_ps.smtp.outside import Clock, MessageIds, Randomness
from smtpd_ps.smtp.sources import Sources

if TYPE_CHECKING:
    from smtpd_ps.smtp.proxied import ProxyDoor

TICK_SECS = 5.0
MESSAGE_SECS = 600.0  # any message may take that long,
MESSAGE_BYTES_A_SEC = 256  # and a longer one that comes at least as fast as this
FINISH_SECS = 10.0  # for messages that are being received when the daemon stops
RETIREMENT_SECS = 600.0  # for the sessions of an earlier configuration
LEAVE_SECS = 2.0  # then, for the last replies to be read
CONGESTED_BYTES = 8 << 20  # unsent to queue
LOOK_AGAIN_SECS = 0.02
OTHER_FILES = 32  # descriptors that are neither a client's nor a message's, listeners left out


class Sender(Protocol):
    """What messages can be sent to: a Channel."""

    pending_bytes: int

    def send(self, message: m.Message, *fds: int) -> None:
        """Send a message."""


_COUNTERS = (
    "smtp.session", "smtp.session.inet4", "smtp.session.inet6", "smtp.session.local", "smtp.smtps", "smtp.tls",
)  # fmt: skip
_TO_LOOKUP = frozenset((
    m.PeerQuery, m.SenderQuery, m.AuthRequest, m.RcptRequest, m.SessionEnd,
    m.FilterRequest, m.FilterReport, m.FilterData, m.FilterCredit,
))  # fmt: skip


class SmtpServer:
    """All of the process but its set-up. `fail` ends the process: another one broke the contract.

    `lookup`, `queue` and `control` are set before `start`.
    """

    lookup: Sender
    queue: Sender
    control: Sender

    def __init__(
        self,
        loop: Loop,
        log: Log,
        settings: SmtpSettings,
        seat: int,
        pumps: Mapping[int, Callable[[], Pump]],
        fail: Callable[[str], object],
        paused: bool = False,
    ) -> None:
        self.loop = loop
        self.log = log
        self._settings = settings
        self._seat = seat
        self._pumps = pumps  # by listener index
        self._fail = fail
        self._ids = MessageIds()
        self._random = Randomness()
        clock = Clock()
        self._sources = Sources(settings, loop.now)
        self._services = {
            listener.index: Service(
                settings=settings,
                listener=listener,
                take_id=self._ids.take,
                give_back_id=self._ids.give_back,
                random=self._random.fraction,
                random_bits=self._random.bits64,
                date=clock.date,
                password_failed=self._sources.password_failed,
                passwords_stopped=self._sources.passwords_stopped,
            )
            for listener in settings.listeners
        }
        self._acceptors: list[Acceptor] = []
        self._doors = self._proxy_doors()
        self._sessions: dict[int, Connection] = {}  # that are not finished
        self._opened = 0  # connections since the start
        self._open: set[Connection] = set()  # whose stream is not closed
        self._waiting: set[Connection] = set()  # for queue to take bodies
        self._max_ticks = max(1, round(settings.idle_secs / TICK_SECS))
        self.max_sessions = settings.max_sessions
        self.max_bodies = settings.max_sessions
        self.bodies = 0  # spool files that queue was asked for and that are not closed
        self._paused = paused
        self._started = False
        self._queue_is_ready = False
        self._drained: Callable[[], None] | None = None
        self._draining = False

    # Listening.

    def listen(self, index: int, sock: socket.socket) -> None:
        """Serve the listener of this index; accepting begins with `start`."""
        service = self._services[index]

        def arrived(client: socket.socket, address: str) -> None:
            self._client(service, client, address)

        door = self._doors.get(index)

        def arrived_by_proxy(client: socket.socket, address: str) -> None:
            assert door is not None
            if len(self._open) + self._at_doors() < self.max_sessions:
                door.arrived(client, address)
            else:
                client.close()

        self._acceptors.append(Acceptor(self.loop, self.log, sock, arrived_by_proxy if door else arrived))

    def _at_doors(self) -> int:
        return sum(door.waiting for door in self._doors.values())

    def _proxy_doors(self) -> dict[int, ProxyDoor]:
        """What reads the PROXY headers, by index of the listeners that take them."""
        proxied = [service for service in self._services.values() if service.listener.proxy != "none"]
        if not proxied:
            return {}
        from smtpd_ps.smtp.proxied import ProxyDoor  # before confinement, and only where it is used

        settings = proxied[0].settings
        sources = Sources(settings, self.loop.now)  # that wait at all doors; their clients count by themselves
        return {
            service.listener.index: ProxyDoor(
                self.loop,
                self.log,
                service.listener,
                sources,
                partial(self._client, service),
                self._see_whether_drained,
            )
            for service in proxied
        }

    def start(self) -> None:
        """Accept clients, as soon as queue has read its store and leased the first message ids."""
        self._started = True
        self._open_when_ready()
        self.loop.call_later(TICK_SECS, self._tick)

    def _open_when_ready(self) -> None:
        if self._started and self._queue_is_ready and not self._paused:
            for acceptor in self._acceptors:
                acceptor.open()

    def fit_into(self, open_files: int) -> None:
        """Take no more clients than there are descriptors for. Each has a socket, and more than half of them may have
        a spool file at a time; who would need one more is told to come later.
        """
        room = max(2, open_files - OTHER_FILES - len(self._acceptors))
        sessions = max(1, room * 5 // 8)
        if sessions < self.max_sessions:
            self.log.warning(f"{sessions} sessions at most, for lack of descriptors ({open_files})")
            self.max_sessions = sessions
        self.max_bodies = min(self.max_sessions, room - self.max_sessions)

    def _client(self, service: Service, sock: socket.socket, address: str) -> None:
        if len(self._open) >= self.max_sessions or not self._sources.open(address):
            count = self._sources.count(address)
            self.log.warning(f"{len(self._open)} sessions, {count} of its own: {address} turned away")
            try:
                sock.send(say.TOO_BUSY)
            except OSError:
                self.log.debug(f"{address} is gone already")
            sock.close()
            return
        session_id = self._seat << 56 | self._random.bits(7)
        session = ServerSession(service, session_id, address)
        if session.filters is not None and address != "local":
            session.filters.client = _with_port(sock, address)
        connection = Connection(self, sock, session)
        self._sessions[session_id] = connection
        self._open.add(connection)
        self._opened += 1
        connection.perform(session.begin())

    # What connections ask.

    def send(self, message: m.Message) -> None:
        """Send to the process that this message has its route to."""
        (self.lookup if type(message) in _TO_LOOKUP else self.queue).send(message)

    def pump(self, service: Service) -> Pump:
        """A TLS machine for a client of this listener."""
        return self._pumps[service.listener.index]()

    @property
    def congested(self) -> bool:
        """Whether queue does not keep up with the bodies."""
        return self.queue.pending_bytes > CONGESTED_BYTES

    def wait_for_queue(self, connection: Connection) -> None:
        """Have `connection` look again when queue has caught up."""
        if not self._waiting:
            self.loop.call_later(LOOK_AGAIN_SECS, self._look_again)
        self._waiting.add(connection)

    def _look_again(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for connection in waiting:
            connection.look_again()

    def session_finished(self, connection: Connection) -> None:
        """Nothing is to come for this session any more."""
        self._sessions.pop(connection.session.id, None)
        self._see_whether_drained()

    def stream_closed(self, connection: Connection) -> None:
        """The connection is closed."""
        self._open.discard(connection)
        self._sources.close(connection.session.address)
        self._waiting.discard(connection)
        self._see_whether_drained()

    # Time.

    def _tick(self) -> None:
        """Find the silent ones; a scan now and then costs less than a timer a command."""
        self.loop.call_later(TICK_SECS, self._tick)
        for connection in list(self._sessions.values()):
            session = connection.session
            if not session.receiving:
                connection.message_ticks = 0
            else:
                connection.message_ticks += 1
                secs = connection.message_ticks * TICK_SECS
                if secs > MESSAGE_SECS and session.received_bytes < secs * MESSAGE_BYTES_A_SEC:
                    connection.perform(session.too_slow())
                    continue
            if session.active or not session.waits_for_client:
                session.active = False
                connection.idle_ticks = 0
                continue
            connection.idle_ticks += 1
            if connection.idle_ticks >= self._max_ticks:
                connection.perform(session.idle())

    # Answers of lookup and queue.

    def lookup_handlers(self) -> dict[type[m.Message], Callable[..., None]]:
        """What lookup may say."""
        return {
            m.Greet: self._greet,
            m.PeerInfo: self._peer_info,
            m.SenderReply: self._sender_reply,
            m.AuthReply: self._auth_reply,
            m.RcptRefuse: self._rcpt_refuse,
            m.FilterAnswer: self._filter_answer,
            m.FilterHooks: self._filter_hooks,
            m.FilterData: self._filter_data,
            m.FilterCredit: self._filter_credit,
        }

    def queue_handlers(self) -> dict[type[m.Message], Callable[..., None]]:
        """What queue may say."""
        return {
            m.IdLease: self._id_lease,
            m.RcptReply: self._rcpt_reply,
            m.BodyFile: self._body_file,
            m.BodyRefused: self._body_refused,
            m.Committed: self._committed,
        }

    def _greet(self, message: m.Greet) -> None:
        connection = self._sessions.get(message.session)
        if connection is not None:
            connection.perform(connection.session.greeted(message.hostname))

    def _sender_reply(self, message: m.SenderReply) -> None:
        connection = self._sessions.get(message.session)
        if connection is not None:
            try:
                connection.perform(connection.session.sender_reply(message.transaction, message.verdict))
            except UnexpectedAnswer as error:
                self._fail(f"lookup: {error}")

    def _peer_info(self, message: m.PeerInfo) -> None:
        connection = self._sessions.get(message.session)
        if connection is not None:
            connection.perform(connection.session.peer_info(message.name))

    def _auth_reply(self, message: m.AuthReply) -> None:
        connection = self._sessions.get(message.session)
        if connection is not None:
            try:
                connection.perform(connection.session.auth_reply(message.verdict))
            except UnexpectedAnswer as error:
                self._fail(f"lookup: {error}")

    def _filter_answer(self, message: m.FilterAnswer) -> None:
        connection = self._sessions.get(message.session)
        if connection is not None:
            try:
                actions = connection.session.filter_answer(message.number, message.decision, message.text)
            except UnexpectedAnswer as error:
                self._fail(f"lookup: {error}")
                return
            connection.perform(actions)

    def _filter_hooks(self, message: m.FilterHooks) -> None:
        service = self._services.get(message.listener)
        if service is None or service.hooks is None:
            self._fail(f"lookup: filters of listener {message.listener}, which has none")
        else:
            service.hooks.phases, service.hooks.events = message.phases, message.events

    def _filter_data(self, message: m.FilterData) -> None:
        connection = self._sessions.get(message.session)
        if connection is not None:
            try:
                actions = connection.session.filter_data(
                    message.transaction, message.data, message.last, message.refusal
                )
            except UnexpectedAnswer as error:
                self._fail(f"lookup: {error}")
                return
            connection.perform(actions)

    def _filter_credit(self, message: m.FilterCredit) -> None:
        connection = self._sessions.get(message.session)
        if connection is not None:
            connection.perform(connection.session.filter_credit(message.transaction, message.size_bytes))

    def _rcpt_refuse(self, message: m.RcptRefuse) -> None:
        self._rcpt_answer(message, "lookup", None)

    def _rcpt_reply(self, message: m.RcptReply) -> None:
        self._rcpt_answer(message, "queue", (message.first, message.envelopes))

    def _rcpt_answer(self, message: m.RcptRefuse | m.RcptReply, sender: str, envelopes: tuple[int, int] | None) -> None:
        connection = self._sessions.get(message.session)
        if connection is None:
            self._fail(f"{sender}: an answer to a recipient of no session")
            return
        try:
            actions = connection.session.rcpt_answer(
                message.transaction, message.number, message.code, message.text, envelopes
            )
        except UnexpectedAnswer as error:
            self._fail(f"{sender}: {error}")
            return
        connection.perform(actions)

    def _id_lease(self, message: m.IdLease) -> None:
        self._ids.lease(message.ids)
        if not self._queue_is_ready:
            self._queue_is_ready = True
            self._open_when_ready()

    def _body_file(self, message: m.BodyFile, fd: int) -> None:
        connection = self._sessions.get(message.session)
        if connection is None:
            os.close(fd)  # asked for before the client went away
            self.bodies -= 1
            return
        try:
            connection.file_opened(fd)
        except UnexpectedAnswer as error:
            self._fail(f"queue: {error}")

    def _body_refused(self, message: m.BodyRefused) -> None:
        self.bodies -= 1
        connection = self._sessions.get(message.session)
        if connection is not None:
            try:
                connection.perform(connection.session.file_refused(message.text))
            except UnexpectedAnswer as error:
                self._fail(f"queue: {error}")

    def _committed(self, message: m.Committed) -> None:
        connection = self._sessions.get(message.session)
        if connection is None:
            self._fail("queue: Committed for no session")
            return
        try:
            actions = connection.session.committed(message.transaction, message.code, message.text)
        except UnexpectedAnswer as error:
            self._fail(f"queue: {error}")
            return
        connection.perform(actions)

    # The operator.

    def control_handlers(self) -> dict[type[m.Message], Callable[..., None]]:
        """What control may ask."""
        return {m.ShowStats: self._show_stats, m.ShowStatus: self._show_status, m.Pause: self._pause}

    def _show_stats(self, message: m.ShowStats) -> None:
        counts = dict.fromkeys(_COUNTERS, 0)
        counts["smtp.session.opened"], counts["smtp.session.closed"] = self._opened, self._opened - len(self._open)
        for connection in self._open:
            session = connection.session
            family = "local" if session.address == "local" else "inet6" if ":" in session.address else "inet4"
            counts["smtp.session"] += 1
            counts[f"smtp.session.{family}"] += 1
            if session.secure:
                counts["smtp.smtps" if session.service.listener.tls == "implicit" else "smtp.tls"] += 1
        self.control.send(m.Counters(message.client, tuple(counts.items())))
        self.control.send(m.Done(message.client, True))

    def _show_status(self, message: m.ShowStatus) -> None:
        self.control.send(m.TextPart(message.client, f"SMTP {'paused' if self._paused else 'running'}\n"))
        self.control.send(m.Done(message.client, True))

    def _pause(self, message: m.Pause) -> None:
        if message.part != "smtp":
            self.control.send(m.Done(message.client, False, f"smtp cannot pause {message.part}"))
            return
        self._paused = message.paused
        if message.paused:
            for acceptor in self._acceptors:
                acceptor.pause()
        self._open_when_ready()
        self.control.send(m.Done(message.client, True))

    # Retiring and stopping.

    def retire(self, drained: Callable[[], None]) -> None:
        """Another smtp process has taken over: keep the sessions there are, and call `drained` when the
        last has ended. One that stays too long is ended as if the daemon stopped.
        """
        self._drained = drained
        for acceptor in self._acceptors:
            acceptor.finish()
        self._acceptors.clear()
        self.loop.call_later(RETIREMENT_SECS, self._end_retirement)
        self._see_whether_drained()

    def _end_retirement(self) -> None:
        if self._drained is not None and not self._draining:
            self.drain(self._drained)

    def drain(self, drained: Callable[[], None]) -> None:
        """Take no new client and no new message, let messages under way finish, then call `drained`."""
        self._drained = drained
        self._draining = True
        for acceptor in self._acceptors:
            acceptor.close()
        self._acceptors.clear()
        for door in self._doors.values():
            door.close()
        for connection in list(self._sessions.values()):
            connection.perform(connection.session.drain())
        self.loop.call_later(FINISH_SECS, self._cut)
        self._see_whether_drained()

    def _cut(self) -> None:
        for connection in list(self._sessions.values()):
            connection.perform(connection.session.cut())
        self.loop.call_later(LEAVE_SECS, self._leave)

    def _leave(self) -> None:
        for connection in list(self._open):
            if connection.session.finished and connection.stream is not None:
                connection.stream.abort()  # it does not read its last reply

    def _see_whether_drained(self) -> None:
        if self._drained is not None and not (self._sessions or self._open or self._at_doors()):
            drained, self._drained = self._drained, None
            drained()


def _with_port(sock: socket.socket, address: str) -> str:
    """The client's address and port, for filter programs; IPv6 in brackets."""
    try:
        port = sock.getpeername()[1]
    except OSError:
        port = 0  # gone already
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
