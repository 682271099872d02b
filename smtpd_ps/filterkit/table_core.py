"""A table's side of smtpd-tables(7): bytes in, calls of the table, bytes out. No input or output of its own.

Runs in table programs; the keys are strangers' and may be passwords, so no key and no text of an exception,
which may quote one, is logged or answered.
"""

import inspect
from collections.abc import Callable, Iterator
from typing import Any, cast

from smtpd_ps.filterkit.core import Core, Spawn
from smtpd_ps.filterkit.line_buffer import ProtocolError
from smtpd_ps.filterkit.table import SERVICES, Service, Table, TableConfig

MAX_VALUE = 60_000  # a line has 64 KiB


class TableFailure(Exception):
    """Raised by a table whose text may be logged and answered: it quotes no key."""


class TableCore(Core):
    """Asks a table."""

    def __init__(self, table: Table, log: Callable[[str], None], spawn: Spawn | None = None) -> None:
        super().__init__(log, spawn)
        self._table = table
        self._config: dict[str, str] = {}
        self._out: list[bytes] = []

    @property
    def asynchronous(self) -> bool:
        """Whether any operation is."""
        table = self._table
        return any(map(inspect.iscoroutinefunction, (table.check, table.lookup, table.fetch, table.update)))

    def output(self) -> Iterator[bytes]:
        """What is to be written."""
        out, self._out = self._out, []
        if out:
            yield b"".join(out)

    def receive(self, data: bytes) -> None:
        """What was read. Raises ProtocolError, and StopProgram of the table."""
        for line in self._buffer.cut(data):
            if self._is_ready:
                self._request(line)
            else:
                self._configure(line.decode(errors="replace"))

    def _configure(self, line: str) -> None:
        word, _, rest = line.partition("|")
        if word != "config":
            raise ProtocolError("something before config|ready")
        if rest != "ready":
            key, _, value = rest.partition("|")
            self._config[key] = value
            return
        known = self._config
        self._table.config = TableConfig(
            known.get("smtpd-version", ""), known.get("protocol", ""), known.get("tablename", "")
        )
        self._table.ready()
        if not self._table.services:
            raise ProtocolError("this table has no service")
        for service in self._table.services:
            if service not in SERVICES:
                raise ProtocolError(f"there is no service {service!r}")
            self._out.append(f"register|{service}\n".encode())
        self._out.append(b"register|ready\n")
        self._is_ready = True

    def _request(self, line: bytes) -> None:
        try:
            word, _version, _when, _name, operation, *rest = line.decode(errors="surrogateescape").split("|", 5)
            if word != "table" or not rest:
                raise ValueError
        except ValueError:
            raise ProtocolError("a line that is no request") from None
        if operation == "update":
            self._do(operation, rest[0], self._table.update)
            return
        fields = rest[0].split("|", 2)
        service = cast(Service, fields[0])
        match operation, fields:
            case "check", [_, number, key]:
                self._do(operation, number, lambda: self._table.check(service, key), service)
            case "lookup", [_, number, key]:
                self._do(operation, number, lambda: self._table.lookup(service, key), service)
            case "fetch", [_, number, *_]:
                self._do(operation, number, lambda: self._table.fetch(service), service)
            case _:
                raise ProtocolError("a request that is none of check, lookup, fetch and update")

    def _do(self, operation: str, number: str, ask: Callable[[], Any], service: str = "") -> None:
        if service and service not in self._table.services:
            self._answer(operation, number, "error|no such service")
            return
        what = f"{operation} {service}".rstrip()

        def settled(result: object, error: BaseException | None) -> None:
            if error is None:
                try:
                    words = _words(operation, result)
                except ValueError as wrong:
                    error = TableFailure(str(wrong))
            if error is not None:
                text = str(error) if isinstance(error, TableFailure) else type(error).__name__
                self._log(f"{what}: {ascii(text)[1:-1]}")
                words = f"error|{ascii(text)[1:-1][:200]}"
            self._answer(operation, number, words)

        self._begin(what, ask, settled, lambda: None)

    def _answer(self, operation: str, number: str, words: str) -> None:
        self._out.append(f"{operation}-result|{number}|{words}\n".encode(errors="surrogateescape"))


def _words(operation: str, result: object) -> str:
    """The end of an answer. Raises ValueError, without the value, where it is none."""
    match operation, result:
        case "update", _:
            return "ok"
        case "check", bool():
            return "found" if result else "not-found"
        case "lookup" | "fetch", None:
            return "not-found"
        case "lookup" | "fetch", str():
            if not result or len(result) > MAX_VALUE or any(ord(c) < 0x20 and c != "\t" for c in result):
                raise ValueError("a value that is empty, too long or not one line")
            return f"found|{result}"
        case _:
            raise ValueError(f"the result of {operation} is a {type(result).__name__}")
