"""Answers smtpctl_ps show hosts, hoststats, relays, routes, resume route and pause mta from A for D.

Runs in delivery. Its requests come from control, which takes them from root alone.
"""

from collections.abc import Callable, Iterable

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ActionSettings
from smtpd_ps.contract.values import Connector
from smtpd_ps.delivery.pool import Pool
from smtpd_ps.pure.host_stats import HostStats
from smtpd_ps.pure.relay_network import Network
from smtpd_ps.runtime.log import Log, escape
from smtpd_ps.runtime.loop import Loop

MAX_NAME = 255
MAX_LINE = 2048
MAX_CONNECTORS = 256


class NetworkDesk:
    """`answer` is set before the loop runs."""

    def __init__(
        self,
        loop: Loop,
        log: Log,
        network: Network,
        stats: HostStats,
        pools: Callable[[], Iterable[Pool]],
        clock: Callable[[], float],
    ) -> None:
        self._loop, self._log, self._network, self._stats = loop, log, network, stats
        self._pools, self._clock = pools, clock
        self.answer: Callable[[m.Message], None] | None = None

    def show(self, request: m.ShowNetwork) -> None:
        """A row each, then Done."""
        assert self.answer is not None
        makers = {
            "hosts": self._hosts,
            "hoststats": self._host_stats,
            "paused": self._blocks,
            "relays": self._relays,
            "routes": self._routes,
        }
        for row in makers[request.part](request.client):
            self.answer(row)
        self.answer(m.Done(request.client, True))

    def resume(self, request: m.ResumeRoute) -> None:
        """Enable routes; the mail that waits in queue is tried when its time comes."""
        assert self.answer is not None
        resumed = self._network.resume(request.route, self._loop.now())
        for path in resumed:
            self._log.info(
                f"smtp-out: Enabling route {path.source or '[]'} <-> {path.host.address} ({path.host.name}) "
                "per admin request"
            )
        self.answer(m.Done(request.client, True, "", len(resumed)))

    def block(self, request: m.BlockRelay) -> None:
        """Make no new connection from the source for the domain, or make them again."""
        assert self.answer is not None
        self._network.block(request.source, request.domain.lower(), request.blocked)
        self.answer(m.Done(request.client, True))

    def _age(self, at: float) -> int | None:
        return None if at == float("-inf") else max(int(self._loop.now() - at), 0)

    def _hosts(self, client: int) -> Iterable[m.Message]:
        routes: dict[tuple[str, int], int] = {}
        for path in self._network.paths(self._loop.now()):
            place = path.host.address, path.host.port
            routes[place] = routes.get(place, 0) + 1
        for host in self._network.hosts:
            if not host.address.startswith("/"):
                count = routes.get((host.address, host.port), 0)
                connected = self._age(host.connected_at)
                yield m.HostRow(client, host.address, host.port, host.name, count, host.connections, connected)

    def _routes(self, client: int) -> Iterable[m.Message]:
        now = self._loop.now()
        for path in self._network.paths(now):
            host = path.host
            if not host.address.startswith("/"):
                yield m.RouteRow(
                    client, path.id, path.action, path.source, host.address, host.port, host.name, path.is_new,
                    path.disabled, path.connections, path.errors, path.penalty,
                    max(int(path.penalty_ends - now), 0) if path.penalty else None,
                )  # fmt: skip

    def _relays(self, client: int) -> Iterable[m.Message]:
        for pool in self._pools():
            if not pool.lmtp:
                waits_for = "MX" if pool.targets is None and pool.waiting else "connector" if pool.starved else ""
                yield m.RelayRow(
                    client, relay_text(pool)[:MAX_LINE], len(pool.waiting), len(pool.connections),
                    self._age(pool.connected_at), waits_for, tuple(self._connectors(pool))[:MAX_CONNECTORS],
                )  # fmt: skip

    def _connectors(self, pool: Pool) -> Iterable[Connector]:
        flags = ",".join(f"LIMIT_{limit}" for limit in sorted(pool.limits_hit))
        for source, count in pool.by_source().items():
            yield Connector(source, count, self._age(pool.source_used.get(source, float("-inf"))), flags)

    def _host_stats(self, client: int) -> Iterable[m.Message]:
        for domain, told_secs, text in self._stats.rows(self._clock()):
            yield m.HostStatRow(client, domain[:MAX_NAME], told_secs, escape(text)[:MAX_LINE])

    def _blocks(self, client: int) -> Iterable[m.Message]:
        for source, domain in sorted(self._network.blocks):
            yield m.BlockRow(client, source, domain)


_PROTOCOLS = {
    "opportunistic": "smtp",
    "require": "smtp+tls",
    "require-verify": "smtp+tls",
    "never": "smtp+notls",
    "implicit": "smtps",
    "implicit-verify": "smtps",
}


def relay_text(pool: Pool) -> str:
    """`[relay:...]`, as mta_relay_to_text writes it."""
    action: ActionSettings = pool.action
    words = [f"relay:{pool.domain}"]
    target = pool.targets[0] if pool.targets else None
    to_host = action.by_host or action.relay_domain_table != ""
    if target is not None and to_host:
        words.append(f"port={target.port}")
    words.append(_protocol(pool))
    if target is not None and target.user:
        words.append(f"auth={action.relay_auth_table}:{target.user}")
    if action.relay_pki:
        words.append(f"pki_name={action.relay_pki}")
    if to_host:
        words.append("mx")  # OpenSMTPD's word for a domain that is the name of a host
    for name, value in (
        ("backup", action.relay_backup), ("sourcetable", action.relay_src_table),
        ("helotable", action.relay_helo_table), ("heloname", action.relay_helo),
    ):  # fmt: skip
        if value:
            words.append(f"{name}={value}")
    return f"[{','.join(words)}]"


def _protocol(pool: Pool) -> str:
    target = pool.targets[0] if pool.targets else None
    if target is not None and target.lmtp:
        return "lmtp"
    return _PROTOCOLS[target.tls if target is not None else pool.action.relay_tls]
