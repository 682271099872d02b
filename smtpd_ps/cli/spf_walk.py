"""`smtpctl_ps spf walk`: the addresses that domains, one a line on standard input, let send in their SPF records.

Runs as anyone, talks to no daemon but to the name servers of resolv.conf, with lookup's resolver; parses what
any domain publishes (pure/spf_terms). What cannot be followed is told on standard error.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from smtpd_ps.cli.words import WordError
from smtpd_ps.lookup.dns_exchange import Servers
from smtpd_ps.lookup.dns_wire import Mx, Type
from smtpd_ps.lookup.resolver import Answer, Resolver, Status
from smtpd_ps.pure.hosts_file import ResolverSettings, parse_resolv_conf, parse_resolver
from smtpd_ps.pure.spf_terms import MAX_TERMS, Term, Unfollowable, is_spf, parse_term
from smtpd_ps.runtime.loop import Loop

RESOLV_CONF = "/etc/resolv.conf"
MAX_QUESTIONS = 10_000  # of one run
MAX_DOMAINS = 10_000


def spf_walk(arguments: Sequence[str]) -> int:
    """`[-4|-6] [--resolver address:port]`; 1 where a name server could not say."""
    families = {4, 6}
    settings: ResolverSettings | None = None
    words = list(arguments)
    while words:
        word = words.pop(0)
        if word in ("-4", "-6"):
            families = {int(word[1])}
        elif word == "--resolver" and words:
            try:
                settings = ResolverSettings((parse_resolver(words.pop(0)),))
            except ValueError as error:
                raise WordError(f"--resolver: {error}") from None
        else:
            raise WordError(f"spf walk takes -4, -6 and --resolver address:port, not {word!r}")
    if settings is None:
        settings = parse_resolv_conf(_system())
    domains = [line.strip() for line in sys.stdin.buffer.read(1 << 20).decode("ascii", "replace").splitlines()]
    loop = Loop()
    walk = Walk(loop, Resolver(loop, Servers(loop, settings)), families, print, _complain)
    for domain in [domain for domain in domains if domain][:MAX_DOMAINS]:
        walk.include(domain)
    if not walk.done:
        loop.run()
    return 1 if walk.failed else 0


def _system() -> bytes:
    try:
        return Path(RESOLV_CONF).read_bytes()
    except OSError:
        return b""


def _complain(text: str) -> None:
    print(f"smtpctl_ps: {text.encode('unicode_escape').decode()}", file=sys.stderr)


class Walk:
    """Follows records; each address is told once, each domain asked once. Stops the loop at the end."""

    def __init__(
        self, loop: Loop, resolver: Resolver, families: set[int],
        tell: Callable[[str], None], complain: Callable[[str], None],
    ) -> None:  # fmt: skip
        self._loop, self._resolver, self._families = loop, resolver, families
        self._tell, self._complain = tell, complain
        self._told: set[str] = set()
        self._asked: set[tuple[str, Term | None, Type]] = set()
        self._waiting = 0
        self.failed = False

    @property
    def done(self) -> bool:
        """Whether every answer is here."""
        return not self._waiting

    def include(self, domain: str) -> None:
        """Follow the record of a domain."""
        self._ask(domain, Type.TXT, None, lambda answer: self._record(domain, answer))

    def _ask(self, name: str, kind: Type, term: Term | None, done: Callable[[Answer], None]) -> None:
        key = (name, term, kind)
        if key in self._asked:
            return
        if len(self._asked) >= MAX_QUESTIONS:
            if not self.failed:
                self._complain(f"more than {MAX_QUESTIONS} questions; the list is not complete")
            self.failed = True
            return
        self._asked.add(key)
        self._waiting += 1

        def answered(answer: Answer) -> None:
            if answer.status is Status.TEMPORARY:
                self.failed = True
                self._complain(f"{name} {kind.name}: no name server could say")
            done(answer)
            self._waiting -= 1
            if not self._waiting:
                self._loop.stop()

        self._resolver.ask(name, kind, answered)

    def _record(self, domain: str, answer: Answer) -> None:
        for text in answer.texts:
            if is_spf(text):
                for word in text.split()[1 : MAX_TERMS + 1]:
                    self._term(word, domain)

    def _term(self, word: str, domain: str) -> None:
        try:
            term = parse_term(word, domain)
        except Unfollowable as error:
            self._complain(f"{domain}: {error}")
            return
        if term is None:
            return
        match term.kind:
            case "address":
                self._say(term.value, 6 if ":" in term.value else 4)
            case "a":
                self._hosts(term.value, term)
            case "mx":
                self._ask(term.value, Type.MX, term, lambda answer: self._exchangers(term, answer))
            case "include":
                self.include(term.value)

    def _exchangers(self, term: Term, answer: Answer) -> None:
        for value in answer.values:
            if isinstance(value, Mx) and value.exchange:
                self._hosts(value.exchange, term)

    def _hosts(self, name: str, term: Term) -> None:
        for kind, family, prefix in ((Type.A, 4, term.prefix4), (Type.AAAA, 6, term.prefix6)):
            if family in self._families:
                self._ask(name, kind, term, partial(self._addresses, family, prefix))

    def _addresses(self, family: int, prefix: int, answer: Answer) -> None:
        for address in answer.texts:
            self._say(address if prefix < 0 else f"{address}/{prefix}", family)

    def _say(self, text: str, family: int) -> None:
        if family in self._families and text not in self._told:
            self._told.add(text)
            self._tell(text)
