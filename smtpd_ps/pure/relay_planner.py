"""Which server to connect to next, for mail that waits: preferences, limits, penalties.

Pure; runs in delivery; the clock is handed in. A route's targets are tried in the order of their
preference, those of one preference by fewest connections; one that failed is left alone for a
while that doubles each time. Nothing here delays a healthy route (QUIRKS "Limits and timers").
"""

from collections.abc import Sequence
from dataclasses import dataclass

from smtpd_ps.contract.values import RouteHost, TlsUse

FIRST_PENALTY_SECS = 2.0
MAX_PENALTY_SECS = 30.0
PLAIN_SECS = 3600.0  # how long a host whose TLS is broken is talked to in plain text


@dataclass(frozen=True, slots=True)
class Target:
    """One address to connect to."""

    name: str
    address: str
    port: int
    preference: int = 0
    tls: TlsUse = "opportunistic"
    lmtp: bool = False

    @property
    def key(self) -> tuple[str, int]:
        """What limits and penalties are counted by."""
        return self.address, self.port


class Server:
    """What is known of one address and port."""

    __slots__ = ("connections", "error", "failures", "plain_until", "retry_at")

    def __init__(self) -> None:
        self.connections = 0
        self.failures = 0  # in a row
        self.retry_at = 0.0
        self.plain_until = 0.0
        self.error = ""


class Servers:
    """Every server in use, shared by all routes. Those without news to keep are forgotten."""

    def __init__(self, max_connections: int) -> None:
        self.max_connections = max_connections
        self._servers: dict[tuple[str, int], Server] = {}

    def get(self, target: Target) -> Server:
        """The record of `target`, made when it is new."""
        return self._servers.setdefault(target.key, Server())

    def __len__(self) -> int:
        return len(self._servers)

    def opened(self, target: Target) -> None:
        """A connection is being made."""
        self.get(target).connections += 1

    def closed(self, target: Target) -> None:
        """A connection has ended, however."""
        self.get(target).connections -= 1

    def worked(self, target: Target) -> None:
        """A session was set up."""
        server = self.get(target)
        server.failures, server.retry_at, server.error = 0, 0.0, ""

    def failed(self, target: Target, error: str, now: float) -> None:
        """No session came about."""
        server = self.get(target)
        server.error = error
        if server.retry_at > now:
            return  # several connections that fail at once are one failure
        server.retry_at = now + min(FIRST_PENALTY_SECS * 2**server.failures, MAX_PENALTY_SECS)
        server.failures = min(server.failures + 1, 16)

    def tls_broken(self, target: Target, now: float) -> None:
        """The handshake failed: where TLS is optional, do without for a while."""
        self.get(target).plain_until = now + PLAIN_SECS

    def tls_use(self, target: Target, now: float) -> TlsUse:
        """What TLS to use on the next connection to `target`."""
        if target.tls == "opportunistic" and self.get(target).plain_until > now:
            return "never"
        return target.tls

    def sweep(self, now: float) -> None:
        """Forget servers of which nothing is to be remembered."""
        idle = [
            key
            for key, s in self._servers.items()
            if not s.connections and (not s.failures or s.retry_at + MAX_PENALTY_SECS < now) and s.plain_until < now
        ]
        for key in idle:
            del self._servers[key]


@dataclass(frozen=True, slots=True)
class Wait:
    """Every server that may be tried has as many connections as it may have."""


@dataclass(frozen=True, slots=True)
class Exhausted:
    """Every server has failed of late; `text` is what the last one said."""

    text: str


def choose(targets: Sequence[Target], servers: Servers, now: float) -> Target | Wait | Exhausted:
    """The server to connect to next."""
    best: tuple[int, int, int] | None = None
    chosen: Target | None = None
    full = False
    errors: list[tuple[float, str]] = []
    for order, target in enumerate(targets):
        server = servers.get(target)
        if server.retry_at > now:
            errors.append((server.retry_at, f"{server.error} ({target.address})"))
        elif server.connections >= servers.max_connections:
            full = True
        else:
            rank = (target.preference, server.connections, order)
            if best is None or rank < best:
                best, chosen = rank, target
    if chosen is not None:
        return chosen
    if full:
        return Wait()
    return Exhausted(max(errors)[1] if errors else "no host to try")


def targets_of(hosts: Sequence[RouteHost], action_tls: TlsUse, lmtp: bool = False) -> tuple[Target, ...]:
    """The addresses of `hosts`, in the order given, with the TLS that action and URL ask for."""
    return tuple(
        Target(host.name, address, host.port, host.preference, combined_tls(action_tls, host.tls), lmtp or host.lmtp)
        for host in hosts
        for address in host.addresses
    )


def combined_tls(action: TlsUse, host: TlsUse) -> TlsUse:
    """What the action's `tls` and the host's URL ask for together (smtpd.conf(5), relay).

    `tls` requires and verifies, whatever the URL says; `tls no-verify` also drops the check that
    smtp+tls and smtps make by default; without `tls` the URL decides.
    """
    if host == "opportunistic":
        return action
    if action in ("opportunistic", "never"):  # "never" is LMTP's: only its URL could ask for more
        return host
    verify = action == "require-verify"
    if host in ("implicit", "implicit-verify"):
        return "implicit-verify" if verify else "implicit"
    return "require-verify" if verify else "require"
