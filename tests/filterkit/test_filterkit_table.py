"""The core of tables: handshake, every operation, errors that give away nothing."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from smtpd_ps.filterkit import Service, Table, TableFailure
from smtpd_ps.filterkit.core import Settled
from smtpd_ps.filterkit.line_buffer import ProtocolError
from smtpd_ps.filterkit.table_core import TableCore
from smtpd_ps.pure.table_protocol import Operation, Reply, handshake, parse_reply, registered, request


class People(Table):
    services = ("alias", "auth", "source")

    def __init__(self) -> None:
        self.updates = 0

    def check(self, service: Service, key: str) -> bool:
        if key == "boom":
            raise RuntimeError("secret: boom")
        return key == "anna:a|b"

    def lookup(self, service: Service, key: str) -> str | None:
        if key == "away":
            raise TableFailure("the database is away")
        return {"anna": "root, b@example.org", "two": "a\nb", "empty": ""}.get(key)

    def fetch(self, service: Service) -> str | None:
        return "192.0.2.7"

    def update(self) -> None:
        self.updates += 1


def ready(table: Table, log: list[str], spawn: Any = None) -> TableCore:
    core = TableCore(table, log.append, spawn)
    core.receive(b"".join(line + b"\n" for line in handshake("people", "7.8.0")))
    said = b"".join(core.output()).splitlines()
    assert [registered(line) for line in said] == [*table.services, None]
    assert table.config.name == "people"
    return core


def replies(core: TableCore) -> list[Reply]:
    return [parse_reply(line) for line in b"".join(core.output()).splitlines()]


@pytest.mark.parametrize("operation, service, key, status, text", [
    ("check", "auth", "anna:a|b", "found", ""), ("check", "auth", "anna:a", "not-found", ""),
    ("check", "auth", "boom", "error", "RuntimeError"),
    ("lookup", "alias", "anna", "found", "root, b@example.org"), ("lookup", "alias", "eve", "not-found", ""),
    ("lookup", "alias", "away", "error", "the database is away"),
    ("lookup", "alias", "two", "error", "a value that is empty, too long or not one line"),
    ("lookup", "alias", "empty", "error", "a value that is empty, too long or not one line"),
    ("fetch", "source", "", "found", "192.0.2.7"), ("check", "domain", "x", "error", "no such service"),
])  # fmt: skip
def test_every_operation(operation: Operation, service: Service, key: str, status: Any, text: str) -> None:
    """The daemon's own reader takes the answers to the daemon's own requests; a key is never logged."""
    log: list[str] = []
    core = ready(People(), log)
    core.receive(request("people", operation, 0xB72508D, 1.5, service, key) + b"\n")
    assert replies(core) == [Reply(operation, 0xB72508D, status, text)]
    assert not any("boom" in line for line in log)


def test_update() -> None:
    """It has no service."""
    table = People()
    core = ready(table, [])
    core.receive(request("people", "update", 7, 1.5) + b"\n")
    assert (replies(core), table.updates) == ([Reply("update", 7, "found")], 1)


def test_answers_come_in_any_order() -> None:
    """Asynchronous operations do not wait for each other."""

    class Slow(Table):
        services = ("string",)

        async def check(self, service: Service, key: str) -> bool:
            return key == "x"

    waiting: list[tuple[Awaitable[Any], Settled]] = []

    def spawn(awaitable: Awaitable[Any], settled: Settled) -> Callable[[], None]:
        waiting.append((awaitable, settled))
        return lambda: None

    core = ready(Slow(), [], spawn)
    assert core.asynchronous
    for number, key in ((1, "x"), (2, "y")):
        core.receive(request("people", "check", number, 1.5, "string", key) + b"\n")
    for awaitable, settled in reversed(waiting):
        with pytest.raises(StopIteration) as end:
            awaitable.send(None)  # type: ignore[attr-defined]
        settled(end.value.value, None)
    assert [(reply.number, reply.status) for reply in replies(core)] == [(2, "not-found"), (1, "found")]


@pytest.mark.parametrize(
    "line", [b"what", b"table|0.1|1|people|what|string|1|x", b"table|0.1|1|people|check|string", b"\xff"]
)
def test_lines_that_are_none_are_errors(line: bytes) -> None:
    """And the line is not quoted: it may hold a password."""
    with pytest.raises(ProtocolError) as error:
        ready(People(), []).receive(line + b"\n")
    assert "people" not in str(error.value)


def test_a_table_without_services_is_an_error() -> None:
    """As is one that names what there is not."""
    for services in ((), ("what",)):
        table = Table()
        table.services = services  # type: ignore[assignment]
        with pytest.raises(ProtocolError, match="service"):
            TableCore(table, print).receive(b"config|ready\n")
