"""What lookup is told of sessions of actions with a filter.

Runs in delivery.
"""

import os
from collections.abc import Callable
from typing import Final

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import FILTER_EVENTS, FilterEvent
from smtpd_ps.contract.values import outgoing_session
from smtpd_ps.delivery.tasks import Task
from smtpd_ps.pure.reporting_client import ReportingClient
from smtpd_ps.pure.smtp_client_events import ClientOptions, Mail

MAX_TEXT: Final = 4096  # contract.messages.OutgoingReport
_BITS: dict[FilterEvent, int] = {event: 1 << index for index, event in enumerate(FILTER_EVENTS)}
_EDGES = _BITS["link-connect"] | _BITS["link-disconnect"]  # lookup must know which sessions there are


class Reporting:
    """What programs want to be told, by action."""

    def __init__(self) -> None:
        self.hooks: dict[str, m.OutgoingHooks] = {}
        self.send: Callable[[m.OutgoingReport], None] | None = None  # set before the loop runs

    def session(self, action: str) -> "SessionReports | None":
        """Of a session that begins now; None where nobody wants to be told."""
        hooks = self.hooks.get(action)
        if hooks is None or not hooks.events or self.send is None:
            return None
        return SessionReports(hooks, self.send)


class SessionReports:
    """The reports of one session; `session` is its number in logs, the one that programs see."""

    __slots__ = ("_action", "_events", "_number", "_open", "_send", "session")

    def __init__(self, hooks: m.OutgoingHooks, send: Callable[[m.OutgoingReport], None]) -> None:
        self._action, self._events, self._send = hooks.action, hooks.events | _EDGES, send
        self._number = int.from_bytes(os.urandom(7))
        self._open = False
        self.session = f"{outgoing_session(hooks.seat, self._number):016x}"

    def tell(self, event: FilterEvent, parameters: tuple[str, ...] = ()) -> None:
        """Pass it on, if somebody wants it."""
        if self._open and self._events & _BITS[event]:
            cut = tuple(text[:MAX_TEXT] for text in parameters)
            self._send(m.OutgoingReport(self._number, self._action, event, cut))

    def connected(self, host: str, here: tuple[str, int], there: tuple[str, int]) -> None:
        """To that host, whose name has that address."""
        self._open = True
        self.tell("link-connect", (host, "pass", _written(here), _written(there)))

    def closed(self) -> None:
        """It is over, if it ever began."""
        self.tell("link-disconnect")
        self._open = False

    def client(self, options: ClientOptions) -> ReportingClient:
        """A client machine that tells what happens."""
        return ReportingClient(options, self.tell, _name)


def _written(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _name(mail: Mail, index: int) -> tuple[str, str]:
    task = mail.task
    assert isinstance(task, Task)
    return f"{task.job.msgid:08x}", f"{task.recipients[index].evpid:016x}"
