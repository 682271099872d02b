"""The client side of SMTP, telling what happens: for filters of mail that goes out.

Pure; runs in delivery, only for actions with a filter; parses replies of remote servers. The order is that of
what is sent and of what is answered, so with PIPELINING a transaction begins when MAIL is answered.
"""

from collections.abc import Callable

from smtpd_ps.contract.settings import FilterEvent
from smtpd_ps.contract.values import Status
from smtpd_ps.pure.address import domain_valid
from smtpd_ps.pure.smtp_client import SmtpClient, State, _Transaction
from smtpd_ps.pure.smtp_client_body import END_OF_DATA
from smtpd_ps.pure.smtp_client_events import Answer, ClientOptions, Event, Mail
from smtpd_ps.pure.smtp_client_replies import Reply

HIDDEN = "********"  # in place of a password

Tell = Callable[[FilterEvent, tuple[str, ...]], None]
# The id of a message, and that of the envelope of its recipient of that index.
Name = Callable[[Mail, int], tuple[str, str]]


class _Watched(list[bytes]):
    """What is to be sent; `append` is heard."""

    def __init__(self, heard: Callable[[bytes], None]) -> None:
        super().__init__()
        self._heard = heard

    def append(self, data: bytes) -> None:
        super().append(data)
        self._heard(data)


class ReportingClient(SmtpClient):
    """`tell` is called with what smtpd-filters(7) calls events."""

    __slots__ = ("_begun", "_name", "_secret", "_tell")

    def __init__(self, options: ClientOptions, tell: Tell, name: Name) -> None:
        super().__init__(options)
        self._tell = tell
        self._name = name
        self._begun = False  # MAIL of the current transaction was taken
        self._secret = False  # what is sent now is part of a password
        self._out = _Watched(self._sent)

    # What is said.

    def _sent(self, data: bytes) -> None:
        if data == END_OF_DATA or data.endswith(b"\r\n" + END_OF_DATA):
            self._tell("protocol-client", (".",))
            return
        for line in data.removesuffix(b"\r\n").split(b"\r\n"):
            text = line.decode("utf-8", "replace")
            verb, _, argument = text.partition(" ")
            if self._secret:
                text = HIDDEN
            elif text.startswith("AUTH PLAIN "):
                text = f"AUTH PLAIN {HIDDEN}"
            self._tell("protocol-client", (text,))
            if verb in ("EHLO", "HELO", "LHLO") and not self._secret:
                self._tell("link-identify", (verb, argument))

    def body_sent(self) -> None:
        """As there."""
        self._tell("protocol-client", (".",))
        super().body_sent()

    # What is answered.

    def _take(self, reply: Reply, events: list[Event]) -> None:
        last = len(reply.lines) - 1
        for index, line in enumerate(reply.lines):
            text = line.decode("utf-8", "replace")
            self._tell("protocol-server", (f"{reply.code}{' ' if index == last else '-'}{text}",))
        if self.state is State.BANNER and reply.code == 220:
            name = reply.lines[0].decode("ascii", "replace").partition(" ")[0]
            self._tell("link-greeting", (name if domain_valid(name) else "",))
        super()._take(reply, events)

    def _take_auth(self, reply: Reply, events: list[Event]) -> None:
        self._secret = reply.code == 334 and bool(self._login)
        if not self._secret:
            self._tell("link-auth", ("pass" if reply.code == 235 else "fail", self._options.user))
        super()._take_auth(reply, events)
        self._secret = False

    def _take_mail(self, current: _Transaction, reply: Reply, events: list[Event]) -> None:
        if reply.code < 300:
            self._begun = True
            msgid = self._name(current.mail, 0)[0]
            self._tell("tx-begin", (msgid,))
            self._tell("tx-mail", (msgid, "ok", current.mail.sender))
        super()._take_mail(current, reply, events)

    def _take_rcpt(self, current: _Transaction, reply: Reply, events: list[Event]) -> None:
        if self._begun:
            index = current.index
            msgid, evpid = self._name(current.mail, index)
            self._tell("tx-envelope", (msgid, evpid))
            self._tell("tx-rcpt", (msgid, _result(reply.code < 300, reply.code), current.mail.recipients[index]))
        super()._take_rcpt(current, reply, events)

    def _take_data(self, current: _Transaction, reply: Reply, events: list[Event]) -> None:
        if self._begun and current.accepted:
            self._tell("tx-data", (self._name(current.mail, 0)[0], _result(reply.code == 354, reply.code)))
        super()._take_data(current, reply, events)

    # The end of a transaction.

    def _finish(self, current: _Transaction, events: list[Event]) -> None:
        self._ended(current.mail, any(answer is not None and answer[0] is Status.OK for answer in current.answers))
        super()._finish(current, events)

    def _die(self, answer: Answer, tried: bool, events: list[Event]) -> None:
        if self._current is not None:
            self._ended(self._current.mail, False)
        super()._die(answer, tried, events)

    def _ended(self, mail: Mail, taken: bool) -> None:
        if not self._begun:
            return
        self._begun = False
        msgid = self._name(mail, 0)[0]
        if taken:
            self._tell("tx-commit", (msgid, str(mail.size_bytes)))
        else:
            self._tell("tx-rollback", (msgid,))
        self._tell("tx-reset", (msgid,))


def _result(taken: bool, code: int) -> str:
    return "ok" if taken else "permfail" if code >= 500 else "tempfail"
