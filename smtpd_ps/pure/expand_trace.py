"""Expansion that tells its steps, for `smtpctl_ps explain`.

Runs in lookup, on what an operator asks. The expansion is pure/expand's own: this only listens
in, through wrapped rules, tables and answers, so that what is explained is what would happen.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from smtpd_ps.contract.settings import RuleSettings
from smtpd_ps.contract.values import Account, StepKind
from smtpd_ps.pure.expand import Action, Expander, Node, Rules, Run
from smtpd_ps.pure.expand_outcome import Outcome, Refused
from smtpd_ps.pure.expand_questions import (
    Answer,
    Forward,
    ForwardQuestion,
    Included,
    IncludeQuestion,
    Known,
    Question,
    UserQuestion,
    UserState,
)
from smtpd_ps.pure.expand_targets import Target
from smtpd_ps.pure.match_rules import UNSURE, Facts
from smtpd_ps.pure.table import Table

MAX_STEPS = 2000


@dataclass(frozen=True, slots=True)
class Step:
    """One step; `depth` counts the expansions above it, `subject` is what it is about."""

    depth: int
    kind: StepKind
    subject: str
    text: str


class Trace:
    """The steps so far, and the depth at which the expansion is."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.depth = 0

    def note(self, kind: StepKind, subject: str, text: str) -> None:
        """Add a step; of very many the last says that there are more."""
        if len(self.steps) < MAX_STEPS:
            self.steps.append(Step(self.depth, kind, subject, text))
        elif len(self.steps) == MAX_STEPS:
            self.steps.append(Step(0, "note", "", "more steps than are shown"))


def expand_traced(
    expander: Expander,
    recipient: str,
    facts: Facts,
    direct: Rules,
    reinjected: Rules,
    known: Known,
) -> tuple[Outcome, tuple[Step, ...]]:
    """As expander.expand, with the steps that led to the outcome."""
    trace = Trace()

    def told(question: Question) -> Answer | None:
        answer = known(question)
        if answer is not None:
            _note_answer(trace, question, answer)
        return answer

    followed = {name: _followed_action(action, trace) for name, action in expander.actions.items()}
    run = _TracedRun(
        followed, expander.delimiter, facts, _TracedRules(direct, trace), _TracedRules(reinjected, trace), told, trace
    )
    outcome = run.run(recipient)
    return outcome, tuple(trace.steps)


_STATES = {
    UserState.FOUND: "is a user of this system",
    UserState.ABSENT: "is no user of this system",
    UserState.UNSURE: "the system cannot say whether this is a user",
}


_FORWARDS = {
    "none": "a user without .forward",
    "absent": "is no user of this system",
    "unsure": "the system cannot say whether this is a user",
    "temporary": ".forward cannot be used now",
    "refused": ".forward is refused",
    "found": ".forward",
}


def _note_answer(trace: Trace, question: Question, answer: Answer) -> None:
    match question, answer:
        case UserQuestion(user), UserState():
            trace.note("passwd", user, _STATES[answer])
        case ForwardQuestion(_, user), Forward(state, targets, _, why):
            told = why or ", ".join(target_text(target) for target in targets)
            text = f"{_FORWARDS[state]}: {told}" if told else _FORWARDS[state]
            trace.note("passwd" if state in ("absent", "unsure") else "forward", user, text)
        case IncludeQuestion(path), Included(targets, why):
            trace.note("include", path, why if targets is None else ", ".join(map(target_text, targets)))
        case _:
            raise AssertionError(f"{answer} answers {question}")


def target_text(target: Target) -> str:
    """As an alias would name it."""
    return f"|{target.text}" if target.kind == "command" else target.text


def rule_text(rule: RuleSettings | None) -> str:
    """`line 12: action "receive"`, and the file where it was included."""
    if rule is None:
        return "no rule matches"
    if rule is UNSURE:
        return "a rule depends on the name of the client's host, which DNS does not tell"
    place = f"{rule.path}, line {rule.line}" if rule.path else f"line {rule.line}"
    return f'{place}: action "{rule.action}"' if rule.action else f"{place}: reject"


class _TracedRules:
    """Rules that tell which one matched."""

    def __init__(self, rules: Rules, trace: Trace) -> None:
        self._rules, self._trace = rules, trace

    def match(self, facts: Facts) -> RuleSettings | None:
        rule = self._rules.match(facts)
        self._trace.note("rule", facts.recipient, rule_text(rule))
        return rule


class _TracedEntries(Mapping[str, str]):
    """Entries of a table that tell which key was found."""

    def __init__(self, table: Table, trace: Trace) -> None:
        self._table, self._entries, self._trace = table.name, table.entries, trace

    def __getitem__(self, key: str) -> str:
        value = self._entries[key]
        self._trace.note("entry", key, f"in table {self._table}: {value}")
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def _followed(table: Table | None, trace: Trace) -> Table | None:
    return replace(table, entries=_TracedEntries(table, trace)) if table is not None else None


def _followed_action(action: Action, trace: Trace) -> Action:
    return replace(action, alias=_followed(action.alias, trace), virtual=_followed(action.virtual, trace))


class _TracedRun(Run):
    __slots__ = ("_trace",)

    def __init__(
        self,
        actions: Mapping[str, Action],
        delimiter: str,
        facts: Facts,
        direct: Rules,
        reinjected: Rules,
        known: Known,
        trace: Trace,
    ) -> None:
        super().__init__(actions, delimiter, facts, direct, reinjected, known)
        self._trace = trace

    def _expand(self, node: Node) -> Refused | None:
        self._trace.depth = node.depth
        kind: StepKind = "address" if node.kind == "address" else "user" if node.kind == "user" else "target"
        what = node.text if kind != "target" else f"{node.kind} {node.text}"
        self._trace.note(kind, what, f"from {node.parent.text}" if node.parent else "")
        return super()._expand(node)

    def _insert(self, target: Target, parent: Node | None, action: Action | None) -> bool:
        inserted = super()._insert(target, parent, action)
        if not inserted:
            self._trace.note("duplicate", target.text, "is there already")
        return inserted

    def _userbase(self, table: Table, user: str) -> Account | None:
        account = super()._userbase(table, user)
        text = "is not" if account is None else f"has uid {account.uid}, gid {account.gid} and home {account.home}"
        self._trace.note("userbase", user, f"{text} in table {table.name}")
        return account

    def _alias(self, table: Table, user: str) -> str | None:
        value = super()._alias(table, user)
        if value is None:
            self._trace.note("no-entry", user, f"in table {table.name}")
        return value

    def _virtual(self, table: Table, local: str, domain: str) -> str | None:
        value = super()._virtual(table, local, domain)
        if value is None:
            self._trace.note("no-entry", f"{local}@{domain}" if domain else local, f"in table {table.name}")
        return value
