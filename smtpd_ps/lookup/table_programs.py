"""The table programs of a configuration: who speaks to each, and whether they offer what is needed.

Runs in lookup.
"""

from collections.abc import Callable

from smtpd_ps import __version__
from smtpd_ps.contract.messages import TableRead, TableUpdate
from smtpd_ps.contract.settings import LookupSettings
from smtpd_ps.lookup.programs import Programs
from smtpd_ps.lookup.table_client import Answer, TableClient
from smtpd_ps.pure.table_program import SERVICES_FOR
from smtpd_ps.runtime.loop import Loop

REGISTER_SECS = 5.0  # at the set-up; who is later may still register, while its table answers 451


class TablePrograms:
    """`clients` by the names of the tables."""

    def __init__(self, loop: Loop, settings: LookupSettings, programs: Programs, warn: Callable[[str], None]) -> None:
        self._programs, self._warn = programs, warn
        self.clients: dict[str, TableClient] = {}
        for table in settings.tables:
            if table.source == "program":
                needed = tuple(dict.fromkeys(SERVICES_FOR[use] for use in table.uses))
                client = TableClient(loop, table.name, needed, __version__, warn)
                self.clients[table.name] = client
                programs.use("table", table.name, client, client.figures)

    def await_services(self) -> tuple[str, ...]:
        """Wait a moment for all to register; a line for each service that is needed and not offered.

        One that has not registered by then, or has ended, is no reason not to serve: what needs it
        gets a 451 until it answers.
        """
        clients = self.clients.values()
        self._programs.await_users(lambda: not any(client.greeting for client in clients), REGISTER_SECS)
        for client in clients:
            if not client.ready:
                self._warn(f"table {client.name}: its program has not registered; what needs it gets a 451 meanwhile")
        return tuple(
            f"table {client.name} does not offer service {text}" for client in clients for text in client.lacks
        )

    def update(self, request: TableUpdate, answer: Callable[[TableRead], None]) -> None:
        """Have a program read again what it reads; always answered."""

        def done(said: Answer) -> None:
            ok = said.status == "found"
            answer(TableRead(request.client, ok, f"table {request.name}: updated" if ok else said.why, request.name))

        client = self.clients.get(request.name)
        if client is None:
            answer(TableRead(request.client, False, f"table {request.name} is of no program", request.name))
        else:
            client.update(done)
