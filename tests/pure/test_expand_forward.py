""".forward files, included files, userbases and the programs they name, in an expansion."""

from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_expand import World, accepted, known

from smtpd_ps.contract.values import Account
from smtpd_ps.pure.expand import MAX_DELIVERIES, MAX_NODES
from smtpd_ps.pure.expand_files import parse_forward
from smtpd_ps.pure.expand_outcome import (
    INVALID,
    LIST_FAILED,
    LIST_UNSURE,
    TEMPORARY,
    Accepted,
    Delivery,
    Needed,
    Outcome,
    Refused,
)
from smtpd_ps.pure.expand_questions import (
    Answer,
    Forward,
    ForwardQuestion,
    Included,
    IncludeQuestion,
    Question,
    UserQuestion,
    UserState,
)
from smtpd_ps.pure.expand_targets import Target, parse_targets


def expand(
    world: World, recipient: str, forwards: dict[str, str] | None = None, includes: dict[str, str] | None = None
) -> Outcome:
    """With these .forward files; root's belongs to uid 0."""

    def answer(question: Question) -> Answer | None:
        match question:
            case ForwardQuestion(_, user) if user in (forwards or {}):
                found = parse_forward((forwards or {})[user].encode())
                return Forward("found" if found.targets else "none", found.targets, user == "root")
            case IncludeQuestion(path) if path in (includes or {}):
                return Included(parse_targets((includes or {})[path]))
        return known(question)

    return world.expand(recipient, answer)


def users(outcome: Outcome) -> list[str]:
    assert isinstance(outcome, Accepted), outcome
    return [each.user or each.dest for each in outcome.deliveries]


def test_to_an_address() -> None:
    """It is matched as local mail, and leaves as forwarded."""
    outcome = expand(World(), "alice@plain.org", {"alice": "far@away.net\n"})
    assert outcome == accepted(("outbound", "far@away.net", "", "", "", True))


@pytest.mark.parametrize("text", ["alice", "\\alice", "Alice", "alice, alice", "# keep a copy\nalice\n"])
def test_own_name_is_local_delivery(text: str) -> None:
    """A user who names herself gets the mail herself, and the file is not read again (QUIRKS 32)."""
    assert expand(World(), "alice+tag@plain.org", {"alice": text}) == accepted(
        ("plain", "alice+tag@plain.org", "alice")
    )


def test_a_copy_for_herself() -> None:
    """Own name and an address: both."""
    outcome = expand(World(), "alice@plain.org", {"alice": "\\alice\nfar@away.net"})
    assert sorted(users(outcome)) == ["alice", "far@away.net"]


def test_own_address_is_a_loop() -> None:
    """524 (QUIRKS 32)."""
    assert expand(World(), "alice@plain.org", {"alice": "alice@plain.org"}) == LIST_FAILED


def test_another_user_has_aliases_and_a_forward_too() -> None:
    """Another local user is looked up by the same action: aliases, existence, .forward."""
    world = World(alias={"team": "bob, carol"})
    assert users(expand(world, "alice@a.org", {"alice": "team", "bob": "vmail"})) == ["carol", "vmail"]
    assert expand(world, "alice@a.org", {"alice": "ghost"}) == INVALID


def test_users_who_forward_to_each_other() -> None:
    """Too deep: 524."""
    assert expand(World(), "alice@plain.org", {"alice": "bob", "bob": "alice"}) == LIST_FAILED


def test_a_file_that_says_nothing_new() -> None:
    """Nothing but comments, or what is being delivered to anyway, means the mailbox."""
    assert users(expand(World(), "alice@plain.org", {"alice": "# nothing\n\n"})) == ["alice"]
    assert users(expand(World(alias={"team": "alice, bob"}), "team@a.org", {"alice": "bob"})) == ["alice", "bob"]
    assert users(expand(World(alias={"team": "bob, alice"}), "team@a.org", {"alice": "bob"})) == ["bob"]


def test_programs_of_a_user() -> None:
    """Files and commands of a .forward are the user's."""
    outcome = expand(World(), "alice@plain.org", {"alice": '"|/bin/vacation -a, alice"\n/home/alice/box'})
    assert outcome == accepted(
        ("plain", "alice@plain.org", "alice", "|/bin/vacation -a, alice", "forward", False),
        ("plain", "alice@plain.org", "alice", "/home/alice/box", "forward", False),
    )


def test_programs_of_an_alias() -> None:
    """Files and commands of an alias are those of one user who owns nothing (QUIRKS 33)."""
    world = World(alias={"list": "|/bin/list, alice, /var/list"}, virtual={"x@v.org": "/var/x"})
    outcome = expand(world, "list@a.org", {"alice": "|/bin/list"})
    assert outcome == accepted(
        ("alias", "list@a.org", "_sps_alias", "|/bin/list", "alias", False),
        ("alias", "list@a.org", "_sps_alias", "/var/list", "alias", False),
        ("alias", "list@a.org", "alice", "|/bin/list", "forward", False),
    )
    assert expand(world, "x@v.org") == accepted(("virtual", "x@v.org", "_sps_alias", "/var/x", "alias", False))


@pytest.mark.parametrize("text", ["|/bin/sh", "/root/box", '"|/bin/sh -c x"'])
def test_root_names_no_programs(text: str) -> None:
    """A temporary failure that the log explains; addresses are fine."""
    world = World(alias={"alice": "root"})
    outcome = expand(world, "alice@a.org", {"root": text})
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.text) == (TEMPORARY.code, TEMPORARY.text)
    assert "root's .forward" in outcome.why
    assert users(expand(world, "alice@a.org", {"root": "admin@away.net"})) == ["admin@away.net"]


def test_an_included_file_in_a_forward_is_ignored() -> None:
    """QUIRKS 32: it counts for nothing."""
    assert users(expand(World(), "alice@plain.org", {"alice": ":include:/etc/passwd"})) == ["alice"]
    assert users(expand(World(), "alice@plain.org", {"alice": ":include:/etc/passwd\nbob"})) == ["bob"]


@pytest.mark.parametrize(
    ("state", "outcome"),
    [("absent", INVALID), ("unsure", TEMPORARY), ("temporary", LIST_UNSURE), ("refused", LIST_FAILED)],
)
def test_what_cannot_be_used(state: Literal["absent", "unsure", "temporary", "refused"], outcome: Refused) -> None:
    """550, 451, 424 and 524; an unsafe file never means the mailbox, nor the addresses in it."""
    assert World().expand("alice@plain.org", lambda _question: Forward(state)) == outcome


def test_fixed_user_and_the_forward() -> None:
    """`user vmail` reads the .forward of vmail alone."""
    world = World(user="vmail")
    forwards = {"alice": "far@away.net", "vmail": "near@away.net"}
    assert users(expand(world, "alice@plain.org", forwards)) == ["alice"]
    assert users(expand(world, "vmail@plain.org", forwards)) == ["near@away.net"]


USERBASE = {"alice": "1000:100:/home/alice", "odd": "x:100:/home/odd", "vmail": "5000:5000:/v"}


def test_userbase_says_who_there_is() -> None:
    """Users of the table and no others, whatever passwd has; the .forward is asked for by the account."""
    world = World(userbase=USERBASE)
    question = ForwardQuestion("plain", "alice", Account(1000, 100, "/home/alice"))
    assert world.expand("alice@plain.org", lambda _question: None) == Needed(frozenset({question}))
    assert users(expand(world, "alice@plain.org")) == ["alice"]
    assert expand(world, "bob@plain.org") == INVALID


def test_bad_entries_of_a_userbase() -> None:
    """What is no account is a temporary failure that the log explains (a database or a program may say it)."""
    outcome = expand(World(userbase=USERBASE), "odd@plain.org")
    assert isinstance(outcome, Refused)
    assert outcome.code == 451
    assert "odd" in outcome.why


def test_userbase_and_a_fixed_user() -> None:
    """The recipient is one of the table, whom nobody else need know (the other delivers)."""
    world = World(userbase=USERBASE, user="spool")
    assert world.expand("alice@plain.org", lambda _question: None) == accepted(("plain", "alice@plain.org", "alice"))


def test_system_users_without_forward_are_asked_for() -> None:
    """Where no .forward is looked at, the user must exist all the same."""
    assert World(user="vmail").expand("alice@plain.org", lambda _question: None) == Needed(
        frozenset({UserQuestion("alice")})
    )


def test_includes() -> None:
    """What a file names stands where its name stood; it is asked for, and a bad one is a temporary failure."""
    world = World(alias={"team": "alice, :include:/etc/team, bob"})
    assert users(expand(world, "team@a.org", None, {"/etc/team": "carol, bob, x@away.net"})) == [
        "alice", "carol", "bob", "x@away.net"
    ]  # fmt: skip
    needed = world.expand("team@a.org", lambda q: None if isinstance(q, IncludeQuestion) else known(q))
    assert needed == Needed(frozenset({IncludeQuestion("/etc/team")}))
    outcome = expand(world, "team@a.org")
    assert isinstance(outcome, Refused)
    assert (outcome.code, outcome.text) == (LIST_UNSURE.code, LIST_UNSURE.text)
    assert "cannot be read" in outcome.why
    assert expand(World(alias={"t": ":include:/e"}), "t@a.org", None, {"/e": ""}) == LIST_FAILED
    inner = World(virtual={"x@v.org": "include:/etc/team"})
    assert users(expand(inner, "x@v.org", None, {"/etc/team": "alice"})) == ["alice"]


class TestExpandOnly:
    """Nobody gets mail but whom an alias or a .forward names elsewhere; otherwise 524."""

    world = World(
        alias={"list": "x@away.net", "prog": "|p", "her": "alice", "gone": "error:550 no"}, kind="expand-only"
    )

    @pytest.mark.parametrize(("user", "forward"), [("alice", ""), ("her", ""), ("alice", "alice")])
    def test_no_mailbox(self, user: str, forward: str) -> None:
        """Nobody's own mailbox gets anything."""
        assert expand(self.world, f"{user}@a.org", {"alice": forward}) == LIST_FAILED

    def test_the_rest(self) -> None:
        """Other places, programs and errors count as with any action."""
        assert users(expand(self.world, "list@a.org")) == ["x@away.net"]
        assert users(expand(self.world, "alice@a.org", {"alice": "y@away.net"})) == ["y@away.net"]
        assert users(expand(self.world, "prog@a.org")) == ["_sps_alias"]
        assert expand(self.world, "gone@a.org") == Refused(550, "no")
        assert expand(self.world, "ghost@a.org") == INVALID


class TestForwardOnly:
    """Only what goes elsewhere; all else is a temporary failure."""

    world = World(alias={"list": "x@away.net", "prog": "|p", "file": "/f", "gone": "error:550 no"}, kind="forward-only")

    @pytest.mark.parametrize("forward", ["", "alice", "bob", "alice, x@away.net"])
    def test_no_mailbox(self, forward: str) -> None:
        """Where a .forward keeps mail here, or there is none, the mail waits."""
        assert expand(self.world, "alice@a.org", {"alice": forward}) == LIST_UNSURE

    @pytest.mark.parametrize("user", ["prog", "file", "gone"])
    def test_no_programs_or_errors(self, user: str) -> None:
        """What an alias says of them is no way out."""
        assert expand(self.world, f"{user}@a.org") == TEMPORARY

    def test_the_rest(self) -> None:
        """Other places count, and nobody is made up."""
        assert users(expand(self.world, "list@a.org")) == ["x@away.net"]
        assert users(expand(self.world, "alice@a.org", {"alice": "y@away.net"})) == ["y@away.net"]
        assert expand(self.world, "ghost@a.org") == INVALID


_NAMES = st.sampled_from(["a", "b", "alice", "root", "a@v.org", "b@a.org", "alice@plain.org", "c@r.org", "c@away.net",
                          "|p", "/f", ":include:/i", "error:450 x", "a+b"])  # fmt: skip
_LISTS = st.lists(_NAMES, min_size=1, max_size=6).map(", ".join)
_MAPS = st.dictionaries(_NAMES, _LISTS, max_size=8)


@settings(max_examples=200, deadline=None)
@given(_MAPS, _MAPS, _LISTS, st.sampled_from(["maildir", "expand-only", "forward-only"]), st.sampled_from(["", "a"]))
def test_any_graph_of_files_ends(
    tables: dict[str, str],
    forwards: dict[str, str],
    include: str,
    kind: Literal["maildir", "expand-only", "forward-only"],
    user: str,
) -> None:
    """Whatever tables and files say: an end, a bounded number of deliveries, none that an action does not make."""
    world = World(virtual=tables, alias=tables, kind=kind, user=user if kind == "maildir" else "")
    included = tuple(target for target in parse_targets(include) if target.kind != "include")

    def answer(question: Question) -> Answer | None:
        match question:
            case ForwardQuestion(_, name):
                targets = parse_forward(forwards.get(name, "").encode()).targets
                return Forward("found" if targets else "none", targets, name == "root")
            case IncludeQuestion():
                return Included(included)
            case UserQuestion():
                return known(UserQuestion("alice"))

    for recipient in ("a@v.org", "a+b@a.org", "alice@plain.org"):
        outcome = world.expand(recipient, answer)
        if isinstance(outcome, Accepted):
            assert 1 <= len(outcome.deliveries) <= MAX_DELIVERIES
            for each in outcome.deliveries:
                assert bool(each.target) == bool(each.source)
                assert each.user or each.action in ("relay", "outbound")
                assert each.source != "forward" or each.user != "root"
                if kind != "maildir" and each.action in ("alias", "plain"):
                    assert each.target and kind == "expand-only"
        else:
            assert isinstance(outcome, Refused)


def test_a_flood_of_nodes_ends() -> None:
    """Users whose files name each other and a hundred more do not grow without bound."""
    names = [f"u{number}" for number in range(100)]
    targets = tuple(Target("user", name) for name in names)
    asked = 0

    def answer(question: Question) -> Answer:
        nonlocal asked
        asked += 1
        return UserState.FOUND if isinstance(question, UserQuestion) else Forward("found", targets)

    assert World().expand("u0@plain.org", answer) == LIST_FAILED
    assert asked <= MAX_NODES


def test_too_many_deliveries() -> None:
    """More than one recipient may become: 524, and at once."""
    included = tuple(Target("address", f"u{number}@away.net") for number in range(MAX_DELIVERIES + 1))
    world = World(alias={"all": ":include:/all"})
    assert world.expand("all@a.org", lambda _question: Included(included)) == LIST_FAILED
    outcome = world.expand("all@a.org", lambda _question: Included(included[1:]))
    assert isinstance(outcome, Accepted)
    assert len(outcome.deliveries) == MAX_DELIVERIES
    assert Delivery("outbound", "u1@away.net", "", forwarded=True) in outcome.deliveries
