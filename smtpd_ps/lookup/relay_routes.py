"""Routes: where delivery connects to for an action and a domain, and with which credentials.

Runs in lookup, which alone holds the credentials of smarthosts.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import assert_never

from smtpd_ps.contract.messages import Route, RouteQuery
from smtpd_ps.contract.settings import ActionSettings
from smtpd_ps.contract.values import RouteHost, RouteSource, TlsUse
from smtpd_ps.lookup.addresses import AddressBook, HostAddresses
from smtpd_ps.lookup.mail_hosts import MailExchangers, MailHosts
from smtpd_ps.lookup.resolver import Status
from smtpd_ps.lookup.table_asking import TableAsking
from smtpd_ps.lookup.table_client import Answer
from smtpd_ps.pure.relay_url import Protocol, RelayUrl, RelayUrlError, parse_host_port, parse_relay_url
from smtpd_ps.pure.table import Table, TableUnreadable
from smtpd_ps.pure.table_program import ProgramTable
from smtpd_ps.pure.table_values import parse_address, parse_host_name, split_credentials
from smtpd_ps.runtime.loop import Loop

MIN_TTL_SECS = 1  # a TTL of 0 would ask for every message
MAX_TTL_SECS = 3600
TABLES_TTL_SECS = 60  # so that a table that is read again soon counts
MAX_SOURCES = 256
MAX_HELO_NAMES = 1024
FAILURE_TTL_SECS = 10  # how long delivery may remember that we could not say

Done = Callable[[Route], None]
Logins = Sequence[tuple[str, str] | None]


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


@dataclass(frozen=True, slots=True)
class _OwnSide:
    """What an action says of our side of a connection."""

    sources: tuple[RouteSource, ...] = ()
    helo_names: tuple[RouteSource, ...] | None = None
    unnamed: str = ""  # a source that has no name in the table, where no source has one


class _RelayAction:
    """A relay action that names hosts, or none (by MX); or an lmtp action, which names one."""

    def __init__(self, settings: ActionSettings, tables: Mapping[str, Table], local_addresses: tuple[str, ...]) -> None:
        self.name = settings.name
        self._local_addresses = local_addresses
        self.settings = settings
        self.by_host = settings.kind == "lmtp" or settings.by_host
        self.urls = tuple(parse_relay_url(text) for text in settings.relay_hosts)
        self.backup_urls = tuple(parse_relay_url(text) for text in settings.relay_backup_hosts)
        if settings.kind == "lmtp":
            self.urls = (RelayUrl("lmtp", "", *parse_host_port(settings.lmtp_destination, 0)),)
        self.turn = 0  # round robin over the list, not failover
        self.use(tables)

    @property
    def from_table(self) -> bool:
        """Whether the answer may change while the daemon runs."""
        chosen = self.settings
        return any(
            (
                chosen.relay_host_table,
                chosen.relay_domain_table,
                chosen.relay_src_table,
                chosen.relay_helo_table,
            )
        )

    def use(self, tables: Mapping[str, Table]) -> None:
        """Take hosts, credentials, sources and names from these tables. Raises KeyError, ValueError."""
        chosen = self.settings
        auth = tables.get(chosen.relay_auth_table)
        self.credentials = auth.serving("credentials") if auth is not None else None
        self.fetched = ""  # the table of a program, which gives the next host each time
        if chosen.relay_host_table:
            hosts = tables[chosen.relay_host_table]
            self.fetched = hosts.name if isinstance(hosts, ProgramTable) else ""
            self.urls = tuple(parse_relay_url(text) for text in hosts.entries)
        self.domains: Mapping[str, str] | None = None
        if chosen.relay_domain_table:
            self.domains = tables[chosen.relay_domain_table].serving("relayhost").entries
        self._src = tables.get(chosen.relay_src_table)
        self._helo = tables.get(chosen.relay_helo_table)
        self._own_side: _OwnSide | None = None
        if not any(isinstance(each, ProgramTable) for each in (self._src, self._helo)):
            self._own_side = self._make_own_side()

    def own_side(self) -> _OwnSide:
        """As the tables say. Raises AnswersNeeded where a program has to, and TableUnreadable."""
        try:
            return self._own_side or self._make_own_side()
        except ValueError as error:  # what a program said
            raise TableUnreadable(str(error)) from None

    def _make_own_side(self) -> _OwnSide:
        if self._src is None:
            return _OwnSide((), self._names_of_all())
        if isinstance(self._src, ProgramTable):
            text = self._src.next_value("source")
            addresses = [parse_address(text)] if text is not None else []
        else:
            addresses = list(dict.fromkeys(parse_address(key) for key in self._src.entries))
        names = self._names(addresses)
        named = (RouteSource(each, names.get(each, "")) for each in addresses)
        sources = tuple(each for each in named if each.helo or self._helo is None)[:MAX_SOURCES]
        return _OwnSide(sources, None, "" if sources else addresses[0] if addresses else "none")

    def _names(self, addresses: Iterable[str]) -> dict[str, str]:
        """What helo-src has for these addresses; of a table all that it has."""
        if self._helo is None:
            return {}
        if isinstance(self._helo, ProgramTable):
            entries = self._helo.serving("addrname")
            found = ((each, entries.get(f"[{each}]" if ":" in each else each)) for each in addresses)
            return {each: parse_host_name(name) for each, name in found if name is not None}
        return {parse_address(key): value for key, value in self._helo.entries.items()}

    def _names_of_all(self) -> tuple[RouteSource, ...] | None:
        if self._helo is None:
            return None
        names = self._names(self._local_addresses)
        return tuple(RouteSource(*pair) for pair in itertools.islice(names.items(), MAX_HELO_NAMES))


class RelayRoutes:
    """Answers delivery. Raises ValueError (RelayUrlError) at construction for a bad entry."""

    def __init__(
        self,
        loop: Loop,
        actions: tuple[ActionSettings, ...],
        tables: Mapping[str, Table],
        exchangers: MailExchangers,
        book: AddressBook,
        warn: Callable[[str], None],
        asking: TableAsking | None = None,
        own_exchangers: Iterable[str] = (),
        local_addresses: tuple[str, ...] = (),
    ) -> None:
        self._own = frozenset(own_exchangers)  # addresses at which port 25 is this host
        self._loop, self._exchangers, self._book, self._warn = loop, exchangers, book, warn
        self._asking = asking or TableAsking()
        self._actions = {
            action.name: _RelayAction(action, tables, local_addresses) for action in actions if _has_routes(action)
        }

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
            done(_no_route(query.query, "No route for this action"))
            return

        def told(own: _OwnSide | TableUnreadable, _heard: object) -> None:
            if isinstance(own, TableUnreadable) or own.unnamed:
                why = own if isinstance(own, TableUnreadable) else f"{own.unnamed} has no name in helo-src"
                self._warn(f"action {action.name}: no usable source address ({why})")
                done(_no_route(query.query, "Could not retrieve source address or its helo name"))
            else:
                self._find(query, action, own, done, only_asking)

        self._asking.run(action.own_side, told)

    def _find(self, query: RouteQuery, action: _RelayAction, own: _OwnSide, done: Done, only_asking: bool) -> None:
        if action.domains is not None:
            domains = action.domains
            self._asking.run(
                lambda: domains.get(query.domain.lower()),
                lambda text, _heard: self._by_domain(query, action, own, done, text),
            )
        elif action.urls:
            url = action.urls[action.turn % len(action.urls)]
            action.turn += not only_asking
            _Hosts(self, query.query, action, own, (url, *action.backup_urls), done).start(self._book)
        elif action.fetched:
            client = self._asking.clients[action.fetched]
            client.fetch("relayhost", partial(self._fetched, query, action, own, done))
        elif action.by_host:
            done(_no_route(query.query, f"No host in the table of action {action.name}"))
        else:
            self._exchangers.find(query.domain, partial(self._by_mx, query.query, action, own, done))

    def _fetched(self, query: RouteQuery, action: _RelayAction, own: _OwnSide, done: Done, answer: Answer) -> None:
        """The host that a program gave."""
        why = answer.why
        if answer.status == "found":
            try:
                url = parse_relay_url(answer.value)
            except RelayUrlError as error:
                why = f"table {action.fetched}: {error}"
            else:
                _Hosts(self, query.query, action, own, (url, *action.backup_urls), done).start(self._book)
                return
        if why:
            self._warn(f"action {action.name}: no usable host: {why}")
        done(_no_route(query.query, f"No host in the table of action {action.name}"))

    def _by_domain(
        self, query: RouteQuery, action: _RelayAction, own: _OwnSide, done: Done, text: str | TableUnreadable | None
    ) -> None:
        """`text` is the entry of the domain."""
        if text is None:  # as in OpenSMTPD: the mail waits for an entry
            done(_no_route(query.query, f"Cannot retrieve smarthost: no entry for {query.domain}"))
            return
        try:
            if isinstance(text, TableUnreadable):
                raise text
            url = parse_relay_url(text)
        except (TableUnreadable, RelayUrlError) as error:  # a value of a database or program, not checked before
            self._warn(f"action {action.name}: no usable host for {query.domain}: {error}")
            done(_no_route(query.query, f"Cannot retrieve smarthost for {query.domain}"))
            return
        _Hosts(self, query.query, action, own, (url,), done).start(self._book)

    def ttl_secs(self, action: _RelayAction, expires: float) -> int:
        """How long delivery may remember an answer that holds until `expires`."""
        most = TABLES_TTL_SECS if action.from_table else MAX_TTL_SECS
        return int(min(max(expires - self._loop.now(), MIN_TTL_SECS), most))

    def logins(self, action: _RelayAction, urls: tuple[RelayUrl, ...], done: Callable[[Logins], None]) -> None:
        """Call `done` with user and password for each URL's label, both "" without one; None, which is
        logged, where there are none.
        """
        table = action.credentials

        def entries() -> list[str | None]:
            return [table.get(url.label) if table is not None and url.label else None for url in urls]

        def told(values: list[str | None] | TableUnreadable, _heard: object) -> None:
            if isinstance(values, TableUnreadable):
                self._warn(str(values))
                values = [None] * len(urls)
            made: list[tuple[str, str] | None] = []
            for url, value in zip(urls, values, strict=True):
                found = split_credentials(url.label, value) if value is not None else None
                if url.label and found is None:
                    self._warn(f"action {action.name}: no usable credentials for label {url.label}")
                made.append(found if url.label else ("", ""))
            done(made)

        self._asking.run(entries, told)

    def _by_mx(self, number: int, action: _RelayAction, own_side: _OwnSide, done: Done, found: MailHosts) -> None:
        ttl_secs = FAILURE_TTL_SECS if found.temporary else self.ttl_secs(action, found.expires)
        hosts, temporary, text = found.hosts, found.temporary, found.text
        own = next((level for name, level in found.preferences if name == action.settings.relay_backup), None)
        looping = [host.preference for host in hosts if not self._own.isdisjoint(host.addresses)]
        if own is not None or looping:
            # What is not preferred to us would send the mail back to us (RFC 5321 5.1); all without our name are used.
            limit = min(looping if own is None else [own, *looping])
            hosts = tuple(host for host in hosts if host.preference < limit)
            if not hosts and own is not None:
                temporary, text = True, "No MX found for destination: this host is the most preferred one"
            elif not hosts:
                temporary, text = False, "554 5.4.6 Mail for this domain loops back to this host"
        done(Route(number, hosts, ttl_secs, temporary, text, own_side.sources, own_side.helo_names))


def _no_route(number: int, text: str) -> Route:
    """Our own mistake: the mail waits (QUIRKS 39, 45)."""
    return Route(number, (), FAILURE_TTL_SECS, True, text)


class _Hosts:
    """Waits for the addresses of a host and of those that stand in for it, in their order."""

    def __init__(
        self,
        routes: RelayRoutes,
        number: int,
        action: _RelayAction,
        own: _OwnSide,
        urls: tuple[RelayUrl, ...],
        done: Done,
    ) -> None:
        self._routes, self._number, self._action, self._own = routes, number, action, own
        self._urls, self._done = urls, done
        self._found: dict[int, HostAddresses] = {}

    def start(self, book: AddressBook) -> None:
        for at, url in enumerate(self._urls):
            book.resolve(url.host, partial(self._resolved, at))

    def _resolved(self, at: int, found: HostAddresses) -> None:
        self._found[at] = found
        if len(self._found) == len(self._urls):
            self._routes.logins(self._action, self._urls, self._finish)

    def _finish(self, logins: Logins) -> None:
        action, routes = self._action, self._routes
        hosts: list[RouteHost] = []
        faults: list[str] = []
        expires = float("inf")
        for at, url in enumerate(self._urls):
            found = self._found[at]
            if found.status is not Status.FOUND:
                temporary = found.status is Status.TEMPORARY
                faults.append(f"{'Temporary failure in address lookup' if temporary else 'Host not found'}: {url.host}")
            elif (login := logins[at]) is None:
                faults.append(f"No credentials for {url.host}")
            else:
                expires = min(expires, found.expires)
                lmtp = url.protocol == "lmtp"
                hosts.append(RouteHost(url.host, found.addresses, url.port, at, tls_use(url.protocol), lmtp, *login))
        if not hosts:
            self._done(_no_route(self._number, faults[0]))
            return
        # With several hosts the next question gets the next one.
        ttl_secs = routes.ttl_secs(action, expires) if len(action.urls) <= 1 and not action.fetched else MIN_TTL_SECS
        if faults or any(url.label for url in self._urls):
            ttl_secs = min(ttl_secs, TABLES_TTL_SECS)
        self._done(Route(self._number, tuple(hosts), ttl_secs, False, "", self._own.sources, self._own.helo_names))
