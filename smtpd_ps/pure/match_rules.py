"""The match rules, compiled: which rule takes this recipient of this client?

Runs in lookup. Conditions on the client (address, authentication, tag) are the same for a whole
session, so they are decided once, by `RuleBook.view`; what remains of the rules is a View, and
clients for which the same rules remain share one. First match wins.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Literal, assert_never

from smtpd_ps.contract.settings import ConditionSettings, RuleSettings
from smtpd_ps.pure.match_service import Service, predicate_of
from smtpd_ps.pure.match_tables import (
    Predicate,
    match_domains,
    match_netaddrs,
)  # fmt: skip
from smtpd_ps.pure.table import Table, TableUnreadable

LOCAL = "local"  # the address of clients of the local socket, and of ourselves
# In place of a rule that would be the first to match if the client's name, which DNS does not tell, matched.
UNSURE = RuleSettings((), "", 0)


@dataclass(frozen=True, slots=True)
class Source:
    """Who hands the message in. `reinjected`: an address that an expansion gave (FEATURES A3)."""

    address: str  # as text, or LOCAL
    tag: str = ""
    user: str | None = None  # authenticated as; lookup's own record
    reinjected: bool = False
    name: str | None = ""  # by reverse DNS, in lower case; "" without one, None while it is not known


@dataclass(slots=True)
class Facts:
    """What a rule may look at in one recipient. Everything in lower case."""

    helo: str
    tls: bool
    sender: str  # "" is the null sender
    recipient: str
    domain: str  # of the recipient


_numbers = count()  # of views: what was decided by one is never taken for a decision of another book's

Detail = Literal["helo", "tls", "sender"]  # what of Facts, beyond the recipient, a rule reads
_SourceTest = Callable[[Source], bool | None]  # None: it depends on a name that is not known
_FactsTest = Callable[[Facts], bool]


@dataclass(frozen=True, slots=True)
class _Rule:
    settings: RuleSettings
    source_tests: tuple[_SourceTest, ...]
    facts_tests: tuple[_FactsTest, ...]
    reads: frozenset[Detail]


class View:
    """The rules that one kind of client has, in order. `unsure`: some depend on a name that is not known."""

    __slots__ = ("_rules", "number", "reads", "unsure")

    def __init__(self, number: int, rules: tuple[tuple[_Rule, bool], ...]) -> None:
        self.number = number
        self._rules = tuple((rule.facts_tests, rule.settings if sure else UNSURE) for rule, sure in rules)
        self.reads: frozenset[Detail] = frozenset().union(*(rule.reads for rule, _ in rules))
        self.unsure = not all(sure for _, sure in rules)

    def match(self, facts: Facts) -> RuleSettings | None:
        """The first rule that matches, None, or UNSURE."""
        for tests, rule in self._rules:
            for test in tests:
                if not test(facts):
                    break
            else:
                return rule
        return None


# Of a client of which nothing could be decided: every recipient is UNSURE.
UNDECIDED = View(next(_numbers), ((_Rule(UNSURE, (), (), frozenset()), False),))


class RuleBook:
    """All rules of a configuration, over its tables."""

    def __init__(
        self,
        rules: tuple[RuleSettings, ...],
        tables: Mapping[str, Table],
        local_addresses: tuple[str, ...],
        local_names: tuple[str, ...],
        delimiter: str,
    ) -> None:
        self._tables = tables
        self._delimiter = delimiter
        self._is_local_source = _local_source(local_addresses)
        self._is_local_name = match_domains(
            (*local_names, *local_addresses, *(literal for at in local_addresses for literal in _literals(at)))
        )
        self._compiled: dict[tuple[str, str], Predicate] = {}
        self._rules = tuple(self._rule(rule) for rule in rules)
        self._views: dict[tuple[tuple[int, bool], ...], View] = {}

    def view(self, source: Source) -> View:
        """What remains of the rules for `source`; the same object for the same remains."""
        chosen: list[tuple[int, bool]] = []
        for at, rule in enumerate(self._rules):
            sure = True
            for test in rule.source_tests:
                try:
                    said = test(source)
                except TableUnreadable:
                    said = None  # 451 where it would matter
                if said is False:
                    break
                sure = sure and said is True
            else:
                chosen.append((at, sure))
        key = tuple(chosen)
        view = self._views.get(key)
        if view is None:
            view = self._views[key] = View(next(_numbers), tuple((self._rules[at], sure) for at, sure in chosen))
        return view

    def _rule(self, settings: RuleSettings) -> _Rule:
        source_tests: list[_SourceTest] = []
        facts_tests: list[_FactsTest] = []
        reads: set[Detail] = set()
        for condition in settings.conditions:
            on_source = self._source_test(condition)
            if on_source is not None:
                source_tests.append(on_source)
                continue
            on_facts, detail = self._facts_test(condition)
            if on_facts is not None:
                facts_tests.append(on_facts)
            if detail is not None:
                reads.add(detail)
        return _Rule(settings, tuple(source_tests), tuple(facts_tests), frozenset(reads))

    def _compile(self, condition: ConditionSettings, service: Service) -> Predicate:
        return self._predicate(condition.table, "regex" if condition.regex else service)

    def _predicate(self, table: str, service: Service) -> Predicate:
        made = self._compiled.get((table, service))
        if made is None:
            made = predicate_of(self._tables[table], service, self._delimiter)
            self._compiled[table, service] = made
        return made

    def _source_test(self, condition: ConditionSettings) -> _SourceTest | None:
        wanted = not condition.negated
        match condition.kind:
            case "from-any":
                return lambda _source: wanted
            case "from-local":
                is_local = self._is_local_source
                return lambda source: (source.reinjected or is_local(source.address)) is wanted
            case "from-socket":
                # OpenSMTPD skips such a rule for re-injected mail, negated or not.
                return lambda source: not source.reinjected and (source.address == LOCAL) is wanted
            case "from-src" if condition.regex:
                texts = self._compile(condition, "regex")
                return lambda source: texts(LOCAL if source.reinjected else _written(source.address)) is wanted
            case "from-src":
                nets = self._compile(condition, "netaddr")
                return lambda source: nets(LOCAL if source.reinjected else source.address) is wanted
            case "from-rdns":
                return self._name_test(condition, wanted)
            case "from-auth" | "auth":
                return self._auth_test(condition, wanted)
            case "tag":
                tags = self._compile(condition, "string")
                return lambda source: tags(source.tag.lower()) is wanted
            case _:
                return None

    def _name_test(self, condition: ConditionSettings, wanted: bool) -> _SourceTest:
        """As ruleset.c: re-injected mail is "local"; a client without a name is in no table, nor in its negation."""
        if not condition.table:
            return lambda source: (
                False if source.reinjected else None if source.name is None else (source.name != "") is wanted
            )
        names = self._compile(condition, "domain")

        def listed(source: Source) -> bool | None:
            if source.reinjected:
                return names(LOCAL) is wanted
            if not source.name:
                return None if source.name is None else False
            return names(source.name) is wanted

        return listed

    def _auth_test(self, condition: ConditionSettings, wanted: bool) -> _SourceTest:
        if not condition.table:
            return lambda source: (source.user is not None) is wanted
        words, addresses = self._compile(condition, "string"), self._compile(condition, "mailaddr")

        def listed(source: Source) -> bool:
            if source.user is None:
                return not wanted
            user = source.user.lower()
            return (addresses(user) if "@" in user else words(user)) is wanted

        return listed

    def _facts_test(self, condition: ConditionSettings) -> tuple[_FactsTest | None, Detail | None]:
        wanted = not condition.negated
        match condition.kind:
            case "for-any":
                return (None if wanted else lambda _facts: False), None
            case "for-local":
                return _on_domain(self._is_local_name, wanted), None
            case "for-domain":
                return _on_domain(self._compile(condition, "domain"), wanted), None
            case "for-rcpt-to" | "rcpt-to":
                to = self._compile(condition, "mailaddr")
                return (lambda facts: to(facts.recipient) is wanted), None
            case "helo":
                helo = self._compile(condition, "domain")
                return (lambda facts: helo(facts.helo) is wanted), "helo"
            case "mail-from" if condition.regex:
                text = self._compile(condition, "regex")
                return (lambda facts: text(facts.sender or "@") is wanted), "sender"
            case "mail-from":
                sender = self._compile(condition, "mailaddr")
                return (lambda facts: sender(facts.sender) is wanted), "sender"
            case "tls":
                return (lambda facts: facts.tls is wanted), "tls"
            case "from-any" | "from-local" | "from-socket" | "from-src" | "from-rdns" | "from-auth" | "auth" | "tag":
                raise AssertionError(condition.kind)  # decided on the source
            case _:
                assert_never(condition.kind)


def _on_domain(matches: Predicate, wanted: bool) -> _FactsTest:
    if wanted:
        return lambda facts: matches(facts.domain)
    return lambda facts: not matches(facts.domain)


def _local_source(local_addresses: tuple[str, ...]) -> Predicate:
    """As ruleset.c: the interfaces' own addresses, not all of 127.0.0.0/8."""
    ours = match_netaddrs((*local_addresses, "127.0.0.1", "::1"))
    return lambda address: address == LOCAL or ours(address)


def _written(address: str) -> str:
    """An address as OpenSMTPD compares it with patterns: IPv6 in brackets."""
    return f"[{address.lower()}]" if ":" in address else address


def _literals(address: str) -> tuple[str, ...]:
    """How an address of ours looks as the domain of a mail address."""
    return (f"[{address}]", f"[ipv6:{address}]") if ":" in address else (f"[{address}]",)
