"""lookup/explain: the operator's question is answered, and nothing else happens."""

from collections.abc import Callable, Iterable

import pytest

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ActionSettings, ConditionSettings, LookupSettings, RuleSettings
from smtpd_ps.contract.values import RouteHost
from smtpd_ps.lookup.explain import MAX_ROUTES, Explanations
from smtpd_ps.lookup.knowledge import Answers
from smtpd_ps.pure.expand import Action, Expander
from smtpd_ps.pure.expand_questions import Answer, Forward, ForwardQuestion, Question
from smtpd_ps.pure.match_rules import RuleBook
from smtpd_ps.pure.table import Table

TABLES = {
    "ours": Table("ours", "list", {"example.com": ""}),
    "virtuals": Table("virtuals", "map", {"list@example.com": "bob, a@far.org, b@far.org", "@": "bob",
                                          "wide@example.com": ",".join(f"u@d{n}.org" for n in range(60)),
                                          "long@example.com": f"bob,{'x' * 3000}@far.org", "bob": "bob"}),
    "tags": Table("tags", "list", {"inner": ""}),
    "friends": Table("friends", "list", {"*.friend.test": ""}),
}  # fmt: skip
RULES = (
    RuleSettings((ConditionSettings("from-any"), ConditionSettings("for-domain", False, "ours")), "receive", 3),
    RuleSettings((ConditionSettings("from-auth"), ConditionSettings("for-any"), ConditionSettings("tls")), "smart", 4),
    RuleSettings((ConditionSettings("from-any"), ConditionSettings("tag", False, "tags")), "box", 5),
    RuleSettings((ConditionSettings("from-local"), ConditionSettings("for-any")), "out", 6),
    RuleSettings((ConditionSettings("from-rdns", False, "friends"), ConditionSettings("for-any")), "out", 7),
)
ACTIONS = (
    ActionSettings("receive", "lmtp", virtual_table="virtuals", lmtp_destination="/run/lmtp", lmtp_rcpt_to=True),
    ActionSettings("smart", "relay", relay_hosts=("smtps://l@smart.test",), relay_tls="require"),
    ActionSettings("box", "lmtp", lmtp_destination="backend.test:24"),
    ActionSettings("out", "relay"),
)


class Names:
    """Reverse DNS."""

    def ask(self, address: str, done: Callable[[str, bool, bool], None]) -> None:
        match address:
            case "192.0.2.66":
                done("", False, False)
            case "192.0.2.77":
                done("Client.Friend.test", False, True)
            case "local":
                done("localhost", True, True)
            case _:
                done("", False, True)


class Users:
    """Everybody whose name is short exists, once asked."""

    def __init__(self) -> None:
        self.asked: list[set[str]] = []

    def known(self, _question: Question) -> Answer | None:
        return None

    def ask(self, questions: Iterable[Question], done: Callable[[Answers], None]) -> None:
        answers: Answers = {}
        for question in questions:
            assert isinstance(question, ForwardQuestion)
            answers[question] = Forward("none" if len(question.user) < 9 else "absent")
        self.asked.append({question.user for question in questions if isinstance(question, ForwardQuestion)})
        done(answers)


class Routes:
    """Hosts by domain."""

    def __init__(self) -> None:
        self.queries: list[m.RouteQuery] = []

    def find(self, query: m.RouteQuery, done: Callable[[m.Route], None], *, only_asking: bool) -> None:
        assert only_asking
        self.queries.append(query)
        if query.domain == "nowhere.org":
            done(m.Route(0, (), 10, False, "Domain does not exist"))
        elif query.action == "smart":
            login = ("me", "secret")
            host = RouteHost("smart.test", ("192.0.2.5",), 465, 0, "implicit-verify", False, *login)
            done(m.Route(0, (host,), 10))
        elif query.action == "box":
            done(m.Route(0, (RouteHost("backend.test", ("192.0.2.6",), 24, 0, "never", True),), 10))
        else:
            hosts = (RouteHost(f"mx.{query.domain}", ("192.0.2.7", "2001:db8::7"), 25, 10),)
            done(m.Route(0, hosts, 10))


class World:
    def __init__(self) -> None:
        self.sent: list[m.Message] = []
        self.users, self.routes = Users(), Routes()
        settings = LookupSettings("mx.example.com", RULES, ACTIONS, (), ("192.0.2.9",), ("localhost",))
        book = RuleBook(RULES, TABLES, settings.local_addresses, settings.local_names, "+")
        expander = Expander({action.name: Action.of(action, TABLES) for action in ACTIONS}, "+")
        self.desk = Explanations(settings, book, expander, Names(), self.users, self.routes, self.sent.append)  # type: ignore[arg-type]

    def ask(self, recipient: str, sender: str = "s@far.org", address: str = "198.51.100.1", user: str = "",
            tls: bool = False, tag: str = "") -> tuple[list[str], m.Done]:  # fmt: skip
        self.desk.requested(m.Explain(7, address, "helo.test", user, tls, tag, sender, recipient))
        done = self.sent.pop()
        assert isinstance(done, m.Done)
        assert all(isinstance(step, m.ExplainStep) and step.client == 7 for step in self.sent)
        return [f"{s.depth} {s.kind} {s.subject}: {s.text}" for s in self.sent if isinstance(s, m.ExplainStep)], done


@pytest.fixture
def world() -> World:
    return World()


def test_from_the_rule_to_the_hosts(world: World) -> None:
    """Rule, table, users, then each delivery with the hosts it would go to; routes are asked for once."""
    steps, done = world.ask("list@example.com", address="192.0.2.9")
    assert steps == [
        "0 client 192.0.2.9: has no name",
        "0 address list@example.com: ",
        '0 rule list@example.com: line 3: action "receive"',
        "0 entry list@example.com: in table virtuals: bob, a@far.org, b@far.org",
        "1 user bob: from list@example.com",
        "1 entry bob: in table virtuals: bob",
        "1 address a@far.org: from list@example.com",
        '1 rule a@far.org: line 6: action "out"',
        "1 address b@far.org: from list@example.com",
        '1 rule b@far.org: line 6: action "out"',
        "2 user bob: from bob",
        "2 forward bob: a user without .forward",
        '0 deliver a@far.org: action "out": relay',
        "1 host mx.far.org: 192.0.2.7 2001:db8::7 port 25, preference 10, TLS where offered",
        '0 deliver b@far.org: action "out": relay',
        "1 host mx.far.org: 192.0.2.7 2001:db8::7 port 25, preference 10, TLS where offered",
        '0 deliver list@example.com: action "receive": lmtp /run/lmtp rcpt-to, user bob',
    ]
    assert (done.ok, done.count) == (True, 3)
    assert world.users.asked == [{"bob"}]
    assert world.routes.queries == [m.RouteQuery(0, "out", "far.org")]


def test_an_authenticated_client_under_tls(world: World) -> None:
    """Conditions look at what was given; credentials show the user, never the password."""
    steps, _done = world.ask("x@far.org", user="alice", tls=True)
    assert steps[2] == '0 rule x@far.org: line 4: action "smart"'
    assert steps[-2:] == [
        '0 deliver x@far.org: action "smart": relay (TLS required)',
        "1 host smart.test: 192.0.2.5 port 465, TLS from the start, verified, as me",
    ]
    assert world.routes.queries == [m.RouteQuery(0, "smart", "")]
    assert "hidden" not in repr(world.sent)


def test_a_tag_and_lmtp_over_tcp(world: World) -> None:
    """LMTP to a host is looked up as delivery would."""
    steps, _done = world.ask("bob@far.org", tag="inner")
    assert steps[-2:] == [
        '0 deliver bob@far.org: action "box": lmtp backend.test:24, user bob',
        "1 host backend.test: 192.0.2.6 port 24, LMTP",
    ]


@pytest.mark.parametrize(
    ("recipient", "last"),
    [
        ("x@far.org", "0 refused x@far.org: 550 Invalid recipient"),
        ("<not@checked>", ""),
    ],
)
def test_refused(world: World, recipient: str, last: str) -> None:
    """A refusal is an answer; what is no address is an error."""
    steps, done = world.ask(recipient)
    assert steps[-1:] == ([last] if last else [])
    assert done.ok == bool(last)


def test_the_name_of_the_client(world: World) -> None:
    """It is asked of DNS, as for a client; a rule that depends on one that is not told refuses for now."""
    steps, _done = world.ask("x@far.org", address="192.0.2.77")
    assert steps[0] == "0 client 192.0.2.77: is Client.Friend.test (its addresses do not say so)"
    assert steps[2] == '0 rule x@far.org: line 7: action "out"'
    world = World()
    steps, _done = world.ask("x@far.org", address="192.0.2.66")
    assert steps == [
        "0 client 192.0.2.66: has a name that DNS does not tell now",
        "0 address x@far.org: ",
        "0 rule x@far.org: a rule depends on the name of the client's host, which DNS does not tell",
        "0 refused x@far.org: 451 Temporary failure in looking up the name of your host",
    ]


def test_the_local_socket_and_names_without_a_domain(world: World) -> None:
    """As smtp does, a bare name gets our host name; "" and @ are the null sender."""
    steps, _done = world.ask("root@nowhere.org", sender="", address="local")
    assert steps[-1] == "1 note : for good: Domain does not exist"
    world = World()
    steps, _done = world.ask("root", sender="@", address="local")
    assert steps[1] == "0 address root@mx.example.com: "


@pytest.mark.parametrize("address", ["", "here", "192.0.2.0/24", "localhost"])
def test_a_client_that_is_none(world: World, address: str) -> None:
    """The client is an address or local."""
    assert world.ask("x@far.org", address=address) == ([], m.Done(7, False, 'the client is an IP address or "local"'))


def test_tables_that_were_read_again(world: World) -> None:
    """Other rules and tables count from the next question on."""
    tables = {**TABLES, "virtuals": Table("virtuals", "map", {"new@example.com": "bob"})}
    expander = Expander({action.name: Action.of(action, tables) for action in ACTIONS}, "+")
    assert "0 entry @: in table virtuals: bob" in world.ask("new@example.com", address="local")[0]
    world.sent.clear()
    world.desk.use(RuleBook(RULES[:1], tables, (), (), "+"), expander)
    steps, _done = world.ask("new@example.com", address="local")
    assert "0 entry new@example.com: in table virtuals: bob" in steps


def test_many_routes(world: World) -> None:
    """Name servers are asked for a bounded number of domains; the rest is said not to be asked for."""
    steps, done = world.ask("wide@example.com", address="local")
    assert len(world.routes.queries) == MAX_ROUTES
    assert done.count == 60
    assert sum("more than 50 routes" in step for step in steps) == 10


def test_long_values_are_cut(world: World) -> None:
    """What a table holds never exceeds what a step may."""
    steps, done = world.ask("long@example.com", address="local")
    assert done.ok
    assert steps[3].endswith("...")
    assert all(len(step) < 2100 for step in steps)
