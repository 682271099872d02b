"""Expansion of a recipient: rules, virtual and alias tables, local users, down to deliveries.

Runs in lookup; the recipient is a stranger's, the tables are the operator's. The order of
lookups, the limits and the answers are OpenSMTPD's (FEATURES A1, A4; QUIRKS 4, 5, 26, 31).
Whether a local user exists is asked of the parent, so an expansion can end in `UsersNeeded`; it
is then run again, from the start, once the answers are there.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from smtpd_ps.contract.settings import ActionSettings, RuleSettings
from smtpd_ps.pure.address import split
from smtpd_ps.pure.expand_targets import Target, TargetError, parse_targets
from smtpd_ps.pure.match_rules import UNSURE, Facts
from smtpd_ps.pure.table import Table

MAX_DEPTH = 10
MAX_NODES = 10_000
MAX_DELIVERIES = 1000  # what one RcptAccept holds


class UserState(Enum):
    """What is known of a local user."""

    FOUND = 1
    ABSENT = 2
    UNSURE = 3  # the system could not say
    UNKNOWN = 4  # not asked yet


@dataclass(frozen=True, slots=True)
class Delivery:
    """One envelope to be: the action, its destination address, and the local user ("" for a relay)."""

    action: str
    dest: str
    user: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """The recipient is taken."""

    deliveries: tuple[Delivery, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """It is not. `why` is for the log where the operator should hear of it, else ""."""

    code: int
    text: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class UsersNeeded:
    """Ask whether these users exist, and expand again."""

    users: frozenset[str]


Outcome = Accepted | Refused | UsersNeeded

INVALID = Refused(550, "Invalid recipient")
TEMPORARY = Refused(451, "Temporary failure")
NAME_UNKNOWN = Refused(451, "Temporary failure in looking up the name of your host")
LIST_FAILED = Refused(524, "5.2.4 Mailing list expansion problem")


def _list_unsure(why: str) -> Refused:
    return Refused(424, "4.2.4 Mailing list expansion problem", why)


@dataclass(frozen=True, slots=True)
class Action:
    """What expansion must know of an action."""

    name: str
    relay: bool
    alias: Table | None
    virtual: Table | None
    fixed_user: str  # deliver as this user, "" as the recipient

    @classmethod
    def of(cls, settings: ActionSettings, tables: Mapping[str, Table]) -> "Action":
        """The action of these settings. Raises KeyError for a table that is not there."""
        return cls(
            settings.name,
            settings.kind == "relay",
            tables[settings.alias_table] if settings.alias_table else None,
            tables[settings.virtual_table] if settings.virtual_table else None,
            # An LMTP server is told the recipient's name whoever delivers (QUIRKS 26).
            settings.user if settings.kind != "lmtp" else "",
        )


class Rules(Protocol):
    """The match rules of one client (match_rules.View)."""

    def match(self, facts: Facts) -> RuleSettings | None:
        """The first rule that matches, or None."""


class Node:
    """An address or user to expand, and where it came from."""

    __slots__ = ("action", "address", "depth", "kind", "parent", "same_user", "text")

    def __init__(self, target: Target, parent: "Node | None", action: Action | None) -> None:
        self.kind = target.kind
        self.text = target.text
        self.parent = parent
        self.action = action  # that the rules chose for the address above
        self.depth: int = parent.depth + 1 if parent else 0
        self.same_user: bool = (
            parent is not None and self.kind == "user" == parent.kind and parent.text == self.text
        )  # fmt: skip
        # The nearest address at or above this node: what Delivered-To will say.
        self.address: Node = self if self.kind == "address" or parent is None else parent.address


class Expander:
    """Expands recipients with one configuration's actions."""

    def __init__(self, actions: Mapping[str, Action], delimiter: str) -> None:
        self.actions = actions
        self.delimiter = delimiter

    def expand(
        self, recipient: str, facts: Facts, direct: Rules, reinjected: Rules, users: Callable[[str], UserState]
    ) -> Outcome:
        """Where mail for `recipient` goes.

        `direct` are the rules for the client, `reinjected` those for the addresses that tables
        give. `facts` says who sends; its recipient and domain are set here.
        """
        run = Run(self.actions, self.delimiter, facts, direct, reinjected, users)
        return run.run(recipient)


class Run:
    """One expansion. pure/expand_trace follows it by overriding its steps."""

    __slots__ = (
        "_actions", "_delimiter", "_deliveries", "_direct", "_facts", "_missing", "_nodes", "_queue",
        "_reinjected", "_seen", "_users",
    )  # fmt: skip

    def __init__(
        self,
        actions: Mapping[str, Action],
        delimiter: str,
        facts: Facts,
        direct: Rules,
        reinjected: Rules,
        users: Callable[[str], UserState],
    ) -> None:
        self._actions, self._delimiter = actions, delimiter
        self._facts, self._direct, self._reinjected = facts, direct, reinjected
        self._users = users
        self._queue: deque[Node] = deque()
        self._seen: set[tuple[str, str, bool, Node | None]] = set()
        self._nodes = 0
        self._deliveries: list[Delivery] = []
        self._missing: set[str] = set()

    def run(self, recipient: str) -> Outcome:
        """Where mail for `recipient` goes."""
        self._insert(Target("address", recipient), None, None)
        while self._queue:
            node = self._queue.popleft()
            refused = self._expand(node)
            if refused is not None:
                # What OpenSMTPD would have heard of a user before it got here comes first.
                return UsersNeeded(frozenset(self._missing)) if self._missing else refused
        if self._missing:
            return UsersNeeded(frozenset(self._missing))
        if not self._deliveries or len(self._deliveries) > MAX_DELIVERIES:
            return LIST_FAILED
        return Accepted(tuple(self._deliveries))

    def _insert(self, target: Target, parent: Node | None, action: Action | None) -> None:
        """Queue a target unless the same one is there already for the same address."""
        node = Node(target, parent, action)
        key = self._key(node)
        if key not in self._seen:
            self._seen.add(key)
            self._nodes += 1
            self._queue.append(node)

    @staticmethod
    def _key(node: Node) -> tuple[str, str, bool, Node | None]:
        return (node.kind, node.text, node.same_user, node.parent.address if node.parent else None)

    def _expand(self, node: Node) -> Refused | None:
        if node.depth >= MAX_DEPTH or self._nodes > MAX_NODES:
            return LIST_FAILED
        match node.kind:
            case "address":
                return self._expand_address(node)
            case "user":
                return self._expand_user(node)
            case "error":
                return Refused(int(node.text[:3]), node.text[4:])
            case "file" | "command" | "include":
                why = f"{node.kind} in the expansion of <{node.address.text}> is not supported yet: {node.text}"
                return Refused(TEMPORARY.code, TEMPORARY.text, why)

    def _expand_address(self, node: Node) -> Refused | None:
        local, domain = split(node.text)
        facts = self._facts
        facts.recipient, facts.domain = node.text.lower(), domain.lower()
        rule = (self._reinjected if node.parent else self._direct).match(facts)
        if rule is None or not rule.action:
            return NAME_UNKNOWN if rule is UNSURE else INVALID
        action = self._actions[rule.action]
        if action.relay:
            self._deliveries.append(Delivery(action.name, node.text, ""))
            return None
        if action.virtual is not None:
            value = self._virtual(action.virtual, local, domain)
            if value is None:
                return LIST_FAILED  # a virtual domain without the entry (QUIRKS 5)
            return self._insert_targets(value, node, action)
        self._insert(Target("user", local.lower()), node, action)
        return None

    def _expand_user(self, node: Node) -> Refused | None:
        action = node.action
        assert action is not None  # only a rule's action makes users
        if not node.same_user:
            value = None
            if action.alias is not None:
                value = self._alias(action.alias, node.text)
            elif action.virtual is not None:
                value = self._virtual(action.virtual, node.text, "")
            if value is not None:
                return self._insert_targets(value, node, action)
        user = node.text.partition(self._delimiter)[0]
        match self._users(user) if user else UserState.ABSENT:
            case UserState.ABSENT:
                return INVALID
            case UserState.UNSURE:
                return TEMPORARY
            case UserState.UNKNOWN:
                self._missing.add(user)
            case UserState.FOUND:
                pass
        # Duplicates collapse within one level only: a user already served may be named again by
        # a deeper list (QUIRKS 31).
        self._seen.discard(self._key(node))
        self._deliveries.append(Delivery(action.name, node.address.text, action.fixed_user or user))
        return None

    def _insert_targets(self, value: str, node: Node, action: Action) -> Refused | None:
        try:
            targets = parse_targets(value)
        except TargetError as error:
            return _list_unsure(f"the table entry for <{node.text}> of action {action.name}: {error}")
        if not targets:
            return LIST_FAILED
        for target in targets:
            self._insert(target, node, action)
        return None

    def _alias(self, table: Table, user: str) -> str | None:
        """user+tag, then user."""
        user = user.lower()
        bare, tag, _ = user.partition(self._delimiter)
        value = table.get(user) if tag else None
        return table.get(bare) if value is None else value

    def _virtual(self, table: Table, local: str, domain: str) -> str | None:
        """user+tag@domain, user@domain, user+tag, user, @domain, @ (smtpd.conf(5), virtual)."""
        local, domain = local.lower(), domain.lower()
        get = table.entries.get
        bare, _, tag = local.partition(self._delimiter)
        if tag and (value := get(f"{local}@{domain}")) is not None:
            return value
        if (value := get(f"{bare}@{domain}")) is not None:
            return value
        if tag and (value := get(local)) is not None:
            return value
        if (value := get(bare)) is not None:
            return value
        if not domain:
            return None  # no catch-all for a user name
        value = get(f"@{domain}")
        return get("@") if value is None else value
