"""Where clients come from: how many sessions an address and a network have, and whose passwords fail too often.

Runs in smtp; knows addresses and parses nothing else. A client is an IPv4 address, or the 64 bits of an
IPv6 network that a site has to itself; a network is 24 bits of IPv4 or 48 of IPv6.
"""

import socket
from collections.abc import Callable

from smtpd_ps.contract.settings import SmtpSettings
from smtpd_ps.pure.failure_budget import FailureBudget

AUTH_FAILURES = 20  # at once; then one
AUTH_FORGIVEN_SECS = 30.0  # in that time
_LOCAL = "local"


def source_of(address: str) -> str | bytes:
    """What is counted as one client."""
    return socket.inet_pton(socket.AF_INET6, address)[:8] if ":" in address else address


def network_of(address: str) -> str | bytes:
    """What is counted as one network."""
    return socket.inet_pton(socket.AF_INET6, address)[:6] if ":" in address else address.rpartition(".")[0]


class Sources:
    """Open sessions by client and by network; failed passwords by client."""

    def __init__(self, settings: SmtpSettings, now: Callable[[], float]) -> None:
        self._per_source = settings.max_sessions_per_source
        self._per_network = settings.max_sessions_per_network
        self._sources: dict[str | bytes, int] = {}
        self._networks: dict[str | bytes, int] = {}
        self._failures = FailureBudget(AUTH_FAILURES, AUTH_FORGIVEN_SECS)
        self._now = now

    def count(self, address: str) -> int:
        """The open sessions of this client."""
        return self._sources.get(source_of(address), 0)

    def open(self, address: str) -> bool:
        """Count one more, unless it is one too many."""
        source, network = source_of(address), network_of(address)
        of_source, of_network = self._sources.get(source, 0), self._networks.get(network, 0)
        if of_source >= self._per_source or (of_network >= self._per_network and address != _LOCAL):
            return False
        self._sources[source], self._networks[network] = of_source + 1, of_network + 1
        return True

    def close(self, address: str) -> None:
        """One of them is gone."""
        for counts, key in ((self._sources, source_of(address)), (self._networks, network_of(address))):
            counts[key] -= 1
            if not counts[key]:
                del counts[key]

    def password_failed(self, address: str) -> None:
        """A client gave a wrong password."""
        self._failures.failed(source_of(address), self._now())

    def passwords_stopped(self, address: str) -> bool:
        """Whether a client has given too many."""
        return self._failures.spent(source_of(address), self._now())
