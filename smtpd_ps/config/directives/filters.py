"""`filter`, `proc`, `admd`, and the filter of a listener.

Runs in the parent and in `smtpd_ps -n`. What a phase may look at stands in a table; OpenSMTPD's
grammar has a production for each combination.
"""

from collections.abc import Mapping
from typing import get_args

from smtpd_ps.config.commands import MAX_COMMAND, command_words
from smtpd_ps.config.directives.tables import at_table, table_argument
from smtpd_ps.config.model import Builtin, Chain, Filter, Proc, Program, Where
from smtpd_ps.config.parser import Parser
from smtpd_ps.config.suggestion import suggestion
from smtpd_ps.config.tokens import Kind, Token
from smtpd_ps.contract.settings import FilterCondition, FilterDecision, FilterPhase, TableUse
from smtpd_ps.pure.address import domain_valid, helo_valid
from smtpd_ps.pure.filter_reply import ReplyTextError, check_reply
from smtpd_ps.pure.relay_url import is_host_name

MAX_MEMBERS = 256  # contract.settings.FilterSettings
MAX_TEXT = 480  # of a reply that fits into an SMTP line

_CLIENT: tuple[FilterCondition, ...] = ("dnsbl", "fcrdns", "rdns", "src")
_GREETED: tuple[FilterCondition, ...] = (*_CLIENT, "helo")
_KNOWN: tuple[FilterCondition, ...] = (*_GREETED, "auth")
_SENDER: tuple[FilterCondition, ...] = (*_KNOWN, "mail-from")
PHASES: Mapping[FilterPhase, tuple[FilterCondition, ...]] = {
    "auth": _KNOWN,
    "commit": _SENDER,
    "connect": _CLIENT,
    "data": _SENDER,
    "ehlo": _GREETED,
    "helo": _GREETED,
    "mail-from": _SENDER,
    "rcpt-to": (*_SENDER, "rcpt-to"),
}
_USES: Mapping[FilterCondition, TableUse] = {
    "auth": "user",
    "dnsbl": "domain",
    "helo": "domain",
    "mail-from": "mailaddr",
    "rcpt-to": "mailaddr",
    "rdns": "domain",
    "src": "netaddr",
}
_WITHOUT_TABLE = ("auth", "rdns")  # may stand alone
_DECISIONS: tuple[FilterDecision, ...] = get_args(FilterDecision)
_REWRITABLE = ("auth", "ehlo", "helo", "mail-from", "rcpt-to")  # have a parameter
_FAILURES = ("accept", "tempfail")
_FORMS = ("chain", "phase", "proc", "proc-exec")


def filter_(p: Parser) -> None:
    """`filter NAME phase ...`, `filter NAME chain { ... }`, `filter NAME proc P`, `filter NAME proc-exec COMMAND`."""
    where = p.where
    name = p.name("the name of a filter", blanks=True)
    known = p.draft.filters.get(name)
    if known is not None:
        p.draft.report(where, f'filter "{name}" is already declared at {known.where.path}:{known.where.line}')
    if name.startswith("<"):
        p.draft.report(where, 'the name of a filter may not start with "<"')
    with p.draft.declaring("filter", name):
        body = _body(p, name)
    p.draft.filters.setdefault(name, Filter(name, body, where))


def _body(p: Parser, name: str) -> Builtin | Chain | Program:
    form = p.expect(*_FORMS)
    match form.text:
        case "chain":
            return _chain(p)
        case "proc":
            return Program(_program(p), _on_failure(p))
        case "proc-exec":
            _declare(p, form, name, _proc(p, name, exec_=True))
            return Program(name, _on_failure(p))
        case _:
            return _builtin(p)


# Builtin filters.


def _builtin(p: Parser) -> Builtin:
    token = p.peek()
    if not p.at(*PHASES):
        p.unexpected(f"a phase ({', '.join(PHASES)})", PHASES)
    phase = next(phase for phase in PHASES if phase == token.text)
    p.advance()
    p.expect("match")
    negated = p.accept("!") is not None
    condition, table, regex = _condition(p, phase)
    decision, text = _decision(p, phase)
    return Builtin(phase, condition, negated, table, regex, decision, text)


def _condition(p: Parser, phase: FilterPhase) -> tuple[FilterCondition, str, bool]:
    """The one condition: what it looks at, its table, and whether that holds patterns."""
    allowed = PHASES[phase]
    token = p.peek()
    every = ("fcrdns", *_USES)
    if not p.at(*every) and not _at_word(p, "dnsbl"):
        p.unexpected(f"a condition of phase {phase} ({', '.join(sorted(allowed))})", allowed)
    p.advance()
    condition = next(each for each in get_args(FilterCondition) if each == token.text)
    if condition not in allowed:
        p.report(token, f"{condition} cannot be looked at in phase {phase}")
    use = _USES.get(condition)
    if use is None:
        return condition, "", False
    regex = condition != "dnsbl" and p.accept("regex") is not None
    place = p.peek()
    if regex:
        table = table_argument(p, f"{condition} regex", "regex", programs=True)
    elif condition in _WITHOUT_TABLE and not at_table(p):
        table = ""
    else:
        table = table_argument(p, condition, use, programs=condition != "dnsbl")
        if condition == "dnsbl":
            _check_zones(p, place, table)
    return condition, table, regex


def _check_zones(p: Parser, place: Token, name: str) -> None:
    table = p.draft.tables.get(name)
    if table is None or table.kind == "file":
        return
    for text, _value in table.entries:
        if not is_host_name(text):
            p.report(place, f'"{text}" is not the domain of a DNS list')


def _decision(p: Parser, phase: FilterPhase) -> tuple[FilterDecision, str]:
    token = p.peek()
    if not p.at(*_DECISIONS):
        p.unexpected(f"one condition and then a decision ({', '.join(_DECISIONS)})", _DECISIONS)
    p.advance()
    decision = next(each for each in _DECISIONS if each == token.text)
    if decision in ("bypass", "junk"):
        if phase == "commit":
            p.report(token, f"{decision} cannot be decided in phase commit")
        return decision, ""
    place = p.peek()
    text = p.string(f"the text of {decision}", MAX_TEXT)
    if decision in ("reject", "disconnect"):
        try:
            check_reply(text)
        except ReplyTextError as error:
            p.report(place, f'"{text}": {error}')
    elif not text.isprintable():
        p.report(place, f"the text of {decision} must be printable")
    if decision == "rewrite":
        _check_rewrite(p, token, place, phase, text)
    return decision, text


def _check_rewrite(p: Parser, token: Token, place: Token, phase: FilterPhase, text: str) -> None:
    if phase not in _REWRITABLE:
        p.report(token, f"phase {phase} has nothing to rewrite")
    elif phase in ("helo", "ehlo") and not helo_valid(text):
        p.report(place, f'"{text}" is not a host name or an address in brackets')
    elif phase in ("mail-from", "rcpt-to"):
        inner = text.partition(">")[0].removeprefix("<")
        if text.startswith("<") != (">" in text) or (not domain_valid(inner.rpartition("@")[2]) and inner):
            p.report(place, f'"{text}" is not an address such as "<user@example.org>"')


# Chains.


def _chain(p: Parser) -> Chain:
    """`{ a, b }`, as tables are written."""
    members: list[str] = []
    procs: set[str] = set()
    p.expect("{")
    p.skip_newlines()
    while True:
        token = p.peek()
        name = p.string("the name of a filter")
        _member(p, token, name, members, procs)
        members.append(name)
        if p.accept(","):
            p.skip_newlines()
            continue
        ended = p.skip_newlines()
        if p.accept("}"):
            break
        if not ended and p.peek().kind is not Kind.WORD:
            p.unexpected('the name of a filter, a comma or "}"', value=True)
    if len(members) > MAX_MEMBERS:
        p.report(token, f"at most {MAX_MEMBERS} filters in a chain, found {len(members)}")
    return Chain(tuple(members))


def _member(p: Parser, token: Token, name: str, members: list[str], procs: set[str]) -> None:
    found = _known(p, token, name)
    if name in members:
        p.report(token, f'filter "{name}" is already in this chain')
    if found is None:
        return
    match found.body:
        case Chain():
            p.report(token, f'filter "{name}" is a chain, and chains do not nest')
        case Program(proc):
            if proc in procs:
                p.report(token, f'proc "{proc}" is already in this chain')
            procs.add(proc)


def _known(p: Parser, token: Token, name: str) -> Filter | None:
    found = p.draft.filters.get(name)
    if found is None and ("filter", name) not in p.draft.broken:
        named = [known for known in p.draft.filters if not known.startswith("<")]
        p.report(token, f'no filter is declared with the name "{name}"{suggestion(name, named)}')
    return found


def filter_argument(p: Parser) -> str:
    """Of `listen`: the name of a filter, or filters in braces, of which a chain is made; its name."""
    token = p.peek()
    if not p.at("{"):
        name = p.string('the name of a filter or "{"')
        return name if _known(p, token, name) else ""
    name = f"<chain:{sum(known.startswith('<') for known in p.draft.filters) + 1:04}>"
    p.draft.filters[name] = Filter(name, _chain(p), token.where)
    return name


# Programs.


def _at_word(p: Parser, text: str) -> bool:
    """Whether one of our own words comes next, which is not reserved and so needs no quotes elsewhere."""
    token = p.peek()
    return token.kind is Kind.WORD and token.text == text and not token.quoted


def _on_failure(p: Parser) -> bool:
    """`on-failure accept | tempfail`, ours."""
    if not _at_word(p, "on-failure"):
        return False
    p.advance()
    token = p.peek()
    if p.string("accept or tempfail") not in ("accept", "tempfail"):
        p.report(token, f'expected accept or tempfail, found "{token.text}"{suggestion(token.text, _FAILURES)}')
    return token.text == "accept"


def _program(p: Parser) -> str:
    token = p.peek()
    name = p.name("the name of a proc", blanks=True)
    if name not in p.draft.procs and ("proc", name) not in p.draft.broken:
        p.report(token, f'no proc is declared with the name "{name}"{suggestion(name, p.draft.procs)}')
    return name


def proc(p: Parser) -> None:
    """`proc NAME COMMAND [user U] [group G] [chroot D]`."""
    keyword = p.taken
    name = p.name("the name of a proc", blanks=True)
    with p.draft.declaring("proc", name):
        made = _proc(p, name)
    _declare(p, keyword, name, made)


def _declare(p: Parser, place: Token, name: str, made: Proc) -> None:
    known = p.draft.procs.get(name)
    if known is not None:
        p.report(place, f'proc "{name}" is already declared at {known.where.path}:{known.where.line}')
    p.draft.procs.setdefault(name, made)


def _proc(p: Parser, name: str, *, exec_: bool = False) -> Proc:
    where: Where = p.where
    token = p.peek()
    command = p.string("a command", MAX_COMMAND)
    try:
        command_words(command)
    except ValueError as error:
        p.report(token, str(error))
    if not command.isprintable():
        p.report(token, "a command is one line of printable characters")
    given: dict[str, str] = {}
    while p.peek().kind not in (Kind.NEWLINE, Kind.END) and not _at_word(p, "on-failure"):
        option = p.option("a filter program", ("chroot", "group", "user"), frozenset())
        if option.text in given:
            p.report(option, f"{option.text} is already given for this program")
        if option.text == "chroot":
            given["chroot"] = p.path("the directory to chroot to")
        else:
            given[option.text] = p.name(f"the name of a {option.text}")
    return Proc(name, command, given.get("user", ""), given.get("group", ""), given.get("chroot", ""), where, exec_)


def admd(p: Parser) -> None:
    """`admd ID`: what filters call this place in Authentication-Results (RFC 8601 2.5)."""
    keyword = p.taken
    if p.draft.admd:
        p.report(keyword, "admd is already given")
    token = p.peek()
    p.draft.admd = p.name("the administrative domain")
    if not domain_valid(p.draft.admd):
        p.report(token, f'the administrative domain must be a host name: "{token.text}"')
