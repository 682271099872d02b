"""The base class of filters: which handlers there are, and what the filter wants of the kit.

Runs in filter programs. A filter is a class derived from Filter. It has the handlers it needs, and only
those are registered:

    on_link_connect(session, event)     a report: on_ and its name with "_" for "-"; the result is not used
    filter_mail_from(session, request)  a request: filter_ and the phase; the result is an Answer, None for Proceed
    filter_message(session, message)    the whole message; None leaves it as it is, else bytes or pieces of bytes
    filter_data_line(session, line)     each line (no dots doubled, no line end); bytes or several lines, [] for none
    filter_data_end(session)            after the last line: lines to add; beside filter_data_line

Handlers may be `async def`, but for those of data lines. The handlers of one session are called one after the
other, in the order of its events; a session whose handler waits keeps no other session waiting.
"""

import inspect
from typing import Any, ClassVar, Literal

from smtpd_ps.filterkit.events import EVENTS, REQUESTS
from smtpd_ps.filterkit.filter_lines import Config
from smtpd_ps.filterkit.session import Session

MAX_MESSAGE_BYTES = 64 << 20


class StopProgram(Exception):
    """The program cannot work: it ends with status 1, and the text is its last line on standard error."""


class Filter:
    """Derive from this; see the module."""

    on_failure: ClassVar[Literal["proceed", "tempfail"]] = "tempfail"
    """What a session gets where a handler raises. A message is refused (451) at commit, or goes on as it was."""

    follows: ClassVar[bool] = True
    """Whether the reports are registered that keep up the facts of a Session."""

    subsystems: ClassVar[tuple[str, ...]] = ("smtp-in",)
    """Of these, those that the server has are registered."""

    max_message_bytes: int = MAX_MESSAGE_BYTES
    """The longest message that filter_message is given; a longer one goes on as it is, see message_too_large."""

    config: Config = Config()
    """What the handshake said, from `ready` on."""

    def ready(self) -> None:
        """The handshake is over, and `config` is set. May raise StopProgram."""

    def message_too_large(self, session: Session) -> None:
        """A message is not given to filter_message. `session.too_large` says so at commit as well."""


class Handlers:
    """Which handlers a filter has. Raises TypeError where one cannot be what it is named."""

    def __init__(self, filter: Filter) -> None:
        self.events = {kind: made for kind in EVENTS if (made := _handler(filter, "on_", kind.NAME))}
        self.requests = {kind: made for kind in REQUESTS if (made := _handler(filter, "filter_", kind.NAME))}
        self.message = _handler(filter, "filter_", "message")
        self.data_line = _handler(filter, "filter_", "data-line")
        self.data_end = _handler(filter, "filter_", "data-end")
        if self.message and self.data_line:
            raise TypeError("a filter has filter_message or filter_data_line, not both")
        if self.data_end and not self.data_line:
            raise TypeError("filter_data_end goes with filter_data_line")
        for handler in (self.data_line, self.data_end):
            if inspect.iscoroutinefunction(handler):
                raise TypeError("handlers of data lines cannot be asynchronous")
        known = {f"on_{_word(kind.NAME)}" for kind in EVENTS} | {f"filter_{_word(kind.NAME)}" for kind in REQUESTS}
        known |= {"filter_message", "filter_data_line", "filter_data_end", "on_failure"}
        for name in dir(filter):
            if name.startswith(("on_", "filter_")) and name not in known:
                raise TypeError(f"{type(filter).__name__}.{name} is the handler of nothing")

    @property
    def streams(self) -> bool:
        """Whether messages pass through."""
        return self.message is not None or self.data_line is not None

    @property
    def asynchronous(self) -> bool:
        """Whether any handler is."""
        every = [*self.events.values(), *self.requests.values(), self.message]
        return any(inspect.iscoroutinefunction(handler) for handler in every)


def _word(name: str) -> str:
    return name.replace("-", "_")


def _handler(filter: Filter, prefix: str, name: str) -> Any:
    handler = getattr(filter, prefix + _word(name), None)
    if handler is not None and not callable(handler):
        raise TypeError(f"{prefix}{_word(name)} is not a method")
    return handler
