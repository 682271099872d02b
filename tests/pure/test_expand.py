"""Expansion of recipients, in OpenSMTPD's order and with its answers."""

from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpd_ps.contract.settings import ActionSettings, ConditionSettings, RuleSettings
from smtpd_ps.contract.values import TargetSource
from smtpd_ps.pure.expand import Action, Expander
from smtpd_ps.pure.expand_outcome import INVALID, LIST_FAILED, TEMPORARY, Accepted, Delivery, Needed, Outcome, Refused
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
from smtpd_ps.pure.match_rules import Facts, RuleBook, Source
from smtpd_ps.pure.table import Table

USERS = {"cyrus", "alice", "bob", "carol", "vmail", "john"}


def known(question: Question) -> Answer | None:
    """USERS, none of whom has a .forward; no included file can be read."""
    match question:
        case UserQuestion(user):
            return UserState.FOUND if user in USERS else UserState.ABSENT
        case ForwardQuestion(_, user, account):
            return Forward("none" if user in USERS or account is not None else "absent")
        case IncludeQuestion():
            return Included(None, "cannot be read")


class World:
    """from any: v.org by `virtual`, a.org by `alias`, plain.org plain, r.org relayed; from local: also any."""

    def __init__(
        self,
        virtual: dict[str, str] | None = None,
        alias: dict[str, str] | None = None,
        user: str = "",
        userbase: dict[str, str] | None = None,
        kind: Literal["maildir", "expand-only", "forward-only"] = "maildir",
    ) -> None:
        self.tables = {
            "v": Table("v", "map", virtual or {}),
            "a": Table("a", "map", alias or {}),
            "u": Table("u", "map", userbase or {}),
            **{name: Table(name, "list", {name: ""}) for name in ("v.org", "a.org", "plain.org", "r.org", "no.org")},
        }
        actions = (
            ActionSettings("virtual", "lmtp", virtual_table="v", lmtp_destination="/x"),
            ActionSettings("alias", kind, alias_table="a", user=user),
            ActionSettings("plain", kind, userbase_table="u" if userbase else "", user=user),
            ActionSettings("relay", "relay"),
            ActionSettings("outbound", "relay"),
        )

        def rule(action: str, source: str, domain: str) -> RuleSettings:
            target = ConditionSettings("for-domain", False, domain) if domain else ConditionSettings("for-any")
            return RuleSettings((ConditionSettings(source), target), action, 1)  # type: ignore[arg-type]

        rules = (
            rule("", "from-any", "no.org"),
            rule("virtual", "from-any", "v.org"),
            rule("alias", "from-any", "a.org"),
            rule("plain", "from-any", "plain.org"),
            rule("relay", "from-any", "r.org"),
            rule("outbound", "from-local", ""),
        )
        self.book = RuleBook(rules, self.tables, (), ("localhost",), "+")
        self.expander = Expander({a.name: Action.of(a, self.tables) for a in actions}, "+")

    def expand(self, recipient: str, answers: Known = known) -> Outcome:
        direct = self.book.view(Source("198.51.100.1"))
        inner = self.book.view(Source("198.51.100.1", reinjected=True))
        return self.expander.expand(recipient, Facts("h", False, "s@x.org", "", ""), direct, inner, answers)


def accepted(*deliveries: tuple[str, str, str] | tuple[str, str, str, str, TargetSource, bool]) -> Accepted:
    return Accepted(tuple(Delivery(*delivery) for delivery in deliveries))


def test_relay_keeps_the_address() -> None:
    """A relay gets the address as it was given; no user is looked up."""
    assert World().expand("Some.One+T@R.org") == accepted(("relay", "Some.One+T@R.org", ""))


def test_no_rule_and_reject() -> None:
    """550 Invalid recipient for both (QUIRKS 4)."""
    assert World().expand("x@elsewhere.org") == INVALID == Refused(550, "Invalid recipient")
    assert World().expand("x@no.org") == INVALID


def test_plain_local_user() -> None:
    """Without virtual the local part, lower-cased and without its tag, is the user; dest keeps its case."""
    assert World().expand("Alice+Box@plain.org") == Accepted(
        (Delivery("plain", "Alice+Box@plain.org", "alice", extension="box"),)
    )
    assert World().expand("nobody@plain.org") == INVALID
    assert World().expand("+x@plain.org") == INVALID


def test_user_unsure() -> None:
    """Where the system cannot say whether a user exists: 451."""
    assert World().expand("alice@plain.org", lambda _question: Forward("unsure")) == TEMPORARY
    assert World(user="vmail").expand("alice@plain.org", lambda _question: UserState.UNSURE) == TEMPORARY


VIRTUAL = {
    "john+news@v.org": "alice", "john@v.org": "bob", "mary+x": "carol", "mary": "cyrus",
    "@v.org": "vmail", "@": "error:550 catch all",
}  # fmt: skip


@pytest.mark.parametrize(
    ("recipient", "user"),
    [
        ("john+news@v.org", "alice"),
        ("JOHN+NEWS@V.ORG", "alice"),
        ("john+other@v.org", "bob"),
        ("john@v.org", "bob"),
        ("mary+x@v.org", "carol"),
        ("mary+y@v.org", "cyrus"),
        ("mary@v.org", "cyrus"),
        ("other@v.org", "vmail"),
        ("other+t@v.org", "vmail"),
    ],
)
def test_virtual_order(recipient: str, user: str) -> None:
    """user+tag@domain, user@domain, user+tag, user, @domain, @."""
    assert World(VIRTUAL).expand(recipient) == accepted(("virtual", recipient, user))


def test_virtual_global_catch_all() -> None:
    """`@` is the last resort."""
    assert World({"@": "cyrus"}).expand("any@v.org") == accepted(("virtual", "any@v.org", "cyrus"))


def test_virtual_without_entry() -> None:
    """524, not 550 (QUIRKS 5)."""
    assert World({"x@v.org": "cyrus"}).expand("y@v.org") == LIST_FAILED
    assert Refused(524, "5.2.4 Mailing list expansion problem") == LIST_FAILED


def test_virtual_user_must_exist() -> None:
    """A virtual value that is no system user: 550."""
    assert World({"x@v.org": "ghost"}).expand("x@v.org") == INVALID


def test_virtual_value_is_looked_up_again_by_name() -> None:
    """A user name that a virtual table gives is expanded by it once more; no catch-all then."""
    world = World({"x@v.org": "john", "john": "cyrus", "@v.org": "vmail", "@": "vmail"})
    assert world.expand("x@v.org") == accepted(("virtual", "x@v.org", "cyrus"))
    assert World({"x@v.org": "john", "@": "vmail"}).expand("x@v.org") == accepted(("virtual", "x@v.org", "john"))


def test_virtual_to_address_is_matched_again_as_local() -> None:
    """A value that is an address goes through the rules as local mail; dest is that address."""
    world = World({"x@v.org": "Far@away.net, y@v.org, alice", "y@v.org": "bob"})
    assert world.expand("x@v.org") == accepted(
        ("outbound", "Far@away.net", "", "", "", True), ("virtual", "x@v.org", "alice"), ("virtual", "y@v.org", "bob")
    )
    assert World({"x@v.org": "z@no.org"}).expand("x@v.org") == INVALID


def test_alias_order_and_values() -> None:
    """user+tag, then user; a value may be several."""
    world = World(alias={"root+x": "carol", "root": "alice, bob@r.org"})
    assert world.expand("Root+X@a.org") == accepted(("alias", "Root+X@a.org", "carol"))
    assert world.expand("root+y@a.org") == accepted(
        ("alias", "root+y@a.org", "alice"), ("relay", "bob@r.org", "", "", "", True)
    )
    assert world.expand("alice@a.org") == accepted(("alias", "alice@a.org", "alice"))


def test_self_reference_is_local_delivery() -> None:
    """A user that expands to itself is not expanded again."""
    world = World(alias={"alice": "alice, bob@r.org"})
    outcome = world.expand("alice@a.org")
    assert isinstance(outcome, Accepted)
    assert set(outcome.deliveries) == {
        Delivery("relay", "bob@r.org", "", forwarded=True), Delivery("alias", "alice@a.org", "alice"),
    }  # fmt: skip


def test_loop_of_users() -> None:
    """Users that expand to each other end in an empty list: 524 5.2.4."""
    assert World(alias={"alice": "bob", "bob": "alice"}).expand("alice@a.org") == LIST_FAILED
    assert World(alias={"alice": "bob", "bob": "alice, carol"}).expand("alice@a.org") == accepted(
        ("alias", "alice@a.org", "carol")
    )


def test_loop_of_addresses() -> None:
    """Addresses that expand to each other are too deep: 524 5.2.4."""
    assert World({"x@v.org": "y@v.org", "y@v.org": "x@v.org"}).expand("x@v.org") == LIST_FAILED


@pytest.mark.parametrize(("steps", "ok"), [(8, True), (9, False)])
def test_depth(steps: int, ok: bool) -> None:
    """Ten levels, the recipient and the final user included."""
    table = {f"a{n}@v.org": f"a{n + 1}@v.org" for n in range(steps)}
    outcome = World({**table, f"a{steps}@v.org": "cyrus"}).expand("a0@v.org")
    assert outcome == (accepted(("virtual", f"a{steps}@v.org", "cyrus")) if ok else LIST_FAILED)


def test_duplicates_collapse() -> None:
    """One copy a user, on whatever level lists name it; users have no case."""
    once = World(alias={"team": "alice, bob, alice"}).expand("team@a.org")
    assert once == accepted(("alias", "team@a.org", "alice"), ("alias", "team@a.org", "bob"))
    twice = World(alias={"team": "alice, more", "more": "ALICE, bob"}).expand("team@a.org")
    assert isinstance(twice, Accepted)
    assert [d.user for d in twice.deliveries] == ["alice", "bob"]
    relayed = World(alias={"team": "x, y", "x": "e@r.org", "y": "e@r.org"}).expand("team@a.org")
    assert relayed == accepted(("relay", "e@r.org", "", "", "", True))


def test_error_targets() -> None:
    """error:NNN text is the reply."""
    world = World(alias={"gone": "error:550 5.1.1 moved", "busy": "error:450 try later"})
    assert world.expand("gone@a.org") == Refused(550, "5.1.1 moved")
    assert world.expand("busy@a.org") == Refused(450, "try later")


def test_malformed_value() -> None:
    """424 4.2.4, and the log says which entry."""
    outcome = World(alias={"x": "a b"}).expand("x@a.org")
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.text) == (424, "4.2.4 Mailing list expansion problem")
    assert "<x>" in outcome.why


def test_fixed_user() -> None:
    """With `user N` the recipient must exist all the same, and LMTP servers and commands hear the recipient's name."""
    world = World(user="vmail")
    assert world.expand("alice@plain.org") == accepted(("plain", "alice@plain.org", "alice"))
    assert world.expand("ghost@plain.org") == INVALID


def test_users_are_asked_for_all_at_once() -> None:
    """An expansion names all users it does not know, and ends the same when they are."""
    world = World(alias={"team": "alice, ghost, bob"})
    unknown = world.expand("team@a.org", lambda _question: None)
    asked = (ForwardQuestion("", user) for user in ("alice", "ghost", "bob"))
    assert unknown == Needed(frozenset(asked))
    assert world.expand("team@a.org") == INVALID


def test_an_earlier_unknown_user_comes_before_a_later_error() -> None:
    """The first fault in order decides, even where a user must be asked for first."""
    world = World(alias={"team": "ghost, error"})
    world.tables["a"].entries["error"] = "error:450 no"  # type: ignore[index]
    assert world.expand("team@a.org", lambda _question: None) == Needed(frozenset({ForwardQuestion("", "ghost")}))
    assert world.expand("team@a.org") == INVALID


names = st.sampled_from(["a", "b", "c", "alice", "a@v.org", "b@v.org", "c@r.org", "d@a.org"])


@settings(max_examples=200)
@given(st.dictionaries(names, st.lists(names, min_size=1, max_size=4).map(", ".join), max_size=8))
def test_any_graph_ends(table: dict[str, str]) -> None:
    """Whatever the tables say, an expansion ends and its deliveries are bounded."""
    world = World(virtual=table, alias=table)
    for recipient in ("a@v.org", "a@a.org", "alice@plain.org"):
        outcome = world.expand(recipient, lambda _question: Forward("none"))
        assert isinstance(outcome, (Accepted, Refused))
        if isinstance(outcome, Accepted):
            assert 1 <= len(outcome.deliveries) <= 1000
