"""Expansion of a recipient: rules, virtual and alias tables, .forward files, down to deliveries.

Runs in lookup; the recipient is a stranger's, the tables are the operator's, a .forward is any user's.
The order of lookups, the limits and the answers are OpenSMTPD's (FEATURES A1, A4; QUIRKS 4, 5, 26,
31, 32). What must be asked of others (pure/expand_questions) makes an expansion end in `Needed`; it is
then run again, from the start, once the answers are there.
"""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, assert_never

from smtpd_ps.contract.installation import ALIAS_USER
from smtpd_ps.contract.settings import ActionKind, ActionSettings, RuleSettings
from smtpd_ps.contract.values import Account, TargetSource
from smtpd_ps.pure.address import split
from smtpd_ps.pure.expand_outcome import (
    INVALID,
    LIST_FAILED,
    LIST_UNSURE,
    NAME_UNKNOWN,
    TEMPORARY,
    Accepted,
    Delivery,
    Needed,
    Outcome,
    Refused,
    list_unsure,
    temporary,
)
from smtpd_ps.pure.expand_questions import (
    Forward,
    ForwardQuestion,
    Included,
    IncludeQuestion,
    Known,
    Question,
    UserQuestion,
    UserState,
)
from smtpd_ps.pure.expand_targets import Target, TargetError, TargetKind, parse_targets
from smtpd_ps.pure.match_rules import UNSURE, Facts
from smtpd_ps.pure.table import Table
from smtpd_ps.pure.table_program import AnswersNeeded, TableQuestion
from smtpd_ps.pure.table_values import parse_userinfo

MAX_DEPTH = 10
MAX_NODES = 10_000
MAX_DELIVERIES = 1000  # what one RcptAccept holds


@dataclass(frozen=True, slots=True)
class Action:
    """What expansion must know of an action."""

    name: str
    kind: ActionKind
    alias: Table | None
    virtual: Table | None
    userbase: Table | None  # None: users are the system's
    user: str  # the one who delivers, whoever is addressed; "" the recipient

    @classmethod
    def of(cls, settings: ActionSettings, tables: Mapping[str, Table]) -> "Action":
        """The action of these settings. Raises KeyError for a table that is not there."""
        return cls(
            settings.name,
            settings.kind,
            tables[settings.alias_table].serving("alias") if settings.alias_table else None,
            tables[settings.virtual_table].serving("alias") if settings.virtual_table else None,
            tables[settings.userbase_table].serving("userinfo") if settings.userbase_table else None,
            settings.user,
        )


class Rules(Protocol):
    """The match rules of one client (match_rules.View)."""

    def match(self, facts: Facts) -> RuleSettings | None:
        """The first rule that matches, or None."""


class Node:
    """An address, user or other target to expand, and where it came from."""

    __slots__ = (
        "action", "address", "depth", "forwards", "kind", "name", "parent", "real", "same_user", "superuser", "text",
    )  # fmt: skip

    def __init__(self, target: Target, parent: "Node | None", action: Action | None) -> None:
        self.kind: TargetKind = target.kind
        self.text = target.text
        self.name = target.text  # of a user; without its tag once it is known to exist
        self.parent = parent
        self.action = action  # that the rules chose for the address above
        self.real = False  # a user who exists
        self.superuser = False  # one with uid 0
        self.forwards = False  # what is below it comes from the user's .forward
        self.depth: int = parent.depth + 1 if parent else 0
        self.same_user: bool = (
            parent is not None and self.kind == "user" == parent.kind and parent.name.lower() == self.text.lower()
        )  # fmt: skip
        # The nearest address at or above this node: what Delivered-To will say.
        self.address: Node = self if self.kind == "address" or parent is None else parent.address


_Key = tuple[TargetKind, str, bool, Node | None, Node | None]


class Expander:
    """Expands recipients with one configuration's actions."""

    def __init__(self, actions: Mapping[str, Action], delimiter: str) -> None:
        self.actions = actions
        self.delimiter = delimiter

    def expand(self, recipient: str, facts: Facts, direct: Rules, reinjected: Rules, known: Known) -> Outcome:
        """Where mail for `recipient` goes.

        `direct` are the rules for the client, `reinjected` those for the addresses that tables and
        .forward files give. `facts` says who sends; its recipient and domain are set here.
        """
        return Run(self.actions, self.delimiter, facts, direct, reinjected, known).run(recipient)


class Run:
    """One expansion. pure/expand_trace follows it by overriding its steps."""

    __slots__ = (
        "_actions", "_delimiter", "_deliveries", "_direct", "_facts", "_known", "_missing", "_nodes", "_queue",
        "_reinjected", "_seen", "_unanswered",
    )  # fmt: skip

    def __init__(
        self,
        actions: Mapping[str, Action],
        delimiter: str,
        facts: Facts,
        direct: Rules,
        reinjected: Rules,
        known: Known,
    ) -> None:
        self._actions, self._delimiter = actions, delimiter
        self._facts, self._direct, self._reinjected = facts, direct, reinjected
        self._known = known
        self._queue: deque[Node] = deque()
        self._seen: set[_Key] = set()
        self._nodes = 0
        self._deliveries: list[Delivery] = []
        self._missing: set[Question] = set()
        self._unanswered: set[TableQuestion] = set()

    def run(self, recipient: str) -> Outcome:
        """Where mail for `recipient` goes."""
        self._insert(Target("address", recipient), None, None)
        while self._queue:
            node = self._queue.popleft()
            try:
                refused = self._expand(node)
            except AnswersNeeded as needed:
                self._unanswered |= needed.questions  # and those of the other nodes, to ask all at once
                continue
            if refused is not None and not self._unanswered:
                # What OpenSMTPD would have heard of a user before it got here comes first.
                return Needed(frozenset(self._missing)) if self._missing else refused
            if refused is not None or len(self._deliveries) > MAX_DELIVERIES:
                break
        if self._unanswered:
            raise AnswersNeeded(frozenset(self._unanswered))
        if self._missing:
            return Needed(frozenset(self._missing))
        if not self._deliveries or len(self._deliveries) > MAX_DELIVERIES:
            return LIST_FAILED
        return Accepted(tuple(dict.fromkeys(self._deliveries)))

    def _insert(self, target: Target, parent: Node | None, action: Action | None) -> bool:
        """Queue a target unless the same one is there already for the same address. Whether it was not."""
        node = Node(target, parent, action)
        key = self._key(node)
        if key in self._seen:
            return False
        self._seen.add(key)
        self._nodes += 1
        self._queue.append(node)
        return True

    @staticmethod
    def _key(node: Node) -> _Key:
        """Files and commands of different users are different ones."""
        owner = None
        if node.kind in ("file", "command"):
            owner = node.parent
            while owner is not None and owner.kind != "user":
                owner = owner.parent
        return (node.kind, node.text, node.same_user, node.parent.address if node.parent else None, owner)

    def _expand(self, node: Node) -> Refused | None:
        if node.depth >= MAX_DEPTH or self._nodes > MAX_NODES:
            return LIST_FAILED
        match node.kind:
            case "address":
                return self._expand_address(node)
            case "user":
                return self._expand_user(node)
            case "error":
                return TEMPORARY if _forward_only(node) else Refused(int(node.text[:3]), node.text[4:])
            case "file" | "command":
                return self._expand_program(node)
            case "include":
                raise AssertionError("an included file is no node")
            case never:
                assert_never(never)

    def _expand_address(self, node: Node) -> Refused | None:
        local, domain = split(node.text)
        facts = self._facts
        facts.recipient, facts.domain = node.text.lower(), domain.lower()
        rule = (self._reinjected if node.parent else self._direct).match(facts)
        if rule is None or not rule.action:
            return NAME_UNKNOWN if rule is UNSURE else INVALID
        action = self._actions[rule.action]
        if action.kind == "relay":
            self._deliveries.append(Delivery(action.name, node.text, "", forwarded=node.parent is not None))
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
        user = node.text.partition(self._delimiter)[0].lower()  # as every key that is looked up
        if not user:
            return INVALID
        account = None
        if action.userbase is not None:
            try:
                account = self._userbase(action.userbase, user)
            except ValueError as error:
                return temporary(f"table {action.userbase.name}, user {user}: {error}")
            if account is None:
                return INVALID
        own_name = node.same_user and node.parent is not None and node.parent.forwards
        if own_name or (action.user and action.user != user):  # neither has a .forward to look at
            return self._exists(user, account) or self._deliver_user(node, action, user)
        return self._expand_forward(node, action, ForwardQuestion(action.name if account else "", user, account))

    def _exists(self, user: str, account: Account | None) -> Refused | None:
        if account is not None:
            return None
        question = UserQuestion(user)
        answer = self._known(question)
        assert answer is None or isinstance(answer, UserState)
        match answer:
            case UserState.FOUND:
                pass
            case UserState.ABSENT:
                return INVALID
            case UserState.UNSURE:
                return TEMPORARY
            case None:
                self._missing.add(question)
        return None

    def _expand_forward(self, node: Node, action: Action, question: ForwardQuestion) -> Refused | None:
        answer = self._known(question)
        if answer is None:
            self._missing.add(question)
            return self._deliver_user(node, action, question.user)  # until we know
        assert isinstance(answer, Forward)
        match answer.state:
            case "absent":
                return INVALID
            case "unsure":
                return TEMPORARY
            case "temporary":
                return list_unsure(answer.why)
            case "refused":
                return Refused(LIST_FAILED.code, LIST_FAILED.text, answer.why)
            case "none":
                return self._deliver_user(node, action, question.user)
            case "found":
                self._seen.discard(self._key(node))  # as in _deliver_user
                node.name, node.real, node.superuser, node.forwards = question.user, True, answer.superuser, True
                if any([self._insert(target, node, action) for target in answer.targets]):
                    return None
                return self._deliver_user(node, action, question.user)  # it says nothing new
            case never:
                assert_never(never)

    def _deliver_user(self, node: Node, action: Action, user: str) -> Refused | None:
        # A deeper list may name the user again, and a loop of .forward files does: it must be found.
        self._seen.discard(self._key(node))
        if action.kind == "expand-only":
            return LIST_FAILED
        if action.kind == "forward-only":
            return LIST_UNSURE
        extension = node.text.partition(self._delimiter)[2].lower()
        # The recipient's name, whoever delivers: an LMTP server and a command are told it (QUIRKS 26).
        self._deliveries.append(Delivery(action.name, node.address.text, user, extension=extension))
        return None

    def _expand_program(self, node: Node) -> Refused | None:
        """A file or a command: its user's where a .forward names it, else the one of all aliases."""
        action, owner = node.action, node.parent
        assert action is not None and owner is not None  # only tables and .forward files name any
        if _forward_only(node):
            return TEMPORARY
        if owner.superuser:
            return temporary(f"root's .forward may not name a {node.kind}: {node.text}")
        user = owner.name if owner.real else ALIAS_USER
        source: TargetSource = "forward" if owner.real else "alias"
        target = f"|{node.text}" if node.kind == "command" else node.text
        self._deliveries.append(Delivery(action.name, node.address.text, user, target, source))
        return None

    def _insert_targets(self, value: str, node: Node, action: Action) -> Refused | None:
        try:
            targets = parse_targets(value)
        except TargetError as error:
            return list_unsure(f"the table entry for <{node.text}> of action {action.name}: {error}")
        if not targets:
            return LIST_FAILED
        for target in targets:
            if target.kind == "include":
                refused = self._include(target.text, node, action)
                if refused is not None:
                    return refused
            else:
                self._insert(target, node, action)
        return None

    def _include(self, path: str, node: Node, action: Action) -> Refused | None:
        """What the file names is of the same level as what stands beside its name."""
        question = IncludeQuestion(path)
        answer = self._known(question)
        if answer is None:
            self._missing.add(question)
            return None
        assert isinstance(answer, Included)
        if answer.targets is None:
            return list_unsure(f"the table entry for <{node.text}> of action {action.name}: {answer.why}")
        for target in answer.targets:
            self._insert(target, node, action)
        return None

    def _userbase(self, table: Table, user: str) -> Account | None:
        """Who that is, None if nobody. Raises ValueError."""
        return account_in(table, user)

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


def account_in(userbase: Table, user: str) -> Account | None:
    """Who a user of a userbase is, None if nobody. Raises ValueError where the entry is none."""
    value = userbase.get(user)
    if value is None:
        return None
    found = parse_userinfo(value)
    return Account(found.uid, found.gid, found.home)


def _forward_only(node: Node) -> bool:
    return node.action is not None and node.action.kind == "forward-only"
