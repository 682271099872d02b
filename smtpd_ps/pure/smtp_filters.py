"""What an SMTP session keeps about filters, where its listener has some.

Runs in smtp. pure/smtp_session_filters asks and is answered; parses nothing.
"""

from collections.abc import Callable
from typing import Any

from smtpd_ps.contract.messages.filters import FILTER_CHUNK_BYTES, FILTER_WINDOW_BYTES, FilterCredit, FilterData
from smtpd_ps.contract.settings import FILTER_EVENTS, FILTER_PHASES, FilterEvent, FilterPhase, ListenerSettings

Proceed = Callable[[Any, str, str], None]
"""Carries the command out: takes the session, the parameter, which a filter may have rewritten, and the rest."""

PHASE_BITS: dict[FilterPhase, int] = {phase: 1 << index for index, phase in enumerate(FILTER_PHASES)}
EVENT_BITS: dict[FilterEvent, int] = {event: 1 << index for index, event in enumerate(FILTER_EVENTS)}
_CREDIT_BYTES = 65_536  # given back to lookup in no smaller pieces


class Hooks:
    """What the filters of a listener want to be asked and told; programs say so when they have started."""

    __slots__ = ("events", "phases")

    def __init__(self, listener: ListenerSettings) -> None:
        self.phases = listener.filter_phases
        self.events = (1 << len(FILTER_EVENTS)) - 1 if listener.filter_programs else 0


class Filters:
    """What a session has beyond others where its listener has a filter."""

    __slots__ = (
        "client", "closing", "hooks", "junk", "junk_mail", "number", "parameter", "phase", "proceed", "refusal",
        "rest", "stream",
    )  # fmt: skip

    def __init__(self, hooks: Hooks) -> None:
        self.hooks = hooks
        self.client = ""  # its address and port
        self.number = 0  # of the last request
        self.phase: FilterPhase = "connect"  # and what it was about
        self.parameter = ""
        self.rest = ""
        self.proceed: Proceed | None = None  # while an answer is due
        self.junk = False  # all mail of the session
        self.junk_mail = False  # this mail
        self.closing = False  # after a refusal at connect
        self.refusal = b""  # in place of the greeting, once TLS has started
        self.stream: Stream | None = None  # the message that passes through programs


class Stream:
    """A message between the client, programs in lookup, and the spool: what is on its way, and what may be."""

    __slots__ = ("_credit_bytes", "_session", "_transaction", "_unacknowledged", "back", "opening", "over", "unsent")

    def __init__(self, session: int, transaction: int) -> None:
        self._session, self._transaction = session, transaction
        self._credit_bytes = FILTER_WINDOW_BYTES
        self._unacknowledged = 0
        self.unsent = b""  # bytes of the client that lookup does not take yet
        self.over = False  # the client has sent all
        self.opening = False  # the spool file
        self.back: list[bytes] = []  # what came back meanwhile

    def send(self, data: bytes, last: bool) -> list[FilterData]:
        """What to send to lookup now that the client has sent `data`."""
        self.unsent = self.unsent + data if self.unsent else data
        self.over = last
        return self._messages()

    def credit(self, size_bytes: int) -> list[FilterData]:
        """What to send now that lookup takes more."""
        self._credit_bytes += size_bytes
        return self._messages() if self.unsent else []

    def _messages(self) -> list[FilterData]:
        made: list[FilterData] = []
        unsent = self.unsent
        size = min(len(unsent), self._credit_bytes)
        self._credit_bytes -= size
        for at in range(0, size, FILTER_CHUNK_BYTES):
            part = unsent[at : min(at + FILTER_CHUNK_BYTES, size)]
            last = self.over and at + len(part) == len(unsent)
            made.append(FilterData(self._session, self._transaction, part, last))
        if not unsent and self.over:
            made.append(FilterData(self._session, self._transaction, b"", True))
        self.unsent = unsent[size:]
        return made

    def taken(self, size_bytes: int) -> FilterCredit | None:
        """Bytes that came back have been stored; what to grant lookup for them."""
        self._unacknowledged += size_bytes
        if self._unacknowledged < _CREDIT_BYTES:
            return None
        granted, self._unacknowledged = self._unacknowledged, 0
        return FilterCredit(self._session, self._transaction, granted)
