"""Host names to IP addresses and back: the hosts file first, then DNS.

Runs in lookup.
"""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from smtpd_ps.lookup.dns_wire import Type
from smtpd_ps.lookup.resolver import Answer, Resolver, Status
from smtpd_ps.pure.hosts_file import Hosts
from smtpd_ps.runtime.loop import Loop

MAX_ADDRESSES = 32  # of one host
STATIC_TTL_SECS = 3600.0
_LOOPBACK = ("127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class HostAddresses:
    """Addresses of a host in the order to try them, or why there are none."""

    status: Status
    expires: float  # by the loop's clock
    addresses: tuple[str, ...] = ()


Done = Callable[[HostAddresses], None]


def has_global_ipv6(local_addresses: tuple[str, ...]) -> bool:
    """Whether this host has an IPv6 address that reaches further than its own links."""
    for text in local_addresses:
        try:
            address = ip_address(text)
        except ValueError:
            continue
        if address.version == 6 and not (address.is_loopback or address.is_link_local):
            return True
    return False


class AddressBook:
    """Resolves host names."""

    def __init__(self, loop: Loop, resolver: Resolver, hosts: Hosts, ipv6_first: bool) -> None:
        self._loop, self._resolver, self.hosts = loop, resolver, hosts
        self._ipv6_first = ipv6_first

    def resolve(self, host: str, done: Done) -> None:
        """Call `done` once, possibly before this returns. `host`: a name, or an address, also in brackets."""
        name = host.lower().rstrip(".")
        static = self._static(name)
        if static:
            done(HostAddresses(Status.FOUND, self._loop.now() + STATIC_TTL_SECS, self._ordered(static)))
            return
        pair = _Pair(self._ordered, done)
        self._resolver.ask(name, Type.A, pair.take)
        self._resolver.ask(name, Type.AAAA, pair.take)

    def _static(self, name: str) -> tuple[str, ...]:
        """Addresses that need no DNS."""
        bare = name[1:-1] if name.startswith("[") and name.endswith("]") else name
        try:
            return (str(ip_address(bare.removeprefix("ipv6:"))),)
        except ValueError:
            pass
        found = self.hosts.addresses.get(name)
        if found is None and (name == "localhost" or name.endswith(".localhost")):
            found = _LOOPBACK  # RFC 6761 6.3
        return found or ()

    def _ordered(self, addresses: tuple[str, ...]) -> tuple[str, ...]:
        """The family that is likely to work first; otherwise as given."""
        six_first = self._ipv6_first
        return tuple(sorted(addresses, key=lambda text: (":" in text) is not six_first))[:MAX_ADDRESSES]


class _Pair:
    """Waits for the A and the AAAA records."""

    def __init__(self, order: Callable[[tuple[str, ...]], tuple[str, ...]], done: Done) -> None:
        self._order, self._done = order, done
        self._answers: list[Answer] = []

    def take(self, answer: Answer) -> None:
        """The answer for one family."""
        self._answers.append(answer)
        if len(self._answers) < 2:
            return
        addresses = tuple(text for each in self._answers for text in each.texts)
        found = [each for each in self._answers if each.status is Status.FOUND]
        expires = min(each.expires for each in found or self._answers)
        if addresses:
            self._done(HostAddresses(Status.FOUND, expires, self._order(addresses)))
            return
        statuses = {each.status for each in self._answers}
        for status in (Status.TEMPORARY, Status.NO_DATA, Status.NO_NAME):
            if status in statuses:
                self._done(HostAddresses(status, expires))
                return
