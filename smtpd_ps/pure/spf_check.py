"""check_host() of SPF (RFC 7208, section 4): may this address send for this domain?

Pure; runs in filter-auth; parses what any domain publishes. The check is a generator of DNS questions
(pure/dns_asking), bounded as section 4.6.4 says.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Literal

from smtpd_ps.pure.dns_asking import Answer, Asking, Kind, Question
from smtpd_ps.pure.spf_record import Macros, Mechanism, Record, SpfError, expand, needs_validated, parse

Result = Literal["pass", "fail", "softfail", "neutral", "none", "temperror", "permerror"]
MAX_LOOKUPS = 10
MAX_VOID_LOOKUPS = 2
MAX_NAMES = 10  # of an MX, and of the client
_RESULTS: dict[str, Result] = {"+": "pass", "-": "fail", "~": "softfail", "?": "neutral"}


@dataclass(frozen=True, slots=True)
class SpfVerdict:
    """The result, for which domain, and why in a few words where it is an error."""

    result: Result
    domain: str
    why: str = ""


class _TempError(Exception):
    """Nobody answers."""


def check_host(ip: IPv4Address | IPv6Address, sender: str, helo: str) -> Asking[SpfVerdict]:
    """The verdict on a sender, or on the HELO name where it is null (section 2.4)."""
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    address = sender if "@" in sender else f"postmaster@{sender or helo}"
    if address.startswith("@"):
        address = "postmaster" + address
    domain = address.rpartition("@")[2].lower().rstrip(".")
    check = _Check(ip, address, helo)
    try:
        result = yield from check.host(domain)
    except SpfError as error:
        return SpfVerdict("permerror", domain, str(error))
    except _TempError as error:
        return SpfVerdict("temperror", domain, str(error))
    return SpfVerdict(result, domain)


def _name_valid(name: str) -> bool:
    labels = name.split(".")
    return len(labels) > 1 and len(name) <= 253 and name.isascii() and all(1 <= len(label) <= 63 for label in labels)


class _Check:
    """One check with its counts."""

    def __init__(self, ip: IPv4Address | IPv6Address, sender: str, helo: str) -> None:
        self._ip, self._sender, self._helo = ip, sender, helo
        self._lookups = self._voids = 0

    def host(self, domain: str) -> Asking[Result]:
        """Raises SpfError and _TempError."""
        if not _name_valid(domain):
            return "none"
        record = yield from self._record(domain)
        if record is None:
            return "none"
        for mechanism in record.mechanisms:
            if (yield from self._matches(mechanism, domain)):
                return _RESULTS[mechanism.qualifier]
        if not record.redirect or any(mechanism.name == "all" for mechanism in record.mechanisms):
            return "neutral"
        self._count()
        target = yield from self._target(record.redirect, domain)
        result = yield from self.host(target)
        if result == "none":
            raise SpfError("redirect to a domain without a record")
        return result

    def _record(self, domain: str) -> Asking[Record | None]:
        answer = yield Question(domain, "TXT")
        if answer.failed:
            raise _TempError(f"no answer for {domain}")
        found = [text for text in answer.records if text.lower() == "v=spf1" or text.lower().startswith("v=spf1 ")]
        if not found:
            return None
        if len(found) > 1:
            raise SpfError(f"more than one record of {domain}")
        return parse(found[0])

    def _count(self) -> None:
        self._lookups += 1
        if self._lookups > MAX_LOOKUPS:
            raise SpfError(f"more than {MAX_LOOKUPS} look-ups")

    def _ask(self, name: str, kind: Kind) -> Asking[tuple[str, ...]]:
        answer: Answer = (yield Question(name, kind)) if _name_valid(name) else Answer()
        if answer.failed:
            raise _TempError(f"no answer for {name}")
        if not answer.records:
            self._voids += 1
            if self._voids > MAX_VOID_LOOKUPS:
                raise SpfError(f"more than {MAX_VOID_LOOKUPS} look-ups without a result")
        return answer.records

    def _target(self, text: str, domain: str) -> Asking[str]:
        validated = "unknown"
        if needs_validated(text):
            self._count()
            names = yield from self._validated()
            validated = next(
                iter(sorted(names, key=lambda name: (name != domain, not _below(name, domain)))), "unknown"
            )
        four = isinstance(self._ip, IPv4Address)
        client = str(self._ip) if four else ".".join(self._ip.exploded.replace(":", ""))
        macros = Macros(self._sender, domain, client, "in-addr" if four else "ip6", self._helo, validated)
        return expand(text, macros)

    def _matches(self, mechanism: Mechanism, domain: str) -> Asking[bool]:
        match mechanism.name:
            case "all":
                return True
            case "ip4" | "ip6":
                return mechanism.network is not None and self._ip in mechanism.network
        self._count()
        target = (yield from self._target(mechanism.domain, domain)) if mechanism.domain else domain
        match mechanism.name:
            case "include":
                result = yield from self.host(target)
                if result == "none":
                    raise SpfError(f"include of {target[:80]}, which has no record")
                return result == "pass"
            case "exists":
                return bool((yield from self._ask(target, "A")))
            case "ptr":
                names = yield from self._validated()
                return any(_below(name, target) for name in names)
            case "a":
                return (yield from self._has_address(target, mechanism))
            case _:
                hosts = yield from self._ask(target, "MX")
                if len(hosts) > MAX_NAMES:
                    raise SpfError(f"more than {MAX_NAMES} exchangers of {target[:80]}")
                for host in hosts:
                    if (yield from self._has_address(host.rstrip(".").lower(), mechanism)):
                        return True
                return False

    def _has_address(self, name: str, mechanism: Mechanism) -> Asking[bool]:
        four = isinstance(self._ip, IPv4Address)
        prefix = mechanism.prefix4 if four else mechanism.prefix6
        addresses = yield from self._ask(name, "A" if four else "AAAA")
        return any(self._ip in ip_network(f"{address}/{prefix}", strict=False) for address in addresses)

    def _validated(self) -> Asking[list[str]]:
        """The client's names that have its address (section 5.5). What fails here is no error."""
        answer = yield Question(self._ip.reverse_pointer, "PTR")
        if not answer.records:
            self._voids += not answer.failed
            if self._voids > MAX_VOID_LOOKUPS:
                raise SpfError(f"more than {MAX_VOID_LOOKUPS} look-ups without a result")
        names = []
        for name in answer.records[:MAX_NAMES]:
            name = name.rstrip(".").lower()
            known = yield Question(name, "A" if isinstance(self._ip, IPv4Address) else "AAAA")
            if str(self._ip) in known.records:
                names.append(name)
        return names


def _below(name: str, domain: str) -> bool:
    return name == domain or name.endswith(f".{domain}")
