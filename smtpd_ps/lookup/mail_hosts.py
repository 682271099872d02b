"""Which hosts take mail for a domain: MX, or the domain's own addresses.

Runs in lookup. RFC 5321 5.1, RFC 7505 (null MX). What OpenSMTPD makes of the failures, with the
differences of QUIRKS 37 to 39: only an authoritative "does not exist" is permanent.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from smtpd_ps.contract.values import RouteHost
from smtpd_ps.lookup.addresses import AddressBook, HostAddresses
from smtpd_ps.lookup.dns_wire import Mx, Type, host_valid
from smtpd_ps.lookup.resolver import Answer, Resolver, Status
from smtpd_ps.runtime.loop import Loop

MAX_HOSTS = 64
SMTP_PORT = 25

# OpenSMTPD's words; the codes (RFC 7505, RFC 3463 3.2) are what the status of the bounce is made of.
NO_MAIL = "5.1.10 Domain does not accept mail"
NO_DOMAIN = "5.1.2 Domain does not exist"


@dataclass(frozen=True, slots=True)
class MailHosts:
    """Hosts in order of preference; with none, why, and whether trying again may help."""

    expires: float  # by the loop's clock
    hosts: tuple[RouteHost, ...] = ()
    temporary: bool = False
    text: str = ""
    preferences: tuple[tuple[str, int], ...] = ()  # of all exchangers, also of those that have no address


Done = Callable[[MailHosts], None]


class MailExchangers:
    """Answers for domains."""

    def __init__(self, loop: Loop, resolver: Resolver, book: AddressBook) -> None:
        self._loop, self._resolver, self._book = loop, resolver, book

    def find(self, domain: str, done: Done) -> None:
        """Call `done` once, possibly before this returns."""
        if domain.startswith("["):
            # An address literal is its own exchanger.
            self._book.resolve(domain, partial(self._own_address, domain, done))
        elif domain.lower().rstrip(".") == "localhost":
            done(self._refused(NO_MAIL, self._loop.now() + 3600))
        else:
            self._resolver.ask(domain, Type.MX, partial(self._exchangers, domain, done))

    @staticmethod
    def _refused(text: str, expires: float) -> MailHosts:
        return MailHosts(expires, (), False, text)

    def _exchangers(self, domain: str, done: Done, answer: Answer) -> None:
        match answer.status:
            case Status.TEMPORARY:
                done(MailHosts(answer.expires, (), True, "Temporary failure in MX lookup"))
            case Status.NO_NAME:
                done(self._refused(NO_DOMAIN, answer.expires))
            case Status.NO_DATA:
                self._book.resolve(domain, partial(self._own_address, domain, done))
            case Status.FOUND:
                records = [value for value in answer.values if isinstance(value, Mx)]
                usable = [mx for mx in records if mx.exchange != "localhost" and host_valid(mx.exchange)]
                if not usable and any(mx.exchange in ("", "localhost") for mx in records):
                    done(self._refused(NO_MAIL, answer.expires))
                elif not usable:
                    done(MailHosts(answer.expires, (), True, "No MX found for domain"))
                else:
                    # Equal preferences in random order, RFC 5321 5.1.
                    usable.sort(key=lambda mx: (mx.preference, os.urandom(2)))
                    _Gathering(usable[:MAX_HOSTS], answer.expires, done).start(self._book)

    def _own_address(self, domain: str, done: Done, found: HostAddresses) -> None:
        match found.status:
            case Status.FOUND:
                host = RouteHost(domain.strip("[]"), found.addresses, SMTP_PORT)
                done(MailHosts(found.expires, (host,)))
            case Status.TEMPORARY:
                done(MailHosts(found.expires, (), True, "Temporary failure in address lookup"))
            case Status.NO_DATA | Status.NO_NAME:
                done(MailHosts(found.expires, (), True, "No MX found for domain"))


class _Gathering:
    """Waits for the addresses of all exchangers."""

    def __init__(self, exchangers: list[Mx], expires: float, done: Done) -> None:
        self._exchangers, self._expires, self._done = exchangers, expires, done
        self._found: dict[int, HostAddresses] = {}
        self._preferences = tuple((mx.exchange.lower(), mx.preference) for mx in exchangers)

    def start(self, book: AddressBook) -> None:
        for at, mx in enumerate(self._exchangers):
            book.resolve(mx.exchange, partial(self._resolved, at))

    def _resolved(self, at: int, found: HostAddresses) -> None:
        self._found[at] = found
        if len(self._found) < len(self._exchangers):
            return
        hosts: list[RouteHost] = []
        expires = self._expires
        for index, mx in enumerate(self._exchangers):
            host = self._found[index]
            if host.addresses:
                hosts.append(RouteHost(mx.exchange, host.addresses, SMTP_PORT, mx.preference))
                expires = min(expires, host.expires)
        if hosts:
            self._done(MailHosts(expires, tuple(hosts), preferences=self._preferences))
        else:
            expires = min(expires, *(host.expires for host in self._found.values()))
            self._done(MailHosts(expires, (), True, "No MX found for domain"))
