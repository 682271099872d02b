"""What is legal in smtpd.conf and probably not meant: warnings about the whole configuration.

Runs in the parent and in `smtpd_ps -n`. A warning is given where it is certain: a rule that is
said to be never reached never is.
"""

from collections.abc import Iterator
from ipaddress import ip_address
from itertools import combinations

from smtpd_ps.config.draft import Draft
from smtpd_ps.config.model import Condition, Listener, Relay, Rule, Where

MAX_COMPARED = 8  # conditions of a rule whose every subset is looked for

_SAME = {"from-auth": "auth", "for-rcpt-to": "rcpt-to"}  # two words for one condition
_ALWAYS = ("from-any", "for-any")
_FORGED = ("mail-from", "helo", "tls")  # what any client may say or do
# What a rule looks at: the condition, negated or not, whether by patterns, and the values.
_Fact = tuple[str, bool, bool, str | frozenset[tuple[str, str]]]


def find_dangers(draft: Draft) -> Iterator[tuple[Where, str]]:
    """Places and texts of the warnings."""
    used = {rule.action for rule in draft.rules}
    for action in draft.actions.values():
        if action.name not in used:
            yield action.where, f'action "{action.name}" is never used'
    yield from _never_reached(draft)
    yield from _open_relays(draft)
    yield from _listeners(draft)


def _facts(draft: Draft, rule: Rule) -> frozenset[_Fact]:
    """The conditions of a rule that do not always hold."""
    return frozenset(
        (_SAME.get(each.kind, each.kind), each.negated, each.regex, _values(draft, each))
        for each in rule.conditions
        if each.negated or each.kind not in _ALWAYS
    )


def _values(draft: Draft, condition: Condition) -> str | frozenset[tuple[str, str]]:
    """The name of a table, or what was written in its place."""
    table = draft.tables.get(condition.table)
    if table is None or not table.name.startswith("<"):
        return condition.table
    return frozenset((key.lower(), value) for key, value in table.entries)


def _never_reached(draft: Draft) -> Iterator[tuple[Where, str]]:
    """Rules behind one that takes all that they would take."""
    seen: dict[frozenset[_Fact], int] = {}
    for number, rule in enumerate(draft.rules):
        facts = _facts(draft, rule)
        sizes = range(len(facts) + 1) if len(facts) <= MAX_COMPARED else (0, len(facts))
        wider = (frozenset(some) for size in sizes for some in combinations(facts, size))
        earlier = [seen[some] for some in wider if some in seen]
        if earlier:
            first = draft.rules[min(earlier)].where
            at = f"{first.path}:{first.line}"
            yield rule.where, f"this rule is never reached: the one at {at} takes all that it would take"
        else:
            seen[facts] = number


def _open_relays(draft: Draft) -> Iterator[tuple[Where, str]]:
    """Rules by which anyone at all may send to anyone."""
    if not any(_is_open(draft, at) for at in range(len(draft.listeners))):
        return
    for rule in draft.rules:
        if not rule.action and any(each.kind in ("auth", "from-auth") for each in rule.conditions):
            return  # who has not authenticated may have been refused already
        action = draft.actions.get(rule.action)
        if action is None or not isinstance(action.method, Relay):
            continue
        kinds = {each.kind for each in rule.conditions if not each.negated}
        if set(_ALWAYS) <= kinds and all(each.kind in (*_ALWAYS, *_FORGED) for each in rule.conditions):
            yield rule.where, "this rule relays mail of anyone to anyone (an open relay); it should ask for auth"


def _listeners(draft: Draft) -> Iterator[tuple[Where, str]]:
    """Listeners that believe too much, or that mail servers of the world cannot use."""
    relays = (action.method for action in draft.actions.values() if isinstance(action.method, Relay))
    named = {*(listener.ca for listener in draft.listeners), *(relay.ca for relay in relays)}
    for authority in draft.authorities.values():
        if authority.name not in named:
            yield authority.where, f'ca "{authority.name}" is never used'
    for listener in draft.listeners:
        for word in _without_effect(listener):
            yield listener.where, word
        outside = any(not ip_address(each).is_loopback for each in listener.addresses)
        if listener.proxy and not listener.proxies and outside:
            yield (
                listener.where,
                (
                    "proxy-v2 believes whoever connects, who can so pretend to be any client; "
                    "say who may with: proxy-v2 from { addresses }"
                ),
            )
        if listener.verify and listener.port == 25 and outside:
            yield listener.where, "verify on port 25 turns away servers without a client certificate: nearly all"


def _without_effect(listener: Listener) -> Iterator[str]:
    """What OpenSMTPD takes in silence, and what does nothing."""
    if listener.ca and not listener.verify:
        yield "ca has no effect without verify"
    if listener.tls == "none":
        for word, given in (("protocols", listener.protocols), ("ciphers", listener.ciphers)):
            if given:
                yield f"{word} has no effect without tls, tls-require or smtps"
    if listener.auth == "none":
        for word, told in (("senders", listener.senders), ("received-auth", listener.received_auth)):
            if told:
                yield f"{word} has no effect without auth"


def _is_open(draft: Draft, at: int) -> bool:
    """Whether others than this host may send to the listener without a password."""
    listener = draft.listeners[at]
    return listener.auth != "require" and any(not ip_address(each).is_loopback for each in listener.addresses)
