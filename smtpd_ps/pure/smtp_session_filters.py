"""The filters of an SMTP session: lookup is asked before a command is carried out, and told what happens.

Runs in smtp; between pure/smtp_session_base and pure/smtp_session_mail. A listener without a filter
pays nothing for it; one that has some asks and tells only what they want. Parses what lookup answers,
which may have been written by a filter program.
"""

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import FilterPhase
from smtpd_ps.pure import smtp_replies as say
from smtpd_ps.pure.smtp_filters import EVENT_BITS, PHASE_BITS, Filters, Proceed
from smtpd_ps.pure.smtp_service import EXPECTED, Action, Phase, StartTls, State, UnexpectedAnswer
from smtpd_ps.pure.smtp_session_base import SessionBase

_OF_MAIL = ("mail-from", "rcpt-to", "data")
_REPORTED: dict[FilterPhase, str] = {"connect": "connected", "starttls": "tls"}  # QUIRKS 55
_HIDDEN = "********"


class FilterSession(SessionBase):
    """What a session does about filters."""

    __slots__ = ()

    # Asking.

    def filtered(self, phase: FilterPhase, parameter: str, rest: str, proceed: Proceed) -> None:
        """Have `proceed` called with `parameter` and `rest`, now or when the filters have agreed."""
        filters = self.filters
        if filters is None:
            proceed(self, parameter, rest)
            return
        if phase == "mail-from":
            filters.junk_mail = False
        if not filters.hooks.phases & PHASE_BITS[phase]:
            self.report("filter-response", _REPORTED.get(phase, phase), "proceed")
            proceed(self, parameter, rest)
            return
        filters.number += 1
        filters.phase, filters.parameter, filters.rest, filters.proceed = phase, parameter, rest, proceed
        self.state = State.FILTER_WAIT
        sender = self.transaction.sender if self.transaction is not None else ""
        self._out.append(m.FilterRequest(self.id, filters.number, phase, parameter, self.helo, sender))

    def filter_answer(self, number: int, decision: str, text: str) -> list[Action]:
        """Lookup has applied the filters. Raises UnexpectedAnswer."""
        filters = self.filters
        if not self._expects(m.FilterAnswer):
            return []
        if filters is None or filters.proceed is None or filters.number != number:
            raise UnexpectedAnswer(f"an answer to request {number} of the filters")
        proceed, filters.proceed = filters.proceed, None
        self.state = State.COMMAND
        parameter = filters.parameter
        if decision == "reject" and text.startswith("421"):
            decision = "disconnect"
        words = (text,) if decision in ("reject", "disconnect", "rewrite") else ()
        self.report("filter-response", _REPORTED.get(filters.phase, filters.phase), decision, *words)
        if decision in ("reject", "disconnect"):
            self._filter_refused(filters, text, decision == "disconnect")
        else:
            if decision == "junk" and filters.phase in _OF_MAIL:
                filters.junk_mail = True
            elif decision == "junk":
                filters.junk = True
            elif decision == "rewrite":
                parameter = _without_brackets(text) if filters.phase in ("mail-from", "rcpt-to") else text
            proceed(self, parameter, filters.rest)
        if filters.phase != "connect" or self._buffer:
            self._run()
        return self._take()

    def _filter_refused(self, filters: Filters, text: str, closing: bool) -> None:
        code = text[:3]
        line = say.reply(int(code), text[4:]) if code.isdigit() and code[0] in "45" else say.FILTER_BROKEN
        if filters.phase == "connect":
            filters.closing = closing
            if self._begins_with_tls:
                filters.refusal = line
                self.state = State.HANDSHAKE
                self._out.append(StartTls(implicit=True))
            else:
                self.greet_refused(line)
            return
        commit = filters.phase == "commit"
        if commit:
            self._text = "."
        if closing or line.startswith(b"421"):
            self._out.append(line)
            self._log_refused(line, self._text)
            self._report_refused(line, self._text)
            self.end("filter")
            return
        self.refuse_message(line)
        if commit:
            self.drop_transaction()
            if self._draining:
                self._shut_down()

    def greet_refused(self, line: bytes) -> None:
        """Greet with a refusal, after which the client may only leave."""
        assert self.filters is not None
        self.phase = Phase.REFUSED
        self._text = ""
        if self.filters.closing or line.startswith(b"421"):
            self._log_refused(line, "")
            self.end("filter", line)
        else:
            self.refuse(line)

    @property
    def _begins_with_tls(self) -> bool:
        return self.service.listener.tls == "implicit" and not self.secure

    def _expects(self, answer: type[m.Message]) -> bool:
        if self.state is State.CLOSED:
            return False  # asked before the client went away
        if answer not in EXPECTED.get(self.state, ()):
            raise UnexpectedAnswer(f"{answer.__name__} while waiting for {self.state.text}")
        return True

    # Telling.

    def report_envelopes(self, msgid: int, first: int, count: int) -> None:
        """A recipient was taken: its envelopes, which lie one after the other."""
        if self.filters is not None and self.filters.hooks.events & EVENT_BITS["tx-envelope"]:
            for low in range(first, first + count):
                self.report("tx-envelope", f"{msgid:08x}", f"{msgid:08x}{low & 0xFFFFFFFF:08x}")

    def said_address(self) -> str:
        """The address of the command, as the client wrote it."""
        return self._text.partition("<")[2].partition(">")[0]

    def report_line(self, line: str) -> None:
        """The client has sent a line that is no data."""
        filters = self.filters
        if filters is not None and filters.hooks.events & EVENT_BITS["protocol-client"]:
            if self.state is not State.COMMAND:
                line = _HIDDEN  # a password, or a user
            elif line[:11].upper() == "AUTH PLAIN " or line[:11].upper() == "AUTH LOGIN ":
                line = line[:11] + _HIDDEN
            self.report("protocol-client", line)


def _without_brackets(text: str) -> str:
    """What a filter put in the place of an address, with or without the brackets of the command."""
    return text[1:].partition(">")[0] if text.startswith("<") else text
