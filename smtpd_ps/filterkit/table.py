"""The base class of tables: which services there are, and what is asked of them (smtpd-tables(7)).

Runs in table programs. A table is a class derived from Table that says in `services` what it offers, and has
the operations that those services need; each may be `async def`. What raises is logged without the key, and
answered with an error, which is a temporary failure for whoever asked.
"""

from collections.abc import Awaitable
from dataclasses import dataclass

from smtpd_ps.pure.table_protocol import SERVICES, VERSION, Service


@dataclass(frozen=True, slots=True)
class TableConfig:
    """What the handshake says."""

    smtpd_version: str = ""
    protocol: str = VERSION
    name: str = ""


class Table:
    """Derive from this; see the module. Keys are in lower case, but those of the service auth."""

    services: tuple[Service, ...] = ()
    config: TableConfig = TableConfig()

    def ready(self) -> None:
        """The handshake is over, and `config` is set; `services` may be set here. May raise StopProgram."""

    def check(self, service: Service, key: str) -> bool | Awaitable[bool]:
        """Whether the key is in the table."""
        raise NotImplementedError(f"check {service}")

    def lookup(self, service: Service, key: str) -> str | Awaitable[str | None] | None:
        """The value of the key, in the syntax of table(5); None where there is none."""
        raise NotImplementedError(f"lookup {service}")

    def fetch(self, service: Service) -> str | Awaitable[str | None] | None:
        """The next value, the first one again after the last; None where the table is empty."""
        raise NotImplementedError(f"fetch {service}")

    def update(self) -> Awaitable[None] | None:
        """Read again what was read."""


__all__ = ["SERVICES", "Service", "Table", "TableConfig"]
