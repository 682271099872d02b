"""The client side of SMTP and LMTP, without I/O: bytes of the server in, events and bytes out.

Pure; runs in delivery; parses replies of remote servers. One machine for both protocols
(RFC 5321, RFC 2033), with PIPELINING (RFC 2920) where the server offers it: MAIL, RCPTs and DATA
leave in one write, the body and its final dot in one more, and the next message's commands behind
that dot in the same write. Without it each command waits for its answer.

    machine = SmtpClient(options)
    for event in machine.receive(data): ...     # then send machine.take_output()
"""

from binascii import b2a_base64
from collections import deque
from enum import IntEnum

from smtpd_ps.contract.values import Status
from smtpd_ps.pure.smtp_client_body import END_OF_DATA, BareLineEnd, stuffed
from smtpd_ps.pure.smtp_client_commands import (
    is_safe_path,
    mail_command,
    needs_smtputf8,
    pipelined_head,
    rcpt_command,
)
from smtpd_ps.pure.smtp_client_ehlo import Offers, parse_offers
from smtpd_ps.pure.smtp_client_events import (
    Answer,
    ClientOptions,
    Event,
    Finished,
    Mail,
    Ready,
    Refused,
    Stage,
    StartTls,
    StreamBody,
)
from smtpd_ps.pure.smtp_client_replies import Reply, ReplyError, ReplyReader

LOST = "Connection closed unexpectedly"


class State(IntEnum):
    """Of the session."""

    BANNER = 0
    EHLO = 1
    HELO = 2
    STARTTLS = 3  # asked, no answer yet
    HANDSHAKE = 4  # the driver's turn
    AUTH = 5
    IDLE = 6
    BUSY = 7  # a transaction is under way
    DEAD = 8


_STAGES = {
    State.BANNER: Stage.BANNER,
    State.EHLO: Stage.HELO,
    State.HELO: Stage.HELO,
    State.STARTTLS: Stage.TLS,
    State.HANDSHAKE: Stage.TLS,
    State.AUTH: Stage.AUTH,
}


class _At(IntEnum):
    """Which answer a transaction waits for."""

    RSET = 0
    MAIL = 1
    RCPT = 2
    DATA = 3
    BODY = 4  # none: the driver streams
    END = 5


class _Transaction:
    __slots__ = ("accepted", "answers", "at", "index", "mail", "pipelined")

    def __init__(self, mail: Mail, at: _At, pipelined: bool) -> None:
        self.mail = mail
        self.at = at
        self.index = 0  # of the recipient that the next answer is for
        self.pipelined = pipelined
        self.answers: list[Answer | None] = [None] * len(mail.recipients)
        self.accepted: list[int] = []

    def settle(self, answer: Answer) -> None:
        """Give `answer` to every recipient that has none."""
        self.answers = [answer if each is None else each for each in self.answers]


def _answer(reply: Reply) -> Answer:
    code = reply.code
    if code < 300:
        return Status.OK, reply.text
    return (Status.PERMFAIL if code >= 500 else Status.TEMPFAIL), reply.text


class SmtpClient:
    """One session. `offers` is what the server said it can do; `mails` counts transactions made."""

    __slots__ = (
        "_current", "_head_sent", "_login", "_next", "_options", "_out", "_reader", "_reset", "mails", "offers",
        "secure", "state",
    )  # fmt: skip

    def __init__(self, options: ClientOptions) -> None:
        self._options = options
        self._reader = ReplyReader()
        self._out: list[bytes] = []
        self._current: _Transaction | None = None
        self._next: deque[Mail] = deque()  # at most one, see accepts_mail
        self._head_sent = False  # of the message in _next
        self._reset = False  # a refused transaction may still be open on the other side
        self._login: list[bytes] = []  # answers to the 334s to come
        self.state = State.BANNER
        self.secure = options.tls in ("implicit", "implicit-verify")
        self.offers = Offers()
        self.mails = 0

    # What the driver does.

    def take_output(self) -> bytes:
        """What is to be sent now."""
        out = self._out
        if not out:
            return b""
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    @property
    def dead(self) -> bool:
        """Whether nothing more will be said."""
        return self.state is State.DEAD

    @property
    def idle(self) -> bool:
        """Whether the session is set up and nothing is under way."""
        return self.state is State.IDLE

    @property
    def accepts_mail(self) -> bool:
        """Whether `send` may be called: idle, or with room for one message behind the current one."""
        if self.state is State.IDLE:
            return True
        return self.state is State.BUSY and self.offers.pipelining and not self._next and self.mails > 1

    @property
    def takes_eight_bit(self) -> bool:
        """Whether bodies may go as they are (RFC 6152); an LMTP server is a mailbox, not a way to one."""
        return self.offers.eight_bit or self._options.lmtp

    def send(self, mail: Mail) -> list[Event]:
        """Begin a transaction, or note it for the moment the current body is sent."""
        assert self.accepts_mail
        if answer := self._refusal(mail):
            return [Finished(mail, [answer] * len(mail.recipients), False)]
        self.mails += 1
        if self._current is not None:
            self._next.append(mail)
            if self._current.at is _At.END:  # its body is out already
                self._send_next_head()
        else:
            self._begin(mail)
        return []

    def tls_started(self) -> list[Event]:
        """The handshake is done: what was said in plain text is forgotten (RFC 3207 4.2)."""
        assert self.state is State.HANDSHAKE
        self.secure = True
        self.offers = Offers()
        self._reader = ReplyReader()
        self._say_hello()
        return []

    @property
    def refusals(self) -> list[Answer]:
        """What was answered to the recipients that are refused, when the body of the current message is due."""
        current = self._current
        return [] if current is None else [answer for answer in current.answers if answer is not None]

    def body_sent(self) -> None:
        """The streamed body and its final dot are on their way, before what `output` now holds."""
        current = self._current
        assert current is not None and current.at is _At.BODY
        current.at = _At.END
        self._send_next_head()

    def refuse_body(self) -> list[Event]:
        """The body must not be sent: it has a bare CR or LF. The session ends without a final dot."""
        events: list[Event] = []
        self._die((Status.PERMFAIL, "554 5.6.0 The message has a bare CR or LF"), tried=True, events=events)
        events.append(Refused(Stage.SESSION, "a stored message has a bare CR or LF"))
        return events

    def quit(self) -> None:
        """Say goodbye; the driver closes once `output` is sent."""
        if self.state in (State.IDLE, State.BUSY):
            self._out.append(b"QUIT\r\n")
        self.state = State.DEAD

    def lost(self, why: str) -> list[Event]:
        """The connection is gone: what becomes of the messages under way.

        Once the final dot was sent nobody knows whether the server took the message: those
        recipients without an answer have failed for now, and are not tried elsewhere at once.
        """
        events: list[Event] = []
        self._die((Status.TEMPFAIL, why or LOST), tried=False, events=events)
        return events

    # What the server does.

    def receive(self, data: bytes) -> list[Event]:
        """Take bytes of the server. After an event Refused, only the output is of interest."""
        events: list[Event] = []
        if self.state is State.DEAD:
            return events
        try:
            for reply in self._reader.feed(data):
                self._take(reply, events)
                if self.dead:
                    break
            if self._reader.error is not None and not self.dead:
                raise self._reader.error
            if self.state is State.HANDSHAKE and not self._reader.empty:
                raise ReplyError("plain text after STARTTLS")
        except ReplyError as error:
            events = [event for event in events if not isinstance(event, StartTls)]
            stage = _STAGES.get(self.state, Stage.SESSION)
            self._die((Status.TEMPFAIL, str(error)), tried=False, events=events)
            events.append(Refused(stage, str(error)))
        return events

    def _take(self, reply: Reply, events: list[Event]) -> None:
        match self.state:
            case State.BUSY:
                self._take_in_transaction(reply, events)
            case State.BANNER:
                if reply.code == 220:
                    self._say_hello()
                else:
                    self._refuse(Stage.BANNER, reply.text, events)
            case State.EHLO:
                self._take_hello(reply, events)
            case State.HELO:
                if reply.code == 250:
                    self._secure_or_ready(events)
                else:
                    self._refuse(Stage.HELO, reply.text, events)
            case State.STARTTLS:
                self._take_starttls(reply, events)
            case State.HANDSHAKE:
                raise ReplyError("plain text after STARTTLS")
            case State.AUTH:
                self._take_auth(reply, events)
            case State.IDLE:
                self._refuse(Stage.SESSION, reply.text, events)  # 421 of a server that is tired of waiting
            case State.DEAD:
                return

    def _refuse(self, stage: Stage, text: str, events: list[Event]) -> None:
        if stage is not Stage.BANNER:
            self._out.append(b"QUIT\r\n")
        self.state = State.DEAD
        events.append(Refused(stage, text))

    # Setting up.

    def _say_hello(self) -> None:
        verb = "LHLO" if self._options.lmtp else "EHLO"
        self._out.append(f"{verb} {self._options.helo}\r\n".encode())
        self.state = State.EHLO

    def _take_hello(self, reply: Reply, events: list[Event]) -> None:
        if reply.code == 250:
            self.offers = parse_offers(reply.lines)
            self._secure_or_ready(events)
        elif reply.code >= 500 and not self._options.lmtp and not self._must_secure and not self._options.user:
            self._out.append(f"HELO {self._options.helo}\r\n".encode())
            self.state = State.HELO
        else:
            self._refuse(Stage.HELO, reply.text, events)

    @property
    def _must_secure(self) -> bool:
        return not self.secure and self._options.tls in ("require", "require-verify")

    def _secure_or_ready(self, events: list[Event]) -> None:
        wants = not self.secure and self._options.tls in ("opportunistic", "require", "require-verify")
        if wants and self.offers.starttls:
            self._out.append(b"STARTTLS\r\n")
            self.state = State.STARTTLS
        elif self._must_secure:
            self._refuse(Stage.TLS, "TLS required but not supported by remote host", events)
        elif self._options.user:
            self._authenticate(events)
        else:
            self._become_ready(events)

    def _take_starttls(self, reply: Reply, events: list[Event]) -> None:
        if reply.code == 220:
            self.state = State.HANDSHAKE
            events.append(StartTls())
        elif self._must_secure or reply.code == 421:
            self._refuse(Stage.TLS, reply.text, events)
        elif self._options.user:
            self._authenticate(events)
        else:
            self._become_ready(events)

    def _authenticate(self, events: list[Event]) -> None:
        options = self._options
        user, password = options.user.encode(), options.password.encode()
        if not self.secure:
            self._refuse(Stage.AUTH, "AUTH needs TLS, which the remote host does not offer", events)
        elif "PLAIN" in self.offers.auth:
            self._out.append(b"AUTH PLAIN " + b2a_base64(b"\0" + user + b"\0" + password, newline=False) + b"\r\n")
            self.state = State.AUTH
        elif "LOGIN" in self.offers.auth:
            self._out.append(b"AUTH LOGIN\r\n")
            self._login = [b2a_base64(user, newline=False), b2a_base64(password, newline=False)]
            self.state = State.AUTH
        else:
            self._refuse(Stage.AUTH, "AUTH PLAIN and LOGIN are not offered by the remote host", events)

    def _take_auth(self, reply: Reply, events: list[Event]) -> None:
        if reply.code == 334 and self._login:
            self._out.append(self._login.pop(0) + b"\r\n")
        elif reply.code == 235:
            self._login.clear()
            self._become_ready(events)
        else:
            self._refuse(Stage.AUTH, reply.text, events)

    def _become_ready(self, events: list[Event]) -> None:
        self.state = State.IDLE
        events.append(Ready())

    # Transactions.

    def _refusal(self, mail: Mail) -> Answer | None:
        """Why this message cannot be sent here at all."""
        limit = self.offers.max_size_bytes
        if limit and mail.size_bytes > limit:
            return Status.PERMFAIL, "552 5.3.4 Message too big for the remote host"
        if needs_smtputf8(mail) and not self.offers.smtputf8:
            return Status.PERMFAIL, "553 5.6.7 The remote host does not take addresses outside ASCII"
        if not (is_safe_path(mail.sender) and all(map(is_safe_path, mail.recipients))):
            return Status.PERMFAIL, "553 5.1.3 An address cannot be sent"
        return None

    def _begin(self, mail: Mail) -> None:
        pipelined = self.offers.pipelining
        self._current = _Transaction(mail, _At.RSET if self._reset else _At.MAIL, pipelined)
        self.state = State.BUSY
        if self._reset:
            self._reset = False
            self._out.append(b"RSET\r\n")
            if not pipelined:
                return
        self._out.append(pipelined_head(mail, self.offers) if pipelined else mail_command(mail, self.offers).encode())

    def _take_in_transaction(self, reply: Reply, events: list[Event]) -> None:
        current = self._current
        assert current is not None
        if reply.code == 421:
            kept = self.mails > 1 and current.at <= _At.MAIL  # it had grown tired before it saw our MAIL
            self._die((Status.TEMPFAIL, reply.text), tried=not kept, events=events)
            events.append(Refused(Stage.SESSION, reply.text))
            return
        match current.at:
            case _At.MAIL:
                self._take_mail(current, reply, events)
            case _At.RCPT:
                self._take_rcpt(current, reply, events)
            case _At.DATA:
                self._take_data(current, reply, events)
            case _At.END:
                self._take_end(current, reply, events)
            case _At.RSET:
                if reply.code >= 300:
                    raise ReplyError(reply.text)
                current.at = _At.MAIL
                if not current.pipelined:
                    self._out.append(mail_command(current.mail, self.offers).encode())
            case _At.BODY:  # an answer before the end of the body: nobody reads the rest
                raise ReplyError(reply.text)

    def _take_mail(self, current: _Transaction, reply: Reply, events: list[Event]) -> None:
        if reply.code >= 300:
            current.settle(_refused(reply))
            if not current.pipelined:
                self._finish(current, events)
                return
        current.at = _At.RCPT
        if not current.pipelined:
            self._out.append(rcpt_command(current.mail, 0, self.offers).encode())

    def _take_rcpt(self, current: _Transaction, reply: Reply, events: list[Event]) -> None:
        index = current.index
        if current.answers[index] is None:  # else MAIL was refused
            if reply.code < 300:
                current.accepted.append(index)
            else:
                current.answers[index] = _refused(reply)
        current.index = index = index + 1
        if index < len(current.answers):
            if not current.pipelined:
                self._out.append(rcpt_command(current.mail, index, self.offers).encode())
        elif current.pipelined:
            current.at = _At.DATA
        elif current.accepted:
            current.at = _At.DATA
            self._out.append(b"DATA\r\n")
        else:
            self._reset = True
            self._finish(current, events)

    def _take_data(self, current: _Transaction, reply: Reply, events: list[Event]) -> None:
        if reply.code != 354:
            if reply.code < 400:
                raise ReplyError(f"not an answer to DATA: {reply.text}")
            current.settle(_refused(reply))
            self._reset = True
            self._finish(current, events)
        elif not current.accepted:
            self._take_pointless_data(current, events)
        elif current.mail.body is None:
            current.at = _At.BODY
            events.append(StreamBody(current.mail))
        else:
            try:
                self._out.append(stuffed(current.mail.prefix + current.mail.body))
            except BareLineEnd:
                events += self.refuse_body()
                return
            current.at = _At.END
            self._send_next_head()

    def _take_pointless_data(self, current: _Transaction, events: list[Event]) -> None:
        """354 although no recipient was taken (RFC 2920 3.1): send an empty message to nobody."""
        self._out.append(END_OF_DATA)
        if not self._options.lmtp:
            current.at = _At.END
            return
        # An LMTP server answers a dot once a recipient, so here never: leave.
        self._die((Status.TEMPFAIL, LOST), tried=False, events=events)
        self._out.append(b"QUIT\r\n")
        events.append(Refused(Stage.SESSION, "354 without a recipient"))

    def _send_next_head(self) -> None:
        if self._next:
            self._head_sent = True
            self._out.append(pipelined_head(self._next[0], self.offers))

    def _take_end(self, current: _Transaction, reply: Reply, events: list[Event]) -> None:
        answer = _answer(reply) if reply.code < 300 else _refused(reply)
        if self._options.lmtp:
            current.answers[current.accepted.pop(0)] = answer
            if current.accepted:
                return
        else:
            for index in current.accepted:
                current.answers[index] = answer
        self._finish(current, events)

    def _finish(self, current: _Transaction, events: list[Event]) -> None:
        events.append(Finished(current.mail, current.answers, self.offers.dsn))
        if not self._next:
            self._current = None
            self.state = State.IDLE
            return
        mail = self._next.popleft()
        if self._head_sent:
            self._head_sent = False
            self._current = _Transaction(mail, _At.MAIL, True)
        else:
            self._begin(mail)

    def _die(self, answer: Answer, tried: bool, events: list[Event]) -> None:
        """End the session. `tried`: the answer is about the current message, whatever was sent of it."""
        self.state = State.DEAD
        current, self._current = self._current, None
        if current is not None:
            if tried or current.at is _At.END:
                current.settle(answer)
            events.append(Finished(current.mail, current.answers, self.offers.dsn))
        for mail in self._next:
            events.append(Finished(mail, [None] * len(mail.recipients), False))
        self._next.clear()


def _refused(reply: Reply) -> Answer:
    """The answer of a reply that is not the one hoped for; a 3xx makes no sense here: try again."""
    if reply.code < 400:
        return Status.TEMPFAIL, reply.text
    return _answer(reply)
