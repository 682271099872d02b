"""What a filter can answer to a request (smtpd-filters(7), filter-result).

Runs in filter programs. A text that no line of the protocol can hold is a ValueError where the answer is made.
"""

import re
from dataclasses import dataclass

MAX_TEXT = 900  # a reply fits into the 1000 octets of a line, and into the daemon's bound of a field
_REPLY = re.compile(r"[45][0-9]{2}( .*)?")


def _one_line(text: str) -> None:
    if not text or len(text) > MAX_TEXT or any(ord(c) < 0x20 or ord(c) == 0x7F for c in text):
        raise ValueError(f"not a line of at most {MAX_TEXT} characters: {text[:60]!r}")


def _reply(text: str) -> None:
    _one_line(text)
    if not _REPLY.fullmatch(text):
        raise ValueError(f'not a reply such as "550 5.7.1 no": {text[:60]!r}')


@dataclass(frozen=True, slots=True)
class Proceed:
    """Go on."""

    def words(self) -> str:
        """As it stands in the line."""
        return "proceed"


@dataclass(frozen=True, slots=True)
class Junk:
    """Go on, and mark the message as spam."""

    def words(self) -> str:
        """As it stands in the line."""
        return "junk"


@dataclass(frozen=True, slots=True)
class Reject:
    """Refuse the command with this reply, 4xx or 5xx; 421 ends the session as well."""

    reply: str

    def __post_init__(self) -> None:
        _reply(self.reply)

    def words(self) -> str:
        """As it stands in the line."""
        return f"reject|{self.reply}"


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Refuse with this reply, and end the session."""

    reply: str

    def __post_init__(self) -> None:
        _reply(self.reply)

    def words(self) -> str:
        """As it stands in the line."""
        return f"disconnect|{self.reply}"


@dataclass(frozen=True, slots=True)
class Rewrite:
    """Go on with this parameter of the command in place of its own; an address is in brackets, `<a@b>`."""

    parameter: str

    def __post_init__(self) -> None:
        _one_line(self.parameter)

    def words(self) -> str:
        """As it stands in the line."""
        return f"rewrite|{self.parameter}"


@dataclass(frozen=True, slots=True)
class Report:
    """Go on, and tell the other filters and the log (filter-report)."""

    message: str

    def __post_init__(self) -> None:
        _one_line(self.message)

    def words(self) -> str:
        """As it stands in the line."""
        return f"report|{self.message}"


Answer = Proceed | Junk | Reject | Disconnect | Rewrite | Report
