"""The expansion that tells its steps decides as the one that does not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.contract.settings import ActionSettings, ConditionSettings, RuleSettings
from smtpd_ps.pure.expand import Action, Expander
from smtpd_ps.pure.expand_outcome import Accepted, Needed, Outcome, Refused
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
from smtpd_ps.pure.expand_trace import MAX_STEPS, Step, expand_traced, rule_text
from smtpd_ps.pure.match_rules import Facts, RuleBook, Source
from smtpd_ps.pure.table import Table

USERS = {"alice": Forward("none"), "bob": Forward("none"), "odd": Forward("unsure"), "new": None}


class World:
    """v.org by a virtual table, a.org by aliases; from local anything is relayed."""

    def __init__(self, virtual: dict[str, str], alias: dict[str, str]) -> None:
        self.tables = {
            "v": Table("v", "map", virtual),
            "a": Table("a", "map", alias),
            **{name: Table(name, "list", {name: ""}) for name in ("v.org", "a.org", "no.org")},
        }
        settings = (
            ActionSettings("virtual", "maildir", virtual_table="v"),
            ActionSettings("alias", "maildir", alias_table="a"),
            ActionSettings("out", "relay"),
        )
        self.actions = {each.name: Action.of(each, self.tables) for each in settings}
        self.rules = tuple(
            RuleSettings((ConditionSettings(source), ConditionSettings(target, False, table)), action, line)
            for line, (source, target, table, action) in enumerate(
                (
                    ("from-any", "for-domain", "no.org", ""),
                    ("from-any", "for-domain", "v.org", "virtual"),
                    ("from-any", "for-domain", "a.org", "alias"),
                    ("from-local", "for-any", "", "out"),
                ),
                1,
            )
        )
        self.book = RuleBook(self.rules, self.tables, (), ("localhost",), "+")

    def both(self, recipient: str) -> tuple[Outcome, Outcome, tuple[Step, ...]]:
        """The outcome without and with a trace, and the steps."""
        views = [self.book.view(Source("198.51.100.1", reinjected=inner)) for inner in (False, True)]

        def state(question: Question) -> Answer | None:
            match question:
                case ForwardQuestion(_, user):
                    return USERS.get(user, Forward("absent"))
                case UserQuestion():
                    return UserState.FOUND
                case IncludeQuestion():
                    return Included(None, "no file")

        expander = Expander(self.actions, "+")
        plain = expander.expand(recipient, facts(), views[0], views[1], state)
        traced, steps = expand_traced(expander, recipient, facts(), views[0], views[1], state)
        return plain, traced, steps

    def steps(self, recipient: str) -> list[tuple[int, str, str, str]]:
        return [(step.depth, step.kind, step.subject, step.text) for step in self.both(recipient)[2]]


def facts() -> Facts:
    return Facts("h", False, "s@x.org", "", "")


def test_virtual_then_a_user_and_an_address() -> None:
    """Each address with its rule, each key that was found, each user with the system's answer."""
    assert World({"l@v.org": "alice, b@far.org"}, {}).steps("L@v.org") == [
        (0, "address", "L@v.org", ""),
        (0, "rule", "l@v.org", 'line 2: action "virtual"'),
        (0, "entry", "l@v.org", "in table v: alice, b@far.org"),
        (1, "user", "alice", "from L@v.org"),
        (1, "no-entry", "alice", "in table v"),
        (1, "forward", "alice", "a user without .forward"),
        (1, "address", "b@far.org", "from L@v.org"),
        (1, "rule", "b@far.org", 'line 4: action "out"'),
    ]


def test_aliases_and_duplicates() -> None:
    """An alias that is followed twice is said to be there already."""
    steps = World({}, {"team": "other, bob", "other": "bob"}).steps("team@a.org")
    assert (1, "entry", "team", "in table a: other, bob") in steps
    assert (2, "user", "other", "from team") in steps
    assert (2, "duplicate", "bob", "is there already") in steps
    assert steps.count((2, "user", "bob", "from team")) == 1


@pytest.mark.parametrize(
    ("recipient", "last"),
    [
        ("x@no.org", (0, "rule", "x@no.org", "line 1: reject")),
        ("x@else.org", (0, "rule", "x@else.org", "no rule matches")),
        ("x@v.org", (0, "no-entry", "x@v.org", "in table v")),
        ("nobody@a.org", (1, "passwd", "nobody", "is no user of this system")),
        ("odd@a.org", (1, "passwd", "odd", "the system cannot say whether this is a user")),
    ],
)
def test_where_it_ends(recipient: str, last: tuple[int, str, str, str]) -> None:
    """The last step is why the recipient is refused."""
    plain, traced, _steps = World({}, {}).both(recipient)
    assert isinstance(traced, Refused)
    assert plain == traced
    assert World({}, {}).steps(recipient)[-1] == last


def test_a_user_who_must_be_asked_for() -> None:
    """What is not known yet is not told; the caller asks and runs it again."""
    plain, traced, steps = World({}, {}).both("new@a.org")
    assert plain == traced == Needed(frozenset({ForwardQuestion("", "new")}))
    assert "passwd" not in {step.kind for step in steps}


def test_very_many_steps_are_cut() -> None:
    """A list of thousands is expanded whole and told in part."""
    plain, traced, steps = World({"l@v.org": ", ".join(f"u{n}@far.org" for n in range(900))}, {}).both("l@v.org")
    assert isinstance(plain, Accepted)
    assert plain == traced
    assert len(steps) == 3 + 900 * 2
    _plain, _traced, steps = World({"l@v.org": ", ".join(f"u{n}@far.org" for n in range(3000))}, {}).both("l@v.org")
    assert len(steps) == MAX_STEPS + 1
    assert steps[-1] == Step(0, "note", "", "more steps than are shown")


def test_a_rule_of_an_included_file() -> None:
    """Its file is named; the line of the main file needs none."""
    assert rule_text(RuleSettings((), "a", 3, "/etc/mail/more")) == '/etc/mail/more, line 3: action "a"'
    assert rule_text(RuleSettings((), "", 3)) == "line 3: reject"


KEYS = ["alice", "bob", "x", "x+t", "alice@v.org", "x@v.org", "@v.org", "@", "@a.org"]
VALUES = ["alice", "bob, x", "x", "x+t", "alice@v.org", "y@a.org", "z@far.org", "odd", "new", "|cmd", "error:550 go",
          "a@no.org", ","]  # fmt: skip
tables = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES), max_size=6)


@given(virtual=tables, alias=tables, recipient=st.sampled_from(["alice@v.org", "x+t@v.org", "x@a.org", "bob@a.org"]))
def test_the_same_outcome(virtual: dict[str, str], alias: dict[str, str], recipient: str) -> None:
    """Listening in changes nothing."""
    plain, traced, _steps = World(virtual, alias).both(recipient)
    assert plain == traced
