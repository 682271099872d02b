"""DNS for filter-auth: questions of checks, answered by a resolver, many at a time.

Runs in filter-auth; parses answers of the operator's resolver (with dnspython).
"""

import asyncio
import ipaddress

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver

from smtpd_ps.pure.dns_asking import Answer, Asking, Question, T

LIFETIME_SECS = 10.0
CACHED = 10_000  # names


def resolver(address: str) -> dns.asyncresolver.Resolver:
    """A resolver at `address[:port]`, that of the system where it is "". Raises ValueError."""
    if not address:
        try:
            made = dns.asyncresolver.Resolver()
        except dns.resolver.NoResolverConfiguration as error:
            raise ValueError(f"/etc/resolv.conf: {error}") from None
    else:
        host, port = address, 53
        if address.startswith("["):
            host, _, rest = address[1:].partition("]")
            port = int(rest.removeprefix(":") or 53)
        elif address.count(":") == 1:
            host, _, text = address.partition(":")
            port = int(text)
        made = dns.asyncresolver.Resolver(configure=False)
        made.nameservers = [str(ipaddress.ip_address(host))]
        made.port = port
    made.lifetime = LIFETIME_SECS
    made.cache = dns.resolver.LRUCache(CACHED)
    return made


class Dns:
    """Answers questions."""

    def __init__(self, resolver: dns.asyncresolver.Resolver) -> None:
        self._resolver = resolver

    async def ask(self, question: Question) -> Answer:
        """Whatever happens, an answer."""
        try:
            found = await self._resolver.resolve(question.name + ".", question.kind, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return Answer()
        except (dns.exception.DNSException, OSError, UnicodeError):
            return Answer(failed=True)
        records = list(found)
        if question.kind == "TXT":
            return Answer(tuple(b"".join(record.strings).decode("latin-1") for record in records))
        if question.kind == "MX":
            records.sort(key=lambda record: int(record.preference))
            return Answer(tuple(record.exchange.to_text(omit_final_dot=True) for record in records))
        if question.kind == "PTR":
            return Answer(tuple(record.target.to_text(omit_final_dot=True) for record in records))
        return Answer(tuple(record.address for record in records))

    async def all(self, questions: tuple[Question, ...]) -> dict[Question, Answer]:
        """The answers to some questions."""
        answers = await asyncio.gather(*map(self.ask, questions))
        return dict(zip(questions, answers, strict=True))

    async def settle(self, asking: Asking[T]) -> T:
        """The result of a check."""
        try:
            question = next(asking)
            while True:
                question = asking.send(await self.ask(question))
        except StopIteration as end:
            result: T = end.value
            return result
