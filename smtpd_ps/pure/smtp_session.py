"""The SMTP server's session: a state machine without sockets.

Runs in smtp on the bytes of one remote client. Told what happens (bytes, answers of lookup and
queue, TLS, time), it answers with actions (pure/smtp_service). What each command does stands in
pure/smtp_commands, what becomes of mail in pure/smtp_session_mail. Consecutive RCPT commands are
asked for together and answered in order; every other command waits until they are.
"""

from smtpd_ps.contract import messages as m
from smtpd_ps.pure import smtp_replies as say
from smtpd_ps.pure.address import domain_valid
from smtpd_ps.pure.smtp_commands import COMMANDS, authenticate, password_given, user_given
from smtpd_ps.pure.smtp_service import Action, Phase, Rest, StartTls, State, Wait
from smtpd_ps.pure.smtp_session_chunks import ChunkSession

MAX_COMMAND = 2047  # OpenSMTPD's; RFC 5321 4.5.3.1.4 asks for 512
MAX_WAITING = 4096  # command bytes kept while an answer is due; beyond it the client waits
MAX_RCPT_IN_FLIGHT = 64
MAX_ACTIONS = 64  # in one go: a segment full of commands holds up nobody else, nor grows a mountain of replies


class ServerSession(ChunkSession):
    """One client's session. Every public method returns the actions to carry out, in order.

    `finished` is set when the session may be forgotten: it is closed, and nothing that lookup or
    queue were asked is unanswered. `active` is set at every sign of life, for whoever times it.
    """

    __slots__ = ()

    # Events.

    def begin(self) -> list[Action]:
        """The client has connected."""
        listener = self.service.listener
        self._out.append(m.PeerQuery(self.id, listener.index, self.address, listener.tag))
        if self.filters is not None and (self.filters.hooks.phases & 1 or self.filters.hooks.events):  # 1: connect
            self.state = State.GREET_WAIT
        else:
            self.greet()
        return self._take()

    def greet(self, _parameter: str = "", _rest: str = "") -> None:
        """The client is welcome."""
        if self._begins_with_tls:
            self.state = State.HANDSHAKE
            self._out.append(StartTls(implicit=True))
        else:
            self._greet()

    def greeted(self, hostname: str) -> list[Action]:
        """Lookup has said with which name to greet ("": the listener's own)."""
        if not self._named:
            self._named = True
            self.hostname = hostname or self.hostname
        if self.state is State.NAME_WAIT:
            self._greet()
            self._run()
        return self._take()

    def _greet(self) -> None:
        if self._named:
            self.state = State.COMMAND
            self._out.append(self.service.greeting(self.hostname))
            self.report("link-greeting", self.hostname)
        else:
            self.state = State.NAME_WAIT

    def receive(self, data: bytes) -> list[Action]:
        """Bytes of the client."""
        if self.state is State.HANDSHAKE:
            return self.plaintext_waiting()
        if self._buffer:
            data = self._buffer[self._at :] + data
        self._buffer, self._at = data, 0
        self._run()
        return self._take()

    def plaintext_waiting(self) -> list[Action]:
        """More plain text came although the handshake was to begin: an injection."""
        self._bad_input(say.PLAINTEXT_AFTER_STARTTLS)
        return self._take()

    def tls_started(self, tls: str, verified: bool, fingerprint: str = "") -> list[Action]:
        """The handshake is done. `tls` is "VERSION:CIPHER:BITS". All that was said before is void.

        `fingerprint` is of the client's certificate, "" without one.
        """
        self.secure = True
        self.tls, self.verified = tls, verified
        self.helo, self.phase = "", Phase.FRESH
        self._idle_commands = 0
        self.active = True
        self.log(f"tls ciphers={tls}")
        if fingerprint:
            self.log(f'cert-check result="{"verified" if verified else "unchecked"}" fingerprint="{fingerprint}"')
        self.report("link-tls", tls)
        self.state = State.COMMAND
        if self.filters is not None and self.filters.refusal:
            self.greet_refused(self.filters.refusal)
        elif self.service.listener.tls == "implicit":
            self._greet()
        return self._take()

    def peer_info(self, name: str) -> list[Action]:
        """Lookup knows the client's reverse DNS name ("" for none)."""
        if not self._peer_known:
            self._peer_known = True
            if domain_valid(name):
                self.name = name
        if not self._logged and self.state is not State.CLOSED:
            self._log_connected()
        if self.state is State.PEER_WAIT:
            self._begin_data()
            self._run()
        elif self.state is State.GREET_WAIT:
            self._report_connect()
            self.filtered("connect", self.address, "", ServerSession.greet)
        return self._take()

    def _report_connect(self) -> None:
        """Lookup adds the client's name."""
        listener, filters = self.service.listener, self.filters
        if filters is not None:
            if self.address == "local":
                here = f"unix:{listener.address}"
                self.report("link-connect", here, here)
            else:
                here = f"[{listener.address}]" if ":" in listener.address else listener.address
                self.report("link-connect", filters.client or self._address_text(), f"{here}:{listener.port}")

    def auth_reply(self, verdict: str) -> list[Action]:
        """Lookup has checked the password: "ok", "no" or "error". Raises UnexpectedAnswer."""
        if not self._expects(m.AuthReply):
            return []
        words = {"ok": "ok", "no": "permfail"}.get(verdict, "tempfail")
        self.log(f'authentication user="{say.quoted(self.user)}" address={self._address_text()} result={words}')
        self.report("link-auth", {"ok": "pass", "no": "fail"}.get(verdict, "error"), self.user)
        if verdict == "no":
            self.state = State.AUTH_DELAY
            self._out.append(Wait(0.5 + self.service.random() / 2))
            return self._take()
        self.state = State.COMMAND
        if verdict == "ok":
            self.authenticated = True
            self.reply(say.AUTHENTICATED)
        else:
            self.refuse(say.AUTH_UNAVAILABLE)
        self._run()
        return self._take()

    def wait_over(self) -> list[Action]:
        """The moment of a `Wait` has passed."""
        if self.state is State.AUTH_DELAY:
            self.state = State.COMMAND
            self._auth_tries += 1
            self.service.password_failed(self.address)
            self.refuse(say.AUTH_FAILED)
            if self._auth_tries >= self.service.settings.max_auth_tries:
                self.end("too many authentication failures", say.TOO_MANY_AUTH)
            self._run()
        return self._take()

    def go_on(self) -> list[Action]:
        """The answer to `Rest`."""
        self._resting = False
        if self._buffer:
            self._run()
        return self._take()

    def idle(self) -> list[Action]:
        """Nothing happened for too long."""
        self.report("timeout")
        if self.state is State.HANDSHAKE:
            self.end("timeout")
        elif self.waits_for_client:
            self.end("timeout", say.IDLE)
        return self._take()

    def too_slow(self) -> list[Action]:
        """The message has taken too long for its size."""
        self.end("too slow", say.TOO_SLOW)
        return self._take()

    def drain(self) -> list[Action]:
        """The daemon stops: take no new message; one that is being sent may be finished."""
        self._draining = True
        if self.state is not State.PEER_WAIT and (self.transaction is None or self.transaction.intake is None):
            self._shut_down()
        return self._take()

    def cut(self) -> list[Action]:
        """The time to finish has passed. A message that queue is storing is still waited for."""
        if self.state is not State.COMMIT:
            self._shut_down()
        return self._take()

    def input_ended(self) -> list[Action]:
        """The client sends no more. What it has sent is carried out and answered, which it may still read."""
        self._ended = True
        if self.state in (State.NAME_WAIT, State.GREET_WAIT) and not self._buffer:
            self.end("disconnect")  # it has said nothing at all
        return self._take()

    def disconnected(self, reason: str) -> list[Action]:
        """The client is gone: "" for an orderly close, else what went wrong."""
        if self.state is not State.CLOSED:
            self._close("disconnect" if not reason else f'"io-error: {say.quoted(reason)}"')
        return self._take()

    # What the glue asks.

    @property
    def waits_for_client(self) -> bool:
        """Whether it is the client's turn, so that its silence counts."""
        return self.state.waits_for_client and not self.in_flight and not self._stream_is_full

    @property
    def _stream_is_full(self) -> bool:
        filters = self.filters
        return filters is not None and filters.stream is not None and bool(filters.stream.unsent)

    @property
    def receiving(self) -> bool:
        """Whether a message is under way, and the client's turn."""
        return self.transaction is not None and self.transaction.intake is not None and self.waits_for_client

    @property
    def received_bytes(self) -> int:
        """How much of it has come."""
        return self._intake.size_bytes

    @property
    def wants_data(self) -> bool:
        """Whether more bytes may come; if not, reading pauses until they may."""
        if self._resting:
            return False
        if len(self._buffer) - self._at >= MAX_WAITING:
            return self.waits_for_client
        if self._stream_is_full:
            return False
        # Before the greeting a client may have begun with TLS, so that its bytes are not for us to read.
        return self.state not in (State.FILE_WAIT, State.GREET_WAIT) and (
            self.state is not State.FILTER_WAIT or self.filters is None or self.filters.phase != "connect"
        )

    # Reading.

    def _run(self) -> None:
        """Handle what has arrived, as far as the state lets us."""
        buffer, at = self._buffer, self._at
        while True:
            if self.state is State.DATA:
                rest = self._read_message(buffer[at:] if at else buffer)
                if rest is None:
                    buffer = b""
                    at = 0
                    break
                buffer, at = rest, 0
                continue
            if self.state is State.STREAM:
                rest = self._read_stream(buffer[at:] if at else buffer)
                buffer, at = rest or b"", 0
                if rest is None:
                    break
                continue
            if self.state is State.CHUNK:
                left = self._read_chunk(buffer[at:] if at else buffer)
                buffer, at = left or b"", 0
                if left is None:
                    break
                continue
            if not self.state.reads_lines or at >= len(buffer) or self._resting:
                break
            if len(self._out) >= MAX_ACTIONS:
                self._resting = True
                self._out.append(Rest())
                break
            end = buffer.find(b"\r\n", at)
            if self.in_flight and not (at + 5 < end <= at + MAX_COMMAND and self._may_pipeline(buffer[at : at + 5])):
                break
            if end < 0:
                self._look_at_partial(buffer, at)
                break
            line = buffer[at:end]
            at = end + 2
            self.active = True
            self._line(line)
        if at >= len(buffer) or self.state is State.CLOSED:
            buffer, at = b"", 0
        self._buffer, self._at = buffer, at  # what was handled is cut off when more comes: once, not a line at a time
        if self.state is State.HANDSHAKE:
            self._start_tls()

    def _may_pipeline(self, verb: bytes) -> bool:
        tx = self.transaction
        assert tx is not None
        in_flight = len(tx.slots)
        return (
            verb.upper() == b"RCPT "
            and in_flight < MAX_RCPT_IN_FLIGHT
            and tx.accepted + in_flight < self.service.settings.max_recipients
        )

    def _look_at_partial(self, buffer: bytes, at: int) -> None:
        if len(buffer) - at > MAX_COMMAND + 1:
            self._bad_input(say.LINE_TOO_LONG)
        elif not self._bad_line and buffer.find(b"\n", at) >= 0:
            self._bad_line = True  # said once, at once: the line's CRLF may never come
            if self.state is State.COMMAND:
                self._text = buffer[at:].decode("latin-1")
            self.state = State.COMMAND
            self.refuse(say.NOT_PRINTABLE)

    def _line(self, line: bytes) -> None:
        if self._bad_line:
            self._bad_line = False
            return
        if len(line) > MAX_COMMAND:
            self._bad_input(say.LINE_TOO_LONG)
            return
        text = line.decode("latin-1")
        if self.filters is not None:
            self.report_line(line.decode(errors="replace"))
        if not (text.isascii() and text.isprintable()):
            if self._may_be_utf8(line):
                self._command(line.decode())
                return
            if self.state is State.COMMAND:
                self._text = text
            self.state = State.COMMAND
            self.refuse(say.NOT_PRINTABLE)
        elif self.state is State.COMMAND:
            self._command(text)
        elif self.state is State.AUTH_PLAIN:
            authenticate(self, line)
        elif self.state is State.AUTH_USER:
            user_given(self, line)
        else:
            password_given(self, line)

    def _may_be_utf8(self, line: bytes) -> bool:
        """Whether it is MAIL or RCPT with clean UTF-8; whether its address may be that, they see to."""
        if self.state is not State.COMMAND or not self.extended or line[:5].upper() not in (b"MAIL ", b"RCPT "):
            return False
        try:
            return line.decode().isprintable()
        except UnicodeDecodeError:
            return False

    def _command(self, text: str) -> None:
        verb, blank, argument = text.partition(" ")
        command = COMMANDS.get(verb) or COMMANDS.get(verb.upper())
        self._text = text
        if command is None:
            self.refuse(say.UNRECOGNIZED)
        elif blank and command.bare:
            self.refuse(say.NO_ARGUMENTS)
        elif not command.phases & self.phase:
            self.refuse(say.NOT_NOW)
        elif command.idle and not self._may_idle():
            self.end("too many commands", say.TOO_MANY_IDLE)
        else:
            command.run(self, argument.lstrip(" ") if blank else None)

    def _may_idle(self) -> bool:
        """Whether one more command without a message is within the budget."""
        self._idle_commands += 1
        return self._idle_commands <= self.service.settings.max_idle_commands

    def _start_tls(self) -> None:
        """STARTTLS was accepted; nothing may have come behind it (RFC 3207 4.2, CVE-2011-0411)."""
        if self._buffer:
            self._bad_input(say.PLAINTEXT_AFTER_STARTTLS)
            self._buffer = b""
        else:
            self._out.append(say.READY_FOR_TLS)
            self._out.append(StartTls(implicit=False))
