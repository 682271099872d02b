"""What delivery knows of the world it relays to: sources, hosts, and the routes between them.

Pure; runs in delivery; the clock is handed in. A route is a source address ("" where the kernel
chooses) and a host. One on which no session comes about is disabled for 15 s times the square of
its penalty, up to an hour; each time that has passed, the penalty is one less (QUIRKS "Limits and
timers", mta.c). Nothing here delays a healthy route.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from smtpd_ps.contract.values import TlsUse

BASE_PENALTY_SECS = 15.0
MAX_PENALTY_SECS = 3600.0
MAX_PENALTY = 16  # beyond, it takes MAX_PENALTY_SECS anyway
MAX_ERRORS = 4  # failures beside sessions that work, in a row
PLAIN_SECS = 3600.0  # how long a host whose TLS is broken is talked to in plain text
REMEMBERED_SECS = 60.0  # an unused route or host without a penalty, for the operator to see


@dataclass(frozen=True, slots=True)
class Target:
    """One address to connect to."""

    name: str
    address: str
    port: int
    preference: int = 0
    tls: TlsUse = "opportunistic"
    lmtp: bool = False
    user: str = ""
    password: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """What limits and penalties are counted by."""
        return self.address, self.port

    def __repr__(self) -> str:
        return f"Target({self.name}, {self.address}, {self.port}, {self.preference}, {self.tls})"


class Host:
    """One address and port."""

    __slots__ = ("address", "connected_at", "connections", "name", "plain_until", "port")

    def __init__(self, target: Target) -> None:
        self.name = target.name
        self.address, self.port = target.key
        self.connections = 0
        self.connected_at = float("-inf")
        self.plain_until = 0.0


class Path:
    """One route: a source and a host. `id` is its number for the operator."""

    __slots__ = (
        "action", "connections", "disabled", "error", "errors", "failed_at", "host", "id", "is_new", "penalized_at",
        "penalty", "source", "used_at",
    )  # fmt: skip

    def __init__(self, number: int, source: str, host: Host, action: str, now: float) -> None:
        self.id = number
        self.action = action
        self.source = source
        self.host = host
        self.connections = 0
        self.is_new = True  # no session came about yet, or none since it was disabled
        self.disabled = False
        self.errors = 0
        self.error = ""  # what the last failure was
        self.failed_at = 0.0
        self.penalty = 0
        self.penalized_at = 0.0
        self.used_at = now

    @property
    def penalty_ends(self) -> float:
        """When the penalty becomes one less, and a disabled route is enabled."""
        return self.penalized_at + min(BASE_PENALTY_SECS * self.penalty**2, MAX_PENALTY_SECS)

    def settle(self, now: float) -> None:
        """Let the time that has passed count."""
        while self.penalty and self.penalty_ends <= now:
            self.penalized_at = self.penalty_ends
            self.penalty -= 1
            if self.disabled:
                self.disabled, self.is_new, self.errors = False, True, 0

    def disable(self, penalty: int, now: float) -> None:
        """Leave it alone until `penalty_ends`."""
        self.penalty = min(self.penalty + penalty, MAX_PENALTY)
        self.penalized_at = now
        self.disabled = True

    def resume(self) -> None:
        """Forget all that was held against it."""
        self.disabled, self.is_new, self.errors, self.penalty = False, True, 0, 0


class Network:
    """Every host and route in use, shared by all relays. Those without news to keep are forgotten."""

    def __init__(self, first_number: int = 1) -> None:
        self._hosts: dict[tuple[str, int], Host] = {}
        self._paths: dict[tuple[str, str, str, int], Path] = {}
        self._numbers = itertools.count(first_number)
        self.blocks: set[tuple[str, str]] = set()  # a source, and the domain that it serves not ("": any)
        self.sources: dict[str, int] = {}  # connections from each
        self.domains: dict[str, int] = {}  # connections for each
        self._next_mail: dict[str, float] = {}  # when a domain with a rate may have its next message

    def host(self, target: Target) -> Host:
        """The record of the target's address and port, made when it is new."""
        host = self._hosts.get(target.key)
        if host is None:
            host = self._hosts[target.key] = Host(target)
        return host

    def path(self, source: str, target: Target, now: float, action: str = "") -> Path:
        """The route from `source` under `action`, made when it is new, as it stands at `now`.

        Actions have routes of their own: one whose certificates or credentials are refused does not
        keep the others from the host.
        """
        key = (action, source, *target.key)
        path = self._paths.get(key)
        if path is None:
            path = self._paths[key] = Path(next(self._numbers), source, self.host(target), action, now)
        path.settle(now)
        return path

    @property
    def hosts(self) -> tuple[Host, ...]:
        """All that are known."""
        return tuple(self._hosts.values())

    def paths(self, now: float) -> Iterator[Path]:
        """All that are known, as they stand at `now`, by their numbers."""
        for path in self._paths.values():
            path.settle(now)
            yield path

    def opened(self, path: Path, domain: str, now: float) -> None:
        """A connection for `domain` is being made."""
        path.connections += 1
        path.used_at = path.host.connected_at = now
        path.host.connections += 1
        self.sources[path.source] = self.sources.get(path.source, 0) + 1
        self.domains[domain] = self.domains.get(domain, 0) + 1

    def closed(self, path: Path, domain: str, now: float) -> None:
        """A connection has ended, however."""
        path.connections -= 1
        path.used_at = now
        path.host.connections -= 1
        for counts, key in ((self.sources, path.source), (self.domains, domain)):
            counts[key] -= 1
            if not counts[key]:
                del counts[key]

    def mail_due(self, domain: str) -> float:
        """When `domain` may have its next message by its rate."""
        return self._next_mail.get(domain, 0.0)

    def mail_given(self, domain: str, per_minute: int, now: float) -> None:
        """A message goes to `domain`, which may have so many a minute: they are spread over it evenly."""
        self._next_mail[domain] = now + 60.0 / per_minute

    def worked(self, path: Path) -> None:
        """A session was set up."""
        path.is_new, path.errors, path.error = False, 0, ""

    def failed(self, path: Path, error: str, now: float) -> bool:
        """No session came about on a connection that has ended; whether that disables the route.

        Where other connections of the route stand, a few failures are the host's own limit.
        """
        path.settle(now)
        path.error, path.failed_at = error, now
        if path.disabled:
            return False  # several connections that fail at once are one failure
        path.errors += 1
        if path.is_new or not path.connections:
            path.disable(1, now)
        elif path.errors > MAX_ERRORS:
            path.disable(2, now)
        return path.disabled

    def tls_broken(self, target: Target, now: float) -> None:
        """The handshake failed: where TLS is optional, do without for a while."""
        self.host(target).plain_until = now + PLAIN_SECS

    def tls_use(self, target: Target, now: float) -> TlsUse:
        """What TLS to use on the next connection to `target`."""
        if target.tls == "opportunistic" and self.host(target).plain_until > now:
            return "never"
        return target.tls

    def resume(self, number: int, now: float) -> tuple[Path, ...]:
        """Enable the disabled route of this number, or all for 0; those that were disabled."""
        resumed = tuple(path for path in self.paths(now) if path.disabled and number in (0, path.id))
        for path in resumed:
            path.resume()
        return resumed

    def block(self, source: str, domain: str, blocked: bool) -> None:
        """Whether `source` is not to be used for `domain`, or "" for any."""
        if blocked:
            self.blocks.add((source, domain))
        else:
            self.blocks.discard((source, domain))

    def blocked_sources(self, domain: str) -> frozenset[str]:
        """Those that are not to be used for `domain`."""
        return frozenset(source for source, of in self.blocks if of in ("", domain))

    def sweep(self, now: float) -> None:
        """Forget what nothing is to be remembered of."""
        for domain, due in list(self._next_mail.items()):
            if due < now:
                del self._next_mail[domain]
        for key, path in list(self._paths.items()):
            path.settle(now)
            if not path.connections and not path.penalty and path.used_at + REMEMBERED_SECS < now:
                del self._paths[key]
        used = {path.host for path in self._paths.values()}
        for place, host in list(self._hosts.items()):
            if host not in used and not host.connections and host.plain_until < now:
                del self._hosts[place]
