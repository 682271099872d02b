"""Routes: where delivery connects to for an action and a domain, and with which credentials.

Runs in lookup, which alone holds the credentials of smarthosts.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import assert_never

from smtpd_ps.contract.messages import Route, RouteQuery
from smtpd_ps.contract.settings import ActionSettings
from smtpd_ps.contract.values import RouteHost, TlsUse
from smtpd_ps.lookup.addresses import AddressBook, HostAddresses
from smtpd_ps.lookup.mail_hosts import MailExchangers, MailHosts
from smtpd_ps.lookup.resolver import Status
from smtpd_ps.pure.relay_url import Protocol, RelayUrl, parse_host_port, parse_relay_url
from smtpd_ps.pure.table import Table
from smtpd_ps.pure.table_values import split_credentials
from smtpd_ps.runtime.loop import Loop

MIN_TTL_SECS = 1  # a TTL of 0 would ask for every message
MAX_TTL_SECS = 3600
TABLES_TTL_SECS = 60  # so that a table that is read again soon counts
FAILURE_TTL_SECS = 10  # how long delivery may remember that we could not say

Done = Callable[[Route], None]


def tls_use(protocol: Protocol) -> TlsUse:
    """What a relay URL's protocol asks for (FEATURES A1, "relay URL")."""
    match protocol:
        case "smtp":
            return "opportunistic"
        case "smtp+tls":
            return "require-verify"
        case "smtps":
            return "implicit-verify"
        case "smtp+notls" | "lmtp":
            return "never"
        case _:
            assert_never(protocol)


def _has_routes(action: ActionSettings) -> bool:
    """Whether delivery may ask for the action: it reaches LMTP's Unix sockets through the parent instead."""
    return action.kind == "relay" or (action.kind == "lmtp" and not action.lmtp_destination.startswith("/"))


class _RelayAction:
    """A relay action that names hosts, or none (by MX); or an lmtp action, which names one."""

    def __init__(self, settings: ActionSettings, tables: Mapping[str, Table]) -> None:
        self.name = settings.name
        self.by_host = settings.kind == "lmtp" or settings.by_host
        self.urls = tuple(parse_relay_url(text) for text in settings.relay_hosts)
        if settings.kind == "lmtp":
            self.urls = (RelayUrl("lmtp", "", *parse_host_port(settings.lmtp_destination, 0)),)
        self._auth_table, self._host_table = settings.relay_auth_table, settings.relay_host_table
        self.turn = 0  # round robin over the list, not failover
        self.use(tables)

    @property
    def from_table(self) -> bool:
        """Whether the hosts may change while the daemon runs."""
        return self._host_table != ""

    def use(self, tables: Mapping[str, Table]) -> None:
        """Take hosts and credentials from these tables. Raises KeyError, RelayUrlError."""
        self.credentials = tables.get(self._auth_table)
        if self._host_table:
            self.urls = tuple(parse_relay_url(text) for text in tables[self._host_table].entries)


class RelayRoutes:
    """Answers delivery. Raises RelayUrlError at construction for a bad URL."""

    def __init__(
        self,
        loop: Loop,
        actions: tuple[ActionSettings, ...],
        tables: Mapping[str, Table],
        exchangers: MailExchangers,
        book: AddressBook,
        warn: Callable[[str], None],
    ) -> None:
        self._loop, self._exchangers, self._book, self._warn = loop, exchangers, book, warn
        self._actions = {action.name: _RelayAction(action, tables) for action in actions if _has_routes(action)}

    def use(self, tables: Mapping[str, Table]) -> None:
        """Take hosts and credentials from other tables from now on; delivery asks again within TABLES_TTL_SECS."""
        for action in self._actions.values():
            action.use(tables)

    def find(self, query: RouteQuery, done: Done, *, only_asking: bool = False) -> None:
        """Call `done` once with the Route, possibly before this returns.

        `only_asking`: nothing goes there, so that the turn of an action's hosts stays.
        """
        action = self._actions.get(query.action)
        if action is None:
            self._warn(f"route asked for action {query.action}, which relays nothing")
            done(Route(query.query, (), FAILURE_TTL_SECS, True, "No route for this action"))
        elif action.urls:
            url = action.urls[action.turn % len(action.urls)]
            action.turn += not only_asking
            self._book.resolve(url.host, partial(self._host, query.query, action, url, done))
        elif action.by_host:
            done(Route(query.query, (), FAILURE_TTL_SECS, True, f"No host in the table of action {action.name}"))
        else:
            self._exchangers.find(query.domain, partial(self._by_mx, query.query, done))

    def _ttl(self, expires: float) -> int:
        return int(min(max(expires - self._loop.now(), MIN_TTL_SECS), MAX_TTL_SECS))

    def _by_mx(self, number: int, done: Done, found: MailHosts) -> None:
        ttl_secs = FAILURE_TTL_SECS if found.temporary else self._ttl(found.expires)
        done(Route(number, found.hosts, ttl_secs, found.temporary, found.text))

    def _host(self, number: int, action: _RelayAction, url: RelayUrl, done: Done, found: HostAddresses) -> None:
        if found.status is not Status.FOUND:
            # A smarthost that does not exist is our own mistake: the mail waits (QUIRKS 39).
            text = "Temporary failure in address lookup" if found.status is Status.TEMPORARY else "Host not found"
            done(Route(number, (), FAILURE_TTL_SECS, True, f"{text}: {url.host}"))
            return
        user = password = ""
        if url.label:
            value = action.credentials.get(url.label) if action.credentials else None
            credentials = split_credentials(url.label, value) if value is not None else None
            if credentials is None:
                self._warn(f"action {action.name}: no usable credentials for label {url.label}")
                done(Route(number, (), FAILURE_TTL_SECS, True, f"No credentials for {url.host}"))
                return
            user, password = credentials
        host = RouteHost(url.host, found.addresses, url.port, 0, tls_use(url.protocol), url.protocol == "lmtp")
        # With several hosts the next question gets the next one.
        ttl_secs = self._ttl(found.expires) if len(action.urls) == 1 else MIN_TTL_SECS
        if url.label or action.from_table:
            ttl_secs = min(ttl_secs, TABLES_TTL_SECS)
        done(Route(number, (host,), ttl_secs, False, "", user, password))
