"""A filter's side of smtpd-filters(7): bytes in, calls of handlers, bytes out. No input or output of its own.

Runs in filter programs; what it reads was written by the mail server and quotes strangers. A handler that
raises is logged, and its session gets what Filter.on_failure says.
"""

import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from smtpd_ps.filterkit import data_stream
from smtpd_ps.filterkit.answers import Answer, Disconnect, Junk, Proceed, Reject, Report, Rewrite
from smtpd_ps.filterkit.core import Core, Spawn
from smtpd_ps.filterkit.data_stream import Message, Piece
from smtpd_ps.filterkit.events import Commit, Event, LinkDisconnect, Request, TxReset, TxRollback
from smtpd_ps.filterkit.filter import Filter, Handlers
from smtpd_ps.filterkit.filter_lines import configured, parse_event, parse_request, quoted
from smtpd_ps.filterkit.line_buffer import ProtocolError
from smtpd_ps.filterkit.session import FOLLOWED, Session

FAILED = Reject("451 4.3.0 The filter has failed")
MAX_TRACE = 900  # of what a handler raised, in a line of the log

Job = Callable[[], None]


def described(error: BaseException) -> str:
    """An exception in one line: what, and where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    return ascii(f"{type(error).__name__}: {error}{where}")[1:-1][:MAX_TRACE]


class _Flow:
    """A session's handlers, one after the other, and the message that passes."""

    __slots__ = ("cancel", "failed", "gone", "jobs", "message", "session")

    def __init__(self, session: Session) -> None:
        self.session = session
        self.jobs: deque[Job] = deque()  # for when the handler that is waited for has come back
        self.cancel: Callable[[], None] | None = None  # waits for a handler
        self.message: Message | None = None
        self.failed = False  # the handler of this message has; the commit is refused
        self.gone = False


class FilterCore(Core):
    """Calls the handlers of a filter."""

    def __init__(self, filter: Filter, log: Callable[[str], None], spawn: Spawn | None = None) -> None:
        super().__init__(log, spawn)
        self._filter = filter
        self.handlers = Handlers(filter)
        self._config: list[str] = []
        self._flows: dict[str, _Flow] = {}
        self._out: deque[bytes | Iterator[bytes]] = deque()

    @property
    def sessions(self) -> int:
        """How many there are."""
        return len(self._flows)

    def receive(self, data: bytes) -> None:
        """What was read. Raises ProtocolError, and StopProgram of the filter."""
        for line in self._buffer.cut(data):
            if line.startswith(b"filter|"):
                self._request(line)
            elif line.startswith(b"report|"):
                self._report(line)
            else:
                self._configure(line)

    def output(self) -> Iterator[bytes]:
        """What is to be written, in pieces."""
        pieces: list[bytes] = []
        while self._out:
            piece = self._out.popleft()
            if isinstance(piece, bytes):
                pieces.append(piece)
                continue
            yield b"".join(pieces)
            pieces = []
            yield from piece
        if pieces:
            yield b"".join(pieces)

    # The handshake.

    def _configure(self, line: bytes) -> None:
        word, _, rest = line.partition(b"|")
        if word != b"config" or self._is_ready:
            raise ProtocolError(f"neither a report nor a request: {quoted(line)}")
        if rest != b"ready":
            self._config.append(rest.decode(errors="replace"))
            return
        self._filter.config = config = configured(self._config)
        self._filter.ready()
        for subsystem in config.subsystems or ("smtp-in",):
            if subsystem in self._filter.subsystems:
                self._register(subsystem)
        self._out.append(b"register|ready\n")
        self._is_ready = True

    def _register(self, subsystem: str) -> None:
        events = set(self.handlers.events) | {LinkDisconnect} | (set(FOLLOWED) if self._filter.follows else set())
        names = [("report", event.NAME) for event in events]
        names += [("filter", request.NAME) for request in self.handlers.requests]
        if self.handlers.streams:
            names.append(("filter", "data-line"))
            if self._filter.on_failure == "tempfail" and Commit not in self.handlers.requests:
                names.append(("filter", "commit"))
        self._out.extend(f"register|{stream}|{subsystem}|{name}\n".encode() for stream, name in sorted(names))

    # Reports and requests.

    def _flow(self, session: str, subsystem: str) -> _Flow:
        flow = self._flows.get(session)
        if flow is None:
            flow = self._flows[session] = _Flow(Session(session, subsystem))
        return flow

    def _report(self, line: bytes) -> None:
        self._need_ready(line)
        event = parse_event(line)
        if event is None:
            return
        flow = self._flow(event.session, event.subsystem)
        if isinstance(event, LinkDisconnect):
            flow.gone = True
            del self._flows[event.session]
            if flow.cancel is not None:
                flow.cancel()
        self._do(flow, lambda: self._tell(flow, event))

    def _tell(self, flow: _Flow, event: Event) -> None:
        flow.session.learn(event)
        if isinstance(event, TxReset | TxRollback):
            flow.message = None  # what came of it is no message
        handler = self.handlers.events.get(type(event))
        if handler is not None:
            self._call(flow, event.NAME, lambda: handler(flow.session, event), lambda _result: None, lambda: None)

    def _request(self, line: bytes) -> None:
        self._need_ready(line)
        fields = line.split(b"|", 7)
        if len(fields) == 8 and fields[4] == b"data-line":
            self._data_line(fields[5].decode("ascii", "replace"), fields[6].decode("ascii", "replace"),
                            fields[3].decode("ascii", "replace"), fields[7])  # fmt: skip
            return
        request = parse_request(line)
        flow = self._flow(request.session, request.subsystem)
        self._do(flow, lambda: self._ask(flow, request))

    def _need_ready(self, line: bytes) -> None:
        if not self._is_ready:
            raise ProtocolError(f"before config|ready: {quoted(line)}")

    def _ask(self, flow: _Flow, request: Request) -> None:
        tempfail = self._filter.on_failure == "tempfail"
        if isinstance(request, Commit) and flow.failed and tempfail:
            self._answer(flow, request, FAILED)
            return
        handler = self.handlers.requests.get(type(request))
        if handler is None:
            self._answer(flow, request, Proceed())
            return

        def settle(result: object) -> None:
            match result:
                case None:
                    self._answer(flow, request, Proceed())
                case Proceed() | Junk() | Reject() | Disconnect() | Rewrite() | Report():
                    self._answer(flow, request, result)
                case _:
                    raise TypeError(f"the answer to {request.NAME} is {result!r}")

        self._call(
            flow, request.NAME, lambda: handler(flow.session, request), settle,
            lambda: self._answer(flow, request, FAILED if tempfail else Proceed()),
        )  # fmt: skip

    def _answer(self, flow: _Flow, request: Request, answer: Answer) -> None:
        if not flow.gone:
            text = f"filter-result|{request.session}|{request.token}|{answer.words()}\n"
            self._out.append(text.encode(errors="surrogateescape"))

    # Messages.

    def _data_line(self, session: str, token: str, subsystem: str, line: bytes) -> None:
        flow = self._flow(session, subsystem)
        if flow.cancel is None and not flow.jobs:
            self._pass(flow, token, line)
        else:
            flow.jobs.append(lambda: self._pass(flow, token, line))

    def _pass(self, flow: _Flow, token: str, line: bytes) -> None:
        if self.handlers.data_line is not None:
            self._pass_line(flow, token, line)
        elif self.handlers.message is not None:
            self._gather(flow, token, line)
        else:
            self._out.append(data_stream.prefix(flow.session.id, token) + line + b"\n")

    def _pass_line(self, flow: _Flow, token: str, line: bytes) -> None:
        if flow.message is None:  # marks that the message has begun
            flow.message, flow.failed = Message(), False
        head = data_stream.prefix(flow.session.id, token)
        ends = line == b"."
        handler = self.handlers.data_end if ends else self.handlers.data_line
        if handler is not None and not flow.failed:
            try:
                made = handler(flow.session) if ends else handler(flow.session, data_stream.undotted(line))
                made = [made] if isinstance(made, bytes) else made
                self._out.extend([head + data_stream.dotted(data_stream.one_line(each)) + b"\n" for each in made])
            except Exception as error:  # noqa: BLE001  # whatever a handler raises
                self._failed(flow, "data-line", error)
                flow.failed = True
        if flow.failed and not ends:
            self._out.append(head + line + b"\n")
        if ends:
            flow.message = None
            self._out.append(head + b".\n")

    def _gather(self, flow: _Flow, token: str, line: bytes) -> None:
        message = flow.message
        if message is None:
            message = flow.message = Message()
            flow.failed = flow.session.too_large = False
        if line != b"." and not flow.session.too_large:
            message.add(line)
            if len(message.data) > self._filter.max_message_bytes:
                flow.session.too_large = True
                self._log(f"session {flow.session.id}: a message of more than {self._filter.max_message_bytes} bytes")
                self._call(
                    flow, "message_too_large", lambda: self._filter.message_too_large(flow.session),
                    lambda _result: None, lambda: None,
                )  # fmt: skip
                head = data_stream.prefix(flow.session.id, token)
                out = b"".join(data_stream.written(head, (message.data,)))
                message.data = bytearray()
                self._out.append(out.removesuffix(head + b".\n"))
        elif flow.session.too_large:
            self._out.append(data_stream.prefix(flow.session.id, token) + line + b"\n")
            if line == b".":
                flow.message = None
        else:
            flow.message = None
            self._whole(flow, token, message)

    def _whole(self, flow: _Flow, token: str, message: Message) -> None:
        handler = self.handlers.message
        assert handler is not None

        def settle(result: Piece | Iterable[Piece] | None) -> None:
            match result:
                case None:
                    self._emit(flow, token, (message.data,))
                case bytes() | bytearray() | memoryview():
                    self._emit(flow, token, (result,))
                case _:
                    pieces = list(result)
                    for piece in pieces:
                        if not isinstance(piece, Piece):
                            raise TypeError(f"a piece of a message is a {type(piece).__name__}")
                    self._emit(flow, token, pieces)

        def failed() -> None:
            flow.failed = True
            self._emit(flow, token, (message.data,))

        self._call(flow, "message", lambda: handler(flow.session, message), settle, failed)

    def _emit(self, flow: _Flow, token: str, pieces: Iterable[Piece]) -> None:
        if not flow.gone:
            self._out.append(data_stream.written(data_stream.prefix(flow.session.id, token), pieces))

    # Calling handlers.

    def _do(self, flow: _Flow, job: Job) -> None:
        if flow.cancel is None and not flow.jobs:
            job()
        else:
            flow.jobs.append(job)

    def _call(
        self,
        flow: _Flow,
        what: str,
        handler: Callable[[], object],
        settle: Callable[[Any], None],
        failed: Callable[[], None],
    ) -> None:
        """Call a handler, now or in the end `settle` with its result, or `failed` where one of them raises."""

        def settled(result: object, error: BaseException | None) -> None:
            flow.cancel = None
            if error is None:
                try:
                    settle(result)
                except Exception as wrong:  # noqa: BLE001  # the result is none
                    error = wrong
            if error is not None:
                if not flow.gone:
                    self._failed(flow, what, error)
                failed()

        def go_on() -> None:
            while flow.jobs and flow.cancel is None:
                flow.jobs.popleft()()

        flow.cancel = self._begin(what, handler, settled, go_on)

    def _failed(self, flow: _Flow, what: str, error: BaseException) -> None:
        self._log(f"session {flow.session.id}: {what}: {described(error)}")
