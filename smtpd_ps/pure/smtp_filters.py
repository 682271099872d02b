"""What an SMTP session keeps about filters, where its listener has some.

Runs in smtp. pure/smtp_session_filters asks and is answered; parses nothing.
"""

from collections.abc import Callable
from typing import Any

from smtpd_ps.contract.settings import FilterPhase

Proceed = Callable[[Any, str, str], None]
"""Carries the command out: takes the session, the parameter, which a filter may have rewritten, and the rest."""


class Filters:
    """What a session has beyond others where its listener has a filter."""

    __slots__ = ("closing", "junk", "junk_mail", "number", "parameter", "phase", "phases", "proceed", "refusal", "rest")

    def __init__(self, phases: int) -> None:
        self.phases = phases
        self.number = 0  # of the last request
        self.phase: FilterPhase = "connect"  # and what it was about
        self.parameter = ""
        self.rest = ""
        self.proceed: Proceed | None = None  # while an answer is due
        self.junk = False  # all mail of the session
        self.junk_mail = False  # this mail
        self.closing = False  # after a refusal at connect
        self.refusal = b""  # in place of the greeting, once TLS has started
