"""The protocol of table programs, smtpd-tables(7) 0.1: lines out, answers in.

Runs in lookup, on lines that a program of the operator's wrote. A line that is none of the protocol is
a ProtocolError; the program is then given up.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

VERSION = "0.1"
MAX_KEY_BYTES = 2048
MAX_VALUE = 65_536  # characters of an answer, which the pipe's lines bound as well

Service = Literal[
    "alias", "domain", "credentials", "netaddr", "userinfo", "source", "mailaddr", "addrname", "mailaddrmap",
    "relayhost", "string", "regex", "auth",
]  # fmt: skip
SERVICES: tuple[Service, ...] = get_args(Service)
Operation = Literal["update", "check", "lookup", "fetch"]
Status = Literal["found", "not-found", "error"]

_RESULTS: dict[str, Operation] = {
    "update-result": "update",
    "check-result": "check",
    "lookup-result": "lookup",
    "fetch-result": "fetch",
}


class ProtocolError(Exception):
    """The program does not keep to the protocol. The text says how, and quotes nothing that may be secret."""


class KeyRefused(ValueError):
    """A key that no line can hold. It is not quoted: it may be a password."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. `operation` is that of the result's name; `text` the value, or the message of an error."""

    operation: Operation
    number: int
    status: Status
    text: str = ""


def handshake(table: str, version: str) -> tuple[bytes, ...]:
    """What the program is told first."""
    return tuple(
        f"config|{what}".encode()
        for what in (f"smtpd-version|{version}", f"protocol|{VERSION}", f"tablename|{table}", "ready")
    )


def registered(line: bytes) -> Service | None:
    """The service that a line of the handshake registers; None for the last line. Raises ProtocolError."""
    word, separator, name = line.partition(b"|")
    if word != b"register" or not separator:
        raise ProtocolError("it did not register its services")
    if name == b"ready":
        return None
    for service in SERVICES:
        if service.encode() == name:
            return service
    raise ProtocolError(f"it registers an unknown service {_quoted(name)}")


def request(
    table: str, operation: Operation, number: int, when_secs: float, service: Service | None = None, key: str = ""
) -> bytes:
    """The line of a request. `number` is below 2**32. Raises KeyRefused."""
    head = f"table|{VERSION}|{when_secs:.6f}|{table}|{operation}"
    if service is None:
        return f"{head}|{number:08x}".encode()
    if operation == "fetch":
        return f"{head}|{service}|{number:08x}".encode()
    try:
        raw = key.encode()
    except UnicodeEncodeError:
        raise KeyRefused("the key is no text") from None
    if len(raw) > MAX_KEY_BYTES:
        raise KeyRefused("the key is too long")
    if any(byte < 0x20 or byte == 0x7F for byte in raw):
        raise KeyRefused("the key has control characters")
    return f"{head}|{service}|{number:08x}|".encode() + raw


def parse_reply(line: bytes) -> Reply:
    """An answer. Raises ProtocolError.

    Without the operation's own checks: the answer to a fetch may say lookup-result, as in the manual's
    example, and its value is still the whole rest of the line.
    """
    try:
        result, number, rest = line.decode().split("|", 2)
    except UnicodeDecodeError:
        raise ProtocolError("an answer that is not UTF-8 text") from None
    except ValueError:
        raise ProtocolError("a line that is no answer") from None
    operation = _RESULTS.get(result)
    if operation is None:
        raise ProtocolError("a line that is no answer")
    if not 1 <= len(number) <= 8 or not all(c in "0123456789abcdefABCDEF" for c in number):
        raise ProtocolError("an answer whose id is none")
    status, separator, text = rest.partition("|")
    if "\0" in text or len(text) > MAX_VALUE:
        raise ProtocolError("an answer with a NUL, or too long")
    match status:
        case "ok" if operation == "update" and not separator:
            return Reply(operation, int(number, 16), "found")
        case "error":
            return Reply(operation, int(number, 16), "error", text)
        case "not-found" if operation != "update" and not separator:
            return Reply(operation, int(number, 16), "not-found")
        case "found" if operation == "check":
            return Reply(operation, int(number, 16), "found")
        case "found" if operation in ("lookup", "fetch") and text:
            return Reply(operation, int(number, 16), "found", text)
        case _:
            raise ProtocolError(f"an answer to {operation} that says neither found nor not-found nor error")


def answers(reply: Reply, asked: Operation) -> bool:
    """Whether the reply is of a kind that answers such a request."""
    return reply.operation == asked or (asked == "fetch" and reply.operation == "lookup")


def missing(needed: Iterable[tuple[Service, ...]], offered: Iterable[Service]) -> tuple[str, ...]:
    """The services of which each use needs one, and the program offers none; for messages."""
    have = frozenset(offered)
    return tuple(" or ".join(services) for services in needed if have.isdisjoint(services))


def _quoted(raw: bytes) -> str:
    return repr(raw[:40])[1:]
