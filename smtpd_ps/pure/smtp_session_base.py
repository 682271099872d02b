"""What the SMTP server's session is made of, what it says and logs, and how it ends.

Runs in smtp. The base of pure/smtp_session_filters, _mail and pure/smtp_session, which have the events; parses
nothing itself.
"""

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import FilterEvent
from smtpd_ps.pure import smtp_replies as say
from smtpd_ps.pure.smtp_filters import EVENT_BITS, Filters
from smtpd_ps.pure.smtp_service import Action, Close, Phase, Service, State
from smtpd_ps.pure.smtp_transaction import Transaction


class Chunk:
    """A chunk of BDAT whose bytes are on their way; with a `refusal` they are swallowed, and it is said then."""

    __slots__ = ("last", "left", "refusal", "size")

    def __init__(self, size: int, last: bool) -> None:
        self.size = self.left = size
        self.last = last
        self.refusal = b""


class SessionBase:
    """The state of one session, and its outgoing side."""

    __slots__ = (
        "_at", "_auth_tries", "_bad_line", "_block", "_buffer", "_chunk", "_deferrals", "_draining", "_ended",
        "_errors", "_idle_commands", "_logged", "_named", "_out", "_peer_known", "_resting", "_text", "_transactions",
        "active", "address", "authenticated", "extended", "filters", "finished", "helo", "hostname", "id", "mails",
        "name", "phase", "secure", "service", "state", "tls", "transaction", "user", "verified",
    )  # fmt: skip

    def __init__(self, service: Service, session_id: int, address: str) -> None:
        self.service = service
        self.id = session_id
        self.address = address  # an IP address, or "local"
        self.hostname = service.hostname  # ours, as we greet
        self._named = not service.listener.hostnames  # it is known
        self.name = service.hostname if address == "local" else "<unknown>"
        self.state = State.COMMAND
        self.phase: int = Phase.FRESH
        self.helo = ""
        self.extended = False
        self.secure = False
        self.tls = ""
        self.verified = False
        self.authenticated = False
        self.user = ""
        self.mails = 0
        self.active = True
        self.finished = False
        self._peer_known = address == "local"
        self._logged = False
        self._errors = 0
        self._deferrals = 0  # 4xx since the last message
        self._idle_commands = 0  # that brought no mail nearer, since then
        self._auth_tries = 0
        self._draining = False
        self._ended = False  # the client sends no more
        self._buffer = b""
        self._at = 0  # what is before it in the buffer was handled
        self._resting = False  # between Rest and go_on
        self._bad_line = False  # a bare LF in a line whose CRLF has not come
        self._text = ""  # the command, for the log
        self._out: list[Action] = []
        self._transactions = 0
        self.transaction: Transaction | None = None
        self.filters = Filters(service.hooks) if service.hooks is not None else None
        self._chunk: Chunk | None = None  # of BDAT, while it is read or filters are asked
        self._block = b""  # for the spool file that is being opened

    # The transaction.

    @property
    def in_flight(self) -> int:
        """How many commands of a pipelined group have not got their reply."""
        return len(self.transaction.slots) if self.transaction is not None else 0

    def drop_transaction(self) -> None:
        """Forget the transaction, if there is one. No recipient of it is unanswered."""
        tx = self.transaction
        if tx is None:
            return
        if tx.queue_knows:
            self._out.append(m.Abort(self.id, tx.number))
        if not tx.id_used:
            self.service.give_back_id(tx.msgid)
        self.report_of_mail("tx-rollback")
        self.report_of_mail("tx-reset")
        self.transaction = None
        self.phase = Phase.READY
        self.forget_mail()

    def forget_mail(self) -> None:
        """The transaction is over; so is what filters had to do with it."""
        if self.filters is not None:
            self.filters.junk_mail = False
            self.filters.stream = None

    def _run(self) -> None:
        """Handle what has arrived, as far as the state lets us."""
        raise NotImplementedError

    # Saying, logging, ending.

    def reply(self, line: bytes) -> None:
        """Send a good reply."""
        self._out.append(line)

    def send(self, message: m.Message) -> None:
        """Ask lookup or queue."""
        self._out.append(message)

    def refuse(self, line: bytes) -> None:
        """Send a 4xx or 5xx, behind the replies that are due before it."""
        if self.transaction is not None and self.transaction.slots:
            self.transaction.refuse(self._text, line)
        else:
            self._refuse_now(line, self._text)

    def refuse_message(self, line: bytes) -> None:
        """Refuse DATA, or BDAT once its chunk is swallowed."""
        if self._chunk is None:
            self.refuse(line)
        else:
            self._chunk.refusal = line
            self.state = State.CHUNK

    def _refuse_now(self, line: bytes, command: str) -> None:
        """Send and log it; too many 5xx end the session."""
        self._out.append(line)
        self._log_refused(line, command)
        if self.filters is not None:
            self._report_refused(line, command)
        if line[:1] == b"5":
            self._errors += 1
            if self._errors >= self.service.settings.max_errors:
                self.end("too many errors", say.TOO_MANY_ERRORS)
        else:
            self._deferrals += 1
            if self._deferrals >= self.service.settings.max_temporary_errors:
                self.end("too many errors", say.TOO_MANY_ERRORS)

    def _log_refused(self, line: bytes, command: str) -> None:
        if command[:4].upper() == "AUTH":
            command = f"AUTH {command[5:].partition(' ')[0]} (...)"
        self.log(f'failed-command command="{say.quoted(command)}" result="{say.quoted(line[:-2].decode("ascii"))}"')

    def end(self, reason: str, line: bytes = b"") -> None:
        """Close the connection, after `line` if there is one."""
        if self.state is State.CLOSED:
            return
        if line:
            self._out.append(line)
        self._close(f'"{reason}"' if " " in reason else reason)
        self._out.append(Close())

    def log(self, text: str) -> None:
        """A line of the log, under the session's id."""
        if not self._logged:
            self._log_connected()
        self._out.append(f"{self.id:016x} smtp {text}")

    def _log_connected(self) -> None:
        self._logged = True
        self._out.append(f"{self.id:016x} smtp connected address={self._address_text()} host={self.name}")

    def _address_text(self) -> str:
        return f"[{self.address}]" if ":" in self.address else self.address

    def _bad_input(self, line: bytes) -> None:
        self.log(f'bad-input result="{line[:-2].decode("ascii")}"')
        self.end("bad input", line)

    def _shut_down(self) -> None:
        self.end("shutdown", b"" if self.state is State.HANDSHAKE else say.CLOSING)

    def _close(self, reason: str) -> None:
        self.log(f"disconnected reason={reason}")
        storing = self.state is State.COMMIT
        self.state = State.CLOSED
        self._buffer = self._block = b""
        if not storing:
            if self.transaction is not None:
                self.transaction.intake = None
            self._settle()

    def _settle(self) -> None:
        """Closed: once nothing is unanswered, tell queue and lookup to forget us."""
        if self.finished or (self.transaction is not None and self.transaction.unanswered):
            return
        self.finished = True
        self.drop_transaction()
        self.report("link-disconnect")
        self._out.append(m.SessionEnd(self.id))

    def _take(self) -> list[Action]:
        if self._ended and self.state.waits_for_client and not self.in_flight and not self._resting:
            self.end("disconnect")
        out = self._out
        self._out = []
        filters = self.filters
        if filters is not None and filters.hooks.events & EVENT_BITS["protocol-server"]:
            return self._with_replies_reported(out)
        return out

    # Telling filters.

    def report(self, event: FilterEvent, *parameters: str) -> None:
        """Tell the filters that want to be told."""
        filters = self.filters
        if filters is not None and filters.hooks.events & EVENT_BITS[event]:
            self._out.append(m.FilterReport(self.id, event, parameters))

    def report_of_mail(self, event: FilterEvent, *parameters: str) -> None:
        """The same, of the transaction."""
        if self.filters is not None and self.transaction is not None:
            self.report(event, f"{self.transaction.msgid:08x}", *parameters)

    def _report_refused(self, line: bytes, command: str) -> None:
        """A command of the transaction was answered 4xx or 5xx; "." is the end of the message."""
        result = "tempfail" if line.startswith(b"4") else "permfail"
        verb = command[:4].upper()
        if verb in ("DATA", "."):
            if self.transaction is not None and self.transaction.accepted:
                self.report_of_mail("tx-data", result)
        elif verb in ("MAIL", "RCPT"):
            before, _, address = command.partition("<")
            address, bracket, _ = address.partition(">")
            if bracket and before:
                self.report_of_mail("tx-mail" if verb == "MAIL" else "tx-rcpt", result, address)

    def _with_replies_reported(self, out: list[Action]) -> list[Action]:
        made: list[Action] = []
        for action in out:
            if type(action) is bytes:
                lines = action.decode("ascii", "replace").split("\r\n")
                made += [m.FilterReport(self.id, "protocol-server", (line,)) for line in lines if line]
            made.append(action)
        return made
