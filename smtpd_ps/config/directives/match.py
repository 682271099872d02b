"""`match`: which mail goes to which action.

Runs in the parent and in `smtpd_ps -n`. The criteria stand in tables from their word to what
they need, so that a new one is a line here.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from smtpd_ps.config.directives.tables import at_table, table_argument
from smtpd_ps.config.model import Condition, Rule
from smtpd_ps.config.parser import Parser
from smtpd_ps.config.suggestion import suggestion
from smtpd_ps.config.tokens import Token
from smtpd_ps.contract.settings import ConditionKind, TableUse

MAX_CONDITIONS = 32  # contract.settings.RuleSettings


@dataclass(frozen=True, slots=True)
class Criterion:
    """A condition's kind, and how it uses a table: not at all, if there is one, or always.

    `says` is what it tells of the session, so that `from auth` and `auth` exclude each other.
    """

    kind: ConditionKind
    use: TableUse | None = None
    optional: bool = False
    says: str = ""


FROM: Mapping[str, Criterion] = {
    "any": Criterion("from-any"),
    "auth": Criterion("from-auth", "string", optional=True, says="auth"),
    "local": Criterion("from-local"),
    "mail-from": Criterion("mail-from", "mailaddr", says="mail-from"),
    "rdns": Criterion("from-rdns", "domain", optional=True),
    "socket": Criterion("from-socket"),
    "src": Criterion("from-src", "netaddr"),
}
FOR: Mapping[str, Criterion] = {
    "any": Criterion("for-any"),
    "domain": Criterion("for-domain", "domain"),
    "local": Criterion("for-local"),
    "rcpt-to": Criterion("for-rcpt-to", "mailaddr", says="rcpt-to"),
}
OTHERS: Mapping[str, Criterion] = {
    "auth": Criterion("auth", "user", optional=True, says="auth"),
    "helo": Criterion("helo", "domain", says="helo"),
    "mail-from": Criterion("mail-from", "mailaddr", says="mail-from"),
    "rcpt-to": Criterion("rcpt-to", "mailaddr", says="rcpt-to"),
    "tag": Criterion("tag", "string", says="tag"),
    "tls": Criterion("tls", says="tls"),
}
_WORDS = ("from", "for", *OTHERS)


def match(p: Parser) -> None:
    """`match [!] condition ... action NAME | reject`."""
    where = p.where
    p.draft.rules_seen += 1
    conditions: list[Condition] = []
    given: set[str] = set()
    while not p.at("action", "reject"):
        negated = p.accept("!") is not None
        word = p.peek()
        if not p.at(*_WORDS):
            ends = "" if negated else ", action or reject"
            p.unexpected(f"a condition ({', '.join(_WORDS)}){ends}", (*_WORDS, "action", "reject"))
        p.advance()
        conditions += _condition(p, word, negated, given)
    if "from" not in given:
        conditions.append(Condition("from-local"))
    if "for" not in given:
        conditions.append(Condition("for-local"))
    if len(conditions) > MAX_CONDITIONS:
        p.draft.report(where, f"at most {MAX_CONDITIONS} conditions, found {len(conditions)}")
    p.draft.rules.append(Rule(tuple(conditions), _target(p), where))


def _condition(p: Parser, word: Token, negated: bool, given: set[str]) -> list[Condition]:
    known = {"from": FROM, "for": FOR}.get(word.text)
    purpose = word.text
    criterion = OTHERS.get(word.text)
    if known is not None:
        _once(p, word, word.text, given)
        token = p.peek()
        if not p.at(*known):
            p.unexpected(f"{', '.join(known)} after {word.text}", known)
        p.advance()
        criterion = known[token.text]
        purpose = f"{word.text} {token.text}"
    assert criterion is not None
    if criterion.says:
        _once(p, word, criterion.says, given)
    table = ""
    regex = criterion.use is not None and p.accept("regex") is not None
    if regex:
        table = table_argument(p, f"{purpose} regex", "regex", programs=True)
    elif criterion.use is not None and (not criterion.optional or at_table(p)):
        table = table_argument(p, purpose, criterion.use, programs=True)
    made = [Condition(criterion.kind, negated, table, regex)]
    if word.text == "from" and criterion.kind == "mail-from":
        made.insert(0, Condition("from-any"))  # ruleset.c: any client, this sender
    return made


def _once(p: Parser, word: Token, what: str, given: set[str]) -> None:
    if what in given:
        p.report(word, f"{what} is already given for this rule")
    given.add(what)


def _target(p: Parser) -> str:
    if p.advance().text == "reject":
        return ""
    token = p.peek()
    name = p.name("the name of an action", blanks=True)
    if name not in p.draft.actions and ("action", name) not in p.draft.broken:
        p.report(token, f'no action is declared with the name "{name}"{suggestion(name, p.draft.actions)}')
    return name
