"""Which host to connect to next, and from where, for mail that waits: preferences and limits.

Pure; runs in delivery; the clock is handed in. A relay's targets are tried in the order of their
preference, those of one preference by fewest connections; the next preference only when all routes
of the better ones are disabled (pure/relay_network), not when they are busy.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from smtpd_ps.contract.settings import MtaLimits
from smtpd_ps.contract.values import RouteHost, RouteSource, TlsUse
from smtpd_ps.pure.relay_network import Network, Path, Target

KERNEL_CHOOSES = (RouteSource(""),)
MISMATCH = "Address family mismatch on destination MXs"
BLOCKED = "All routes to destination blocked"


@dataclass(frozen=True, slots=True)
class Usage:
    """What one relay may use, and what it uses now."""

    limits: MtaLimits
    domain: str = ""  # whose connections are counted together
    connections: int = 0
    by_source: Mapping[str, int] = field(default_factory=dict)  # OpenSMTPD's connectors
    turn: int = 0  # of its sources
    action: str = ""
    blocked: AbstractSet[str] = frozenset()  # sources


@dataclass(frozen=True, slots=True)
class Choice:
    """Connect to `target` from `source`."""

    target: Target
    source: RouteSource
    path: Path


@dataclass(frozen=True, slots=True)
class Wait:
    """Every server that may be tried has as many connections as it may have. `limits`: in OpenSMTPD's words."""

    limits: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Exhausted:
    """No route is left; `text` is what the last one said."""

    text: str


def choose(
    targets: Sequence[Target], sources: Sequence[RouteSource], network: Network, usage: Usage, now: float
) -> Choice | Wait | Exhausted:
    """The connection to make next."""
    limits = usage.limits
    if usage.connections >= limits.max_connections_per_relay:
        return Wait(frozenset(("RELAY",)))
    if network.domains.get(usage.domain, 0) >= limits.max_connections_per_domain:
        return Wait(frozenset(("DOMAIN",)))
    errors: list[tuple[float, str]] = []
    for preference in sorted({target.preference for target in targets}):
        level = [target for target in targets if target.preference == preference]
        chosen = _best(level, sources or KERNEL_CHOOSES, network, usage, now, errors)
        if chosen is not None:
            return chosen
    return Exhausted(max(errors)[1] if errors else "No MX found for destination")


def _best(
    level: Sequence[Target],
    sources: Sequence[RouteSource],
    network: Network,
    usage: Usage,
    now: float,
    errors: list[tuple[float, str]],
) -> Choice | Wait | None:
    """The best of one preference; None where all are disabled, with why in `errors`."""
    limits = usage.limits
    best: tuple[int, int, int] | None = None
    chosen: Choice | None = None
    full: set[str] = set()
    for order, target in enumerate(level):
        family = 6 if ":" in target.address else 4
        fitting = [at for at, source in enumerate(sources) if _fits(source, target, family)]
        if not fitting or limits.family not in (0, family):
            errors.append((float("-inf"), MISMATCH))
            continue
        host = network.host(target)
        if host.connections >= limits.max_connections_per_host:
            full.add("HOST")
            continue
        for at in fitting:
            source = sources[at]
            if source.address in usage.blocked:
                errors.append((float("-inf"), BLOCKED))
                continue
            path = network.path(source.address, target, now, usage.action)
            if path.disabled:
                errors.append((path.failed_at, f"{path.error} ({target.address})"))
            elif path.connections >= limits.max_connections_per_route:
                full.add("ROUTE")
            elif network.sources.get(source.address, 0) >= limits.max_connections_per_source:
                full.add("SOURCE")
            elif usage.by_source.get(source.address, 0) >= limits.max_connections_per_connector:
                full.add("CONN")
            else:
                rank = (host.connections, order, (at - usage.turn) % len(sources))
                if best is None or rank < best:
                    best, chosen = rank, Choice(target, source, path)
    return chosen or (Wait(frozenset(full)) if full else None)


def _fits(source: RouteSource, target: Target, family: int) -> bool:
    """Whether one can connect from `source`; a Unix socket has none."""
    return not source.address or (6 if ":" in source.address else 4) == family or target.address.startswith("/")


def targets_of(hosts: Sequence[RouteHost], action_tls: TlsUse, lmtp: bool = False) -> tuple[Target, ...]:
    """The addresses of `hosts`, in the order given, with the TLS that action and URL ask for."""
    return tuple(
        Target(
            host.name,
            address,
            host.port,
            host.preference,
            combined_tls(action_tls, host.tls),
            lmtp or host.lmtp,
            host.user,
            host.password,
        )
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
