"""Filters: conditions on a session, what is decided where they hold, and whose turn comes next.

Runs in lookup, on what smtp says of a client and what DNS and tables say. A condition that nobody
can decide now, because DNS does not answer or a database cannot be read, neither holds nor fails: a
refusal that depends on it is temporary, and anything else is left out.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, assert_never

from smtpd_ps.contract.settings import FILTER_PHASES, FilterPhase, FilterSettings
from smtpd_ps.pure.match_service import Service, predicate_of
from smtpd_ps.pure.match_tables import Predicate, client_address
from smtpd_ps.pure.table import Table, TableUnreadable

UNKNOWN = "<unknown>"  # what patterns see of a client without a name, as in OpenSMTPD
_UNDECIDED = "4.4.3 Temporary failure, try again later"

Answer = Literal["proceed", "junk", "rewrite", "reject", "disconnect"]


@dataclass(frozen=True, slots=True)
class Facts:
    """What conditions look at, in lower case. `name` and `confirmed` are None where DNS does not tell."""

    address: str  # as text, or "local"
    name: str | None  # by reverse DNS, "" without one
    confirmed: bool | None  # whether the name resolves back
    user: str | None  # authenticated as
    helo: str
    sender: str
    parameter: str  # of the command


@dataclass(frozen=True, slots=True)
class Verdict:
    """The end of a chain for this phase."""

    answer: Answer
    text: str = ""
    filter: str = ""  # the one that decided, "" where none did


@dataclass(frozen=True, slots=True)
class ListsNeeded:
    """DNS names to ask for addresses; then `run` again from step `at` with what was found."""

    names: tuple[str, ...]
    at: int


@dataclass(frozen=True, slots=True)
class ProgramNeeded:
    """A program to ask; then, if it has nothing against it, `run` again from the step behind `at`."""

    settings: FilterSettings
    at: int


_Test = Callable[[Facts], bool | None]


@dataclass(frozen=True, slots=True)
class Step:
    """One filter of a chain: a builtin one, in the one phase that it has, or a program, in any."""

    settings: FilterSettings
    test: _Test
    zones: tuple[str, ...] = ()  # of DNS lists; the test is then their answer


class Filters:
    """All filters of a configuration, over its tables."""

    def __init__(self, filters: Iterable[FilterSettings], tables: Mapping[str, Table], delimiter: str) -> None:
        self._tables, self._delimiter = tables, delimiter
        self._steps: dict[tuple[str, FilterPhase], tuple[Step, ...]] = {}
        steps: dict[str, tuple[Step, ...]] = {}
        for each in filters:  # members come before their chains
            made = tuple(step for name in each.members for step in steps[name]) if each.members else (self._step(each),)
            steps[each.name] = made
            for phase in FILTER_PHASES:
                if chosen := tuple(step for step in made if step.settings.program or step.settings.phase == phase):
                    self._steps[each.name, phase] = chosen

    def steps(self, name: str, phase: FilterPhase) -> tuple[Step, ...]:
        """What the filter `name` does in `phase`."""
        return self._steps.get((name, phase), ())

    def programs(self, name: str) -> tuple[FilterSettings, ...]:
        """The filters of `name` that are programs, in their order."""
        steps = self._steps.get((name, "connect"), ())
        return tuple(step.settings for step in steps if step.settings.program)

    def phases(self, name: str) -> int:
        """In which phases builtin filters of `name` have something to say."""
        return sum(
            1 << index
            for index, phase in enumerate(FILTER_PHASES)
            if any(not step.settings.program for step in self.steps(name, phase))
        )

    def _step(self, settings: FilterSettings) -> Step:
        zones = tuple(self._tables[settings.table].entries) if settings.condition == "dnsbl" else ()
        return Step(settings, self._test(settings), zones)

    def _test(self, settings: FilterSettings) -> _Test:
        if settings.program:
            return lambda _facts: None
        match settings.condition:
            case "fcrdns":
                return lambda facts: facts.confirmed
            case "rdns":
                return self._name_test(settings)
            case "src" if settings.regex:
                texts = self._matches(settings, "regex")
                return lambda facts: texts(_written(facts.address))
            case "src":
                nets = self._matches(settings, "netaddr")
                return lambda facts: nets(facts.address)
            case "helo":
                helo = self._matches(settings, "domain")
                return lambda facts: helo(facts.helo)
            case "auth":
                return self._user_test(settings)
            case "mail-from":
                sender = self._mailaddrs(settings)
                return lambda facts: sender(facts.sender)
            case "rcpt-to":
                recipient = self._mailaddrs(settings)
                return lambda facts: recipient(facts.parameter)
            case "dnsbl":
                return lambda _facts: None
            case never:
                assert_never(never)

    def _matches(self, settings: FilterSettings, service: Service) -> Predicate:
        return predicate_of(self._tables[settings.table], "regex" if settings.regex else service, self._delimiter)

    def _mailaddrs(self, settings: FilterSettings) -> Predicate:
        if settings.regex:
            patterns = self._matches(settings, "regex")
            return lambda address: patterns(address or "@")
        return self._matches(settings, "mailaddr")

    def _name_test(self, settings: FilterSettings) -> _Test:
        if not settings.table:
            return lambda facts: None if facts.name is None else facts.name != ""
        names = self._matches(settings, "domain")
        return lambda facts: None if facts.name is None else names(facts.name or UNKNOWN)

    def _user_test(self, settings: FilterSettings) -> _Test:
        if not settings.table:
            return lambda facts: facts.user is not None
        users = self._matches(settings, "string")
        return lambda facts: facts.user is not None and users(facts.user)


def _nothing(_program: str) -> bool:
    return False


Outcome = Verdict | ListsNeeded | ProgramNeeded


def run(
    steps: tuple[Step, ...],
    facts: Facts,
    said: list[tuple[str, str]],
    at: int = 0,
    listed: bool | None = None,
    wants: Callable[[str], bool] = _nothing,
) -> Outcome:
    """What the chain decides. `said` gets the name and the text of filters that report, `wants` says
    whether a program is to be asked in this phase.

    `listed`: what DNS answered to the ListsNeeded of step `at`.
    """
    for number in range(at, len(steps)):
        step = steps[number]
        settings = step.settings
        if settings.program:
            if wants(settings.program):
                return ProgramNeeded(settings, number)
            continue
        try:
            holds = step.test(facts)
        except TableUnreadable:
            holds = None
        if step.zones:
            if number != at or listed is None:
                if names := _listing_names(facts.address, step.zones):
                    return ListsNeeded(names, number)
                holds = False
            else:
                holds = listed
        if holds is None:
            if settings.decision == "reject":
                return Verdict("reject", f"451 {_UNDECIDED}", settings.name)
            if settings.decision == "disconnect":
                return Verdict("disconnect", f"421 {_UNDECIDED}", settings.name)
        elif holds is not settings.negated:
            match settings.decision:
                case "bypass":
                    return Verdict("proceed", "", settings.name)
                case "report":
                    said.append((settings.name, settings.text))
                case decided:
                    return Verdict(decided, settings.text, settings.name)
    return Verdict("proceed")


def _listing_names(address: str, zones: tuple[str, ...]) -> tuple[str, ...]:
    """The names under which DNS lists have this client (RFC 5782 2.1); none for a local one."""
    parsed = client_address(address)
    if parsed is None or parsed.is_loopback:
        return ()
    client = parsed.reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")
    return tuple(f"{client}.{zone.rstrip('.')}" for zone in zones)


def lists(address: str) -> bool:
    """Whether an address that a DNS list answered means that the client is listed (RFC 5782 2.1)."""
    return address.startswith("127.") and not address.startswith("127.255.255.")


def _written(address: str) -> str:
    """An address as OpenSMTPD compares it with patterns: IPv6 in brackets."""
    return f"[{address.lower()}]" if ":" in address else address
