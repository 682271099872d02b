"""Lines of smtpd-filters(7), as a filter reads them: the handshake, reports and requests.

Runs in filter programs; parses what the mail server writes, which quotes strangers. Versions 0.5 to 0.7 are
read. They differ in the order of two reports: before 0.6 the result of tx-mail and tx-rcpt stood after the
address, and before 0.7 that of link-auth after the user.
"""

from dataclasses import dataclass, fields

from smtpd_ps.filterkit.events import EVENTS, REQUESTS, Event, LinkAuth, Request, TxMail, TxRcpt
from smtpd_ps.filterkit.line_buffer import ProtocolError

VERSIONS = ("0.5", "0.6", "0.7")
_EVENTS = {event.NAME: (event, len(fields(event)) - len(fields(Event))) for event in EVENTS}
_REQUESTS = {request.NAME: (request, len(fields(request)) - len(fields(Request))) for request in REQUESTS}
_OPTIONAL = frozenset(("tx-reset", "filter-response"))  # may lack the last parameter


@dataclass(frozen=True, slots=True)
class Config:
    """What the handshake says. `admd` is "" where the server does not tell."""

    smtpd_version: str = ""
    protocol: str = ""
    session_timeout_secs: int = 0
    subsystems: tuple[str, ...] = ()
    admd: str = ""


def configured(lines: list[str]) -> Config:
    """The configuration from its lines without `config|`; unknown keys are passed over. Raises ProtocolError."""
    values: dict[str, str] = {}
    subsystems: list[str] = []
    for line in lines:
        key, _, value = line.partition("|")
        if key == "subsystem":
            subsystems.append(value)
        else:
            values[key] = value
    protocol = values.get("protocol", "")
    if protocol not in VERSIONS:
        raise ProtocolError(f"protocol {protocol or 'unknown'!r}: this program speaks {', '.join(VERSIONS)}")
    timeout = values.get("smtp-session-timeout", "")
    return Config(
        values.get("smtpd-version", ""),
        protocol,
        int(timeout) if timeout.isascii() and timeout.isdigit() else 0,
        tuple(subsystems),
        values.get("admd", ""),
    )


def parse_event(line: bytes) -> Event | None:
    """A report; None for one of an event that is not known here. Raises ProtocolError."""
    try:
        _report, version, when, subsystem, name, rest = line.decode(errors="surrogateescape").split("|", 5)
        when_secs = float(when)
    except ValueError:
        raise ProtocolError(f"not a report: {quoted(line)}") from None
    if name not in _EVENTS:
        return None
    kind, count = _EVENTS[name]
    session, *values = rest.split("|", count)
    if count and len(values) == count - 1 and name in _OPTIONAL:
        values.append("")
    if len(values) != count:
        if not count and not values:
            return kind(when_secs, subsystem, session)
        raise ProtocolError(f"a {name} of {len(values)} parameters: {quoted(line)}")
    if kind is LinkAuth and version < "0.7":
        user, _, result = rest.partition("|")[2].rpartition("|")
        values = [result, user]
    elif kind in (TxMail, TxRcpt) and version < "0.6":
        message_id, _, tail = rest.partition("|")[2].partition("|")
        address, _, result = tail.rpartition("|")
        values = [message_id, result, address]
    return kind(when_secs, subsystem, session, *values)


def parse_request(line: bytes) -> Request:
    """A request, but for data-line. Raises ProtocolError."""
    try:
        _filter, _version, when, subsystem, name, session, rest = line.decode(errors="surrogateescape").split("|", 6)
        when_secs = float(when)
    except ValueError:
        raise ProtocolError(f"not a request: {quoted(line)}") from None
    if name not in _REQUESTS:
        raise ProtocolError(f"a request for {name[:40]!r}, which was not registered")
    kind, count = _REQUESTS[name]
    token, *values = rest.split("|", count)
    if count == 0:
        token = token.partition("|")[0]
    elif len(values) < count:
        values += [""] * (count - len(values))
    return kind(when_secs, subsystem, session, token, *values)


def quoted(line: bytes) -> str:
    """The beginning of a line, for messages."""
    return ascii(line[:80].decode(errors="replace"))
