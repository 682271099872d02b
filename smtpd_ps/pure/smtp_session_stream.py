"""A message of an SMTP session that passes through filter programs.

Runs in smtp, on the bytes of one remote client and on what programs make of them; between
pure/smtp_session_filters and pure/smtp_session_mail. The client's bytes go to lookup, as many as it
grants, and what comes back is treated as if the client had sent it.
"""

from smtpd_ps.contract import messages as m
from smtpd_ps.pure import smtp_replies as say
from smtpd_ps.pure.smtp_filters import Stream
from smtpd_ps.pure.smtp_intake import FilteredIntake, Intake
from smtpd_ps.pure.smtp_service import Action, State, UnexpectedAnswer, WriteBody
from smtpd_ps.pure.smtp_session_filters import FilterSession
from smtpd_ps.pure.smtp_transaction import Transaction


class StreamSession(FilterSession):
    """What a session does about such a message."""

    __slots__ = ()

    @property
    def _current(self) -> Transaction:
        assert self.transaction is not None
        return self.transaction

    @property
    def _intake(self) -> Intake:
        intake = self._current.intake
        assert intake is not None
        return intake

    def _begin_stream(self, received: bytes) -> None:
        """Lead it through lookup; what comes back is treated as if the client had sent it."""
        assert self.filters is not None
        self.filters.stream = Stream(self.id, self._current.number)
        self.state = State.STREAM
        self._out += self.filters.stream.send(received, False)

    def _read_stream(self, data: bytes) -> bytes | None:
        """As `_read_message`."""
        intake, stream = self._through, self._stream
        if not data:
            return None
        self.active = True
        block = intake.feed_through(data)
        if intake.sent_all:
            self.state = State.STREAM_WAIT
        if not intake.ended and (block or intake.sent_all):
            self._out += stream.send(block, intake.sent_all)
        if intake.sent_all:
            if intake.ended and not stream.opening:
                self._message_ended(intake)  # it was refused before the client had sent all
            return intake.rest
        if intake.hopeless:
            self.end("message too big", intake.refusal())
        return None

    def filter_credit(self, transaction: int, size_bytes: int) -> list[Action]:
        """Lookup takes more of the message."""
        filters, tx = self.filters, self.transaction
        if filters is not None and filters.stream is not None and tx is not None and tx.number == transaction:
            self._out += filters.stream.credit(size_bytes)
        return self._take()

    def filter_data(self, transaction: int, data: bytes, last: bool, refusal: str) -> list[Action]:
        """A piece of the message comes back from the programs. Raises UnexpectedAnswer."""
        filters, tx = self.filters, self.transaction
        if filters is None or filters.stream is None or tx is None or tx.number != transaction:
            return self._take()  # of a message that is over
        if self.state not in (State.STREAM, State.STREAM_WAIT) or self._through.ended:
            raise UnexpectedAnswer(f"message bytes while waiting for {self.state.text}")
        self.active = True
        intake, stream = self._through, filters.stream
        if refusal:
            intake.refuse(say.reply(int(refusal[:3]), refusal[4:]))
            stream.unsent = b""  # and nothing more is sent, now that the message is refused
        intake.ended = last
        if stream.opening:
            stream.back.append(data)
        else:
            self._came_back(intake, stream, data)
        self._end_stream(intake, stream)
        return self._take()

    def _came_back(self, intake: FilteredIntake, stream: Stream, data: bytes) -> None:
        block = intake.take_back(data)
        if block:
            self._out.append(WriteBody(block))
        elif intake.outgrown:
            self._block = intake.spill()
            if intake.in_file:
                tx = self._current
                tx.queue_knows = tx.id_used = True
                self._out.append(m.BodyOpen(self.id, tx.number, tx.msgid))
                stream.opening = True
        granted = stream.taken(len(data))
        if granted is not None and not intake.ended:
            self._out.append(granted)

    def _go_on_streaming(self) -> None:
        """The spool file is there, or will not be."""
        intake, stream = self._through, self._stream
        stream.opening = False
        back, stream.back = stream.back, []
        for data in back:
            self._came_back(intake, stream, data)
        self._end_stream(intake, stream)

    def _end_stream(self, intake: FilteredIntake, stream: Stream) -> None:
        """Go on with the message once all of it is back and the client has sent all."""
        if intake.ended and not stream.opening and intake.sent_all:
            self._message_ended(intake)
            self._run()

    @property
    def _stream(self) -> Stream:
        assert self.filters is not None
        assert self.filters.stream is not None
        return self.filters.stream

    @property
    def _through(self) -> FilteredIntake:
        intake = self._intake
        assert isinstance(intake, FilteredIntake)
        return intake

    def _message_ended(self, intake: Intake) -> None:
        raise NotImplementedError  # pure/smtp_session_mail
