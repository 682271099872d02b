"""The mail of an SMTP session: its transactions, from MAIL to the reply to the message.

Runs in smtp on the bytes of one remote client; between pure/smtp_session_stream and pure/smtp_session.
Message bytes go through pure/smtp_intake; what lookup and queue answer arrives here.
"""

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Dsn
from smtpd_ps.pure import smtp_replies as say
from smtpd_ps.pure.header_addresses import AddressFields
from smtpd_ps.pure.received import protocol, received_header
from smtpd_ps.pure.smtp_filters import PHASE_BITS
from smtpd_ps.pure.smtp_intake import FilteredIntake, Intake
from smtpd_ps.pure.smtp_parameters import MailParameters
from smtpd_ps.pure.smtp_service import Action, Phase, State, UnexpectedAnswer, WriteBody
from smtpd_ps.pure.smtp_session_stream import StreamSession
from smtpd_ps.pure.smtp_transaction import Transaction

JUNK_HEADER = b"X-Spam: Yes\r\n"  # above all that came from elsewhere: `maildir junk` looks only there
_NO_DSN = Dsn()


class MailSession(StreamSession):
    """What a session does about mail. Public methods that return actions are events, as in ServerSession."""

    __slots__ = ()

    # Answers of lookup and queue.

    def rcpt_answer(
        self, transaction: int, number: int, code: int, text: str, envelopes: tuple[int, int] | None
    ) -> list[Action]:
        """RcptReply of queue with its `first` and `envelopes`, or RcptRefuse of lookup. Raises UnexpectedAnswer."""
        tx = self.transaction
        if tx is None or tx.number != transaction:
            raise UnexpectedAnswer(f"an answer to recipient {number} of transaction {transaction}, which is over")
        tx.answer(number, code, text, envelopes)
        if self.state is State.CLOSED:
            self._settle()
        else:
            self._flush_slots(tx)
            if self._buffer:
                self._run()
        return self._take()

    def file_opened(self) -> list[Action]:
        """Queue's spool file is there. Raises UnexpectedAnswer."""
        if not self._expects(m.BodyFile):
            return []
        self._out.append(WriteBody(self._block))
        self._file_answered()
        return self._take()

    def file_refused(self, text: str) -> list[Action]:
        """Queue has no spool file. The rest of the message is swallowed. Raises UnexpectedAnswer."""
        if not self._expects(m.BodyRefused):
            return []
        self._intake.refuse(say.reply(452, text or "4.3.1 Mail system full"))
        self._file_answered()
        return self._take()

    def _file_answered(self) -> None:
        self._block = b""
        if self.state is not State.FILE_WAIT:
            self._go_on_streaming()
            return
        self.state = State.DATA if self._chunk is None else State.CHUNK
        if self._intake.done:
            self._chunk = None
            self._message_ended(self._intake)
        self._run()

    def file_failed(self) -> None:
        """The spool file could not be written: the message will be refused at its end."""
        if self.transaction is not None and self.transaction.intake is not None:
            self.transaction.intake.refuse(say.NO_ROOM)

    def committed(self, transaction: int, code: int, text: str) -> list[Action]:
        """Queue has stored the message, or not. Raises UnexpectedAnswer."""
        tx = self.transaction
        if tx is None or tx.number != transaction or tx.intake is None:
            raise UnexpectedAnswer(f"Committed for transaction {transaction}")
        closed = not self._expects(m.Committed)
        stored = code // 100 == 2
        if stored:
            self.mails += 1
            self._errors = self._deferrals = self._idle_commands = 0
            self.log(
                f"message msgid={tx.msgid:08x} size={tx.intake.size_bytes} nrcpt={tx.accepted} "
                f"proto={'ESMTP' if self.extended else 'SMTP'}"
            )
            for recipient, low in tx.taken:
                self.log(f"envelope evpid={tx.msgid:08x}{low:08x} from=<{tx.sender}> to=<{recipient}>")
        self.transaction = None
        self.forget_mail()
        if closed:
            self._report_ended(tx, stored)
            self._settle()
            return self._take()
        self.state, self.phase = State.COMMAND, Phase.READY
        line = say.reply(code, text or f"2.0.0 {tx.msgid:08x} Message accepted for delivery")
        if stored:
            self.reply(line)
        else:
            self._text = "."
            self.refuse(line)
        self._report_ended(tx, stored)
        if self._draining:
            self._shut_down()
        if self._buffer:
            self._run()
        return self._take()

    def _report_ended(self, tx: Transaction, stored: bool) -> None:
        """Queue has answered: tell the filters."""
        if self.filters is not None and tx.intake is not None:
            msgid = f"{tx.msgid:08x}"
            if stored:
                self.report("tx-commit", msgid, str(tx.intake.stored))
            else:
                self.report("tx-rollback", msgid)
            self.report("tx-reset", msgid)

    # The message.

    def _read_message(self, data: bytes) -> bytes | None:
        """Feed the message; what follows its end, or None when that is not reached."""
        intake = self._intake
        if not data:
            return None
        self.active = True
        if self._pass_on(intake.feed(data)):
            return intake.rest if intake.done else b""
        if intake.done:
            self._message_ended(intake)
            return intake.rest
        if intake.hopeless:
            self.end("message too big", intake.refusal())
        return None

    def _pass_on(self, block: bytes) -> bool:
        """Have what the message became longer by written to its file; whether that is asked for only now."""
        intake = self._intake
        if block:
            self._out.append(WriteBody(block))
        elif intake.outgrown:
            self._block = intake.spill()
            if intake.in_file:
                tx = self._current
                tx.queue_knows = tx.id_used = True
                self._out.append(m.BodyOpen(self.id, tx.number, tx.msgid))
                self.state = State.FILE_WAIT
                return True
        return False

    # Transactions.

    def begin_transaction(self, sender: str, msgid: int, parameters: MailParameters) -> None:
        """MAIL was accepted, unless lookup has to say whether the user may send as `sender`."""
        self._transactions += 1
        self.transaction = Transaction(self._transactions, sender, msgid, parameters)
        self.phase = Phase.MAIL
        if self.authenticated and self.service.listener.senders:
            self.state = State.SENDER_WAIT
            self._out.append(m.SenderQuery(self.id, self._transactions, sender))
        else:
            self._mail_taken()

    def _mail_taken(self) -> None:
        self._out.append(say.OK)
        if self.filters is not None:
            self.report_of_mail("tx-begin")
            self.report_of_mail("tx-mail", "ok", self.said_address())

    def sender_reply(self, transaction: int, verdict: str) -> list[Action]:
        """Whether the user may send so: "ok", "no" or "error". Raises UnexpectedAnswer."""
        if not self._expects(m.SenderReply):
            return []
        if transaction != self._current.number:
            raise UnexpectedAnswer(f"SenderReply for transaction {transaction}")
        self.state = State.COMMAND
        if verdict == "ok":
            self._mail_taken()
        else:
            self.drop_transaction()
            self.refuse(say.SENDER_REJECTED if verdict == "no" else say.NO_MESSAGE_ID)
        self._run()
        return self._take()

    def ask_recipient(self, recipient: str, notify: int, orcpt: str) -> None:
        """May this recipient be taken? The reply comes with `rcpt_answer`."""
        tx = self._current
        number = tx.ask(self._text, recipient)
        ret, envid, _utf8 = tx.parameters
        dsn = Dsn(notify, orcpt, ret, envid) if notify or orcpt or ret or envid else _NO_DSN
        self._out.append(m.RcptRequest(self.id, tx.number, number, self.helo, self.secure, tx.sender, recipient, dsn))

    def _flush_slots(self, tx: Transaction) -> None:
        while self.state is not State.CLOSED and (slot := tx.next_ready()):
            if slot.reply[:1] == b"2":
                if self.filters is not None and slot.envelopes is not None:
                    self.report_envelopes(tx.msgid, *slot.envelopes)
                self._out.append(slot.reply)
                if self.filters is not None:
                    self.report_of_mail("tx-rcpt", "ok", slot.shown)
            else:
                self._refuse_now(slot.reply, slot.command)

    def data_wanted(self) -> None:
        """DATA or BDAT: take the message, once it is known who the client is."""
        if self._peer_known:
            self._begin_data()
        else:
            self.state = State.PEER_WAIT

    def _begin_data(self) -> None:
        service, tx = self.service, self._current
        listener = service.listener
        date = service.date()
        received = received_header(
            helo=self.helo,
            name=self.name,
            address=self.address,
            hostname=self.hostname,
            protocol=protocol(self.extended, self.secure, self.authenticated, tx.parameters.utf8),
            msgid=tx.msgid,
            tls=f"{self.tls}:{'YES' if self.verified else 'NO'}" if self.secure else "",
            recipient=tx.recipient if tx.accepted == 1 else "",
            date=date,
            masked=listener.mask_source,
            user=self.user if self.authenticated else "",
            with_user=listener.received_auth,
        )
        filters = self.filters
        chunked = self._chunk is not None
        streamed = filters is not None and not chunked and bool(filters.hooks.phases & PHASE_BITS["data-line"])
        header = b"" if streamed else received  # programs see Received; the mark comes above what they add
        if filters is not None and (filters.junk or filters.junk_mail):
            header = JUNK_HEADER + header
        masquerade = listener.masquerade and self.authenticated
        addresses = AddressFields(self.hostname, tx.sender if masquerade else "")
        if service.submission:
            message_id = f"Message-ID: <{service.random_bits():016x}@{self.hostname}>\r\n"
            date_line = f"Date: {date}\r\n"
        else:
            date_line = message_id = ""
        size = service.settings.max_message_bytes
        kind = FilteredIntake if streamed else Intake
        tx.intake = kind(size, header, addresses, date_line, message_id, chunked=chunked)
        if chunked:
            self.state = State.CHUNK
        else:
            self.state = State.DATA
            self._out.append(say.SEND_MESSAGE)
            self.report_of_mail("tx-data", "ok")
        if streamed:
            self._begin_stream(received)

    def _message_ended(self, intake: Intake) -> None:
        """CRLF.CRLF has come, or the last chunk."""
        if self.filters is None:
            self.store()
        else:
            self.state = State.COMMAND
            self.report("protocol-client", ".")
            self.filtered("commit", "", "", MailSession.store)

    def store(self, _parameter: str = "", _rest: str = "") -> None:
        """Have the message stored, or say what is wrong with it."""
        tx, intake = self._current, self._intake
        body = b""
        if not intake.in_file and not intake.refusal():
            body = intake.take()
        if refusal := intake.refusal():
            self.state = State.COMMAND
            self._text = "."
            self.refuse(refusal)
            self.drop_transaction()
            if self._draining:
                self._shut_down()
            return
        self.state = State.COMMIT
        tx.queue_knows = tx.id_used = True
        if intake.in_file:
            self._out.append(m.CommitFile(self.id, tx.number, tx.msgid, intake.eight_bit, intake.stored, intake.crc))
        else:
            self._out.append(m.Commit(self.id, tx.number, tx.msgid, intake.eight_bit, body))
