"""Who is this client? Reverse DNS, confirmed by forward DNS.

Runs in lookup. The answer comes within PATIENCE_SECS, whatever DNS does; a client without a
name is served all the same.
"""

from collections.abc import Callable
from functools import partial
from ipaddress import ip_address

from smtpd_ps.lookup.addresses import AddressBook, HostAddresses
from smtpd_ps.lookup.cache import FOREVER, Cache
from smtpd_ps.lookup.dns_wire import Type, host_valid
from smtpd_ps.lookup.resolver import Answer, Resolver, Status
from smtpd_ps.runtime.loop import Loop

PATIENCE_SECS = 5.0
CACHE_ENTRIES = 8192
MIN_TTL_SECS = 10.0  # of our own conclusion, so that a flood of connections costs little
LOCAL = "local"

# The name, "" without one; whether the name's own addresses confirm it; and False where DNS
# did not tell whether there is a name.
Done = Callable[[str, bool, bool], None]


class Peers:
    """Names of clients, by address."""

    def __init__(self, loop: Loop, resolver: Resolver, book: AddressBook) -> None:
        self._loop, self._resolver, self._book = loop, resolver, book
        self._known: Cache[str, tuple[str, bool]] = Cache(CACHE_ENTRIES)

    def ask(self, address: str, done: Done) -> None:
        """Call `done` once, possibly before this returns."""
        if address == LOCAL:
            done("localhost", True, True)
            return
        known = self._known.get(address, self._loop.now())
        if known is not None:
            done(*known, True)
            return
        try:
            parsed = ip_address(address.partition("%")[0])
        except ValueError:
            done("", False, True)
            return
        static = self._book.hosts.names.get(str(parsed), "localhost" if parsed.is_loopback else "")
        if static:
            forward = self._book.hosts.addresses.get(static.lower(), ())
            confirmed = parsed.is_loopback or str(parsed) in forward
            self._known.put(address, (static, confirmed), FOREVER)
            done(static, confirmed, True)
            return
        query = _PeerQuery(self._loop, self._book, str(parsed), partial(self._learned, address), done)
        self._resolver.ask(parsed.reverse_pointer, Type.PTR, query.named)

    def _learned(self, address: str, name: str, confirmed: bool, expires: float) -> None:
        self._known.put(address, (name, confirmed), max(expires, self._loop.now() + MIN_TTL_SECS))


class _PeerQuery:
    """One client whose name is looked for."""

    def __init__(
        self, loop: Loop, book: AddressBook, address: str, learned: Callable[[str, bool, float], None], done: Done
    ) -> None:
        self._book, self._address, self._learned = book, address, learned
        self._done: Done | None = done
        self._name = ""
        self._told = False  # by DNS: the name, or that there is none
        self._expires = 0.0
        self._patience = loop.call_later(PATIENCE_SECS, self._tell)

    def named(self, answer: Answer) -> None:
        """The PTR records came."""
        self._expires = answer.expires
        self._told = answer.status is not Status.TEMPORARY
        self._name = next((name for name in answer.texts if host_valid(name)), "")
        if self._name:
            self._book.resolve(self._name, self._forward)
        else:
            self._conclude(False, self._told)

    def _forward(self, found: HostAddresses) -> None:
        self._expires = min(self._expires, found.expires)
        self._conclude(self._address in found.addresses, found.status is not Status.TEMPORARY)

    def _conclude(self, confirmed: bool, certain: bool) -> None:
        if certain:
            self._learned(self._name, confirmed, self._expires)
        self._tell(confirmed)

    def _tell(self, confirmed: bool = False) -> None:
        self._patience.cancel()
        done, self._done = self._done, None
        if done is not None:
            done(self._name, confirmed, self._told)
