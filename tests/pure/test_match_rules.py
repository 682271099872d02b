"""Which rule takes which recipient of which client."""

import pytest

from smtpd_ps.contract.settings import ConditionKind, ConditionSettings, RuleSettings
from smtpd_ps.pure.match_rules import UNSURE, Facts, RuleBook, Source
from smtpd_ps.pure.table import Table

TABLES = {
    "nets": Table("nets", "list", {"10.0.0.0/8": "", "local": ""}),
    "domains": Table("domains", "list", {"example.com": "", "*.example.net": ""}),
    "people": Table("people", "list", {"alice@example.com": "", "@example.net": ""}),
    "users": Table("users", "list", {"alice": "", "bob@example.com": ""}),
    "tags": Table("tags", "list", {"office": ""}),
}


def rule(action: str, *conditions: tuple[str, str] | str) -> RuleSettings:
    made = []
    for condition in conditions:
        kind, table = condition if isinstance(condition, tuple) else (condition, "")
        made.append(ConditionSettings(kind.lstrip("!"), kind.startswith("!"), table))  # type: ignore[arg-type]
    return RuleSettings(tuple(made), action, 1)


def book(*rules: RuleSettings) -> RuleBook:
    return RuleBook(rules, TABLES, ("192.0.2.1", "2001:db8::1"), ("localhost", "mx.example.com"), "+")


def facts(recipient: str = "x@example.com", **more: object) -> Facts:
    values: dict[str, object] = {"helo": "h", "tls": False, "sender": "s@example.org"}
    values.update(more)
    return Facts(recipient=recipient, domain=recipient.rpartition("@")[2], **values)  # type: ignore[arg-type]


def chosen(rules: RuleBook, source: Source, what: Facts) -> str:
    found = rules.view(source).match(what)
    return found.action if found else "none"


REMOTE = Source("198.51.100.7")


def test_first_match_wins_and_order_counts() -> None:
    """The first rule whose conditions all hold decides."""
    rules = book(
        rule("a", "from-local", "for-any"),
        rule("b", "from-any", ("for-domain", "domains")),
        rule("c", "from-any", "for-any"),
    )
    assert chosen(rules, Source("local"), facts()) == "a"
    assert chosen(rules, REMOTE, facts()) == "b"
    assert chosen(rules, REMOTE, facts("x@sub.example.net")) == "b"
    assert chosen(rules, REMOTE, facts("x@other.org")) == "c"


def test_no_match() -> None:
    """Where no rule matches there is none."""
    assert chosen(book(rule("a", "from-local", "for-any")), REMOTE, facts()) == "none"
    assert chosen(book(), REMOTE, facts()) == "none"


@pytest.mark.parametrize(
    ("condition", "table", "holds", "fails"),
    [
        ("from-local", "", [Source("local"), Source("127.0.0.1"), Source("::1"),
                            Source("192.0.2.1"), Source("2001:db8::1"), Source("9.9.9.9", reinjected=True)],
         [REMOTE, Source("192.0.2.2"), Source("127.9.9.9"), Source("")]),
        ("from-socket", "", [Source("local")], [Source("127.0.0.1")]),
        ("from-src", "nets", [Source("10.1.1.1"), Source("local"), Source("9.9.9.9", reinjected=True)], [REMOTE]),
        ("from-auth", "", [Source("9.9.9.9", user="x"), Source("9.9.9.9", user="")], [REMOTE, Source("local")]),
        ("auth", "", [Source("9.9.9.9", user="x")], [REMOTE, Source("local")]),
        ("auth", "users", [Source("9.9.9.9", user="Alice"), Source("9.9.9.9", user="bob@example.com")],
         [REMOTE, Source("9.9.9.9", user="bob"), Source("9.9.9.9", user="alice@example.com")]),
        ("tag", "tags", [Source("9.9.9.9", tag="Office")], [REMOTE]),
    ],
)  # fmt: skip
def test_source_conditions(condition: ConditionKind, table: str, holds: list[Source], fails: list[Source]) -> None:
    """Each condition on the client, and its negation."""
    rules = book(rule("yes", (condition, table), "for-any"))
    opposite = book(rule("yes", ("!" + condition, table), "for-any"))
    for source in holds:
        assert chosen(rules, source, facts()) == "yes", source
        assert chosen(opposite, source, facts()) == "none", source
    for source in fails:
        if condition == "auth" and table == "users" and source.user == "alice@example.com":
            continue  # a mailaddr entry without a domain takes every domain
        assert chosen(rules, source, facts()) == "none", source
        assert chosen(opposite, source, facts()) == "yes", source


def test_from_socket_never_takes_reinjected_mail() -> None:
    """As in OpenSMTPD, negated or not."""
    source = Source("local", reinjected=True)
    assert chosen(book(rule("a", "from-socket", "for-any")), source, facts()) == "none"
    assert chosen(book(rule("a", "!from-socket", "for-any")), source, facts()) == "none"


@pytest.mark.parametrize(
    ("condition", "table", "holds", "fails"),
    [
        ("for-local", "", ["x@localhost", "x@mx.example.com", "x@[192.0.2.1]", "x@[ipv6:2001:db8::1]", "x@192.0.2.1"],
         ["x@example.com", "x@[192.0.2.2]"]),
        ("for-domain", "domains", ["x@example.com", "x@a.example.net"], ["x@a.example.com", "x@a.b.example.net"]),
        ("for-rcpt-to", "people", ["alice@example.com", "alice+t@example.com", "any@example.net"], ["x@example.com"]),
        ("rcpt-to", "people", ["alice@example.com"], ["alice@example.org"]),
    ],
)  # fmt: skip
def test_destination_conditions(condition: str, table: str, holds: list[str], fails: list[str]) -> None:
    """Each condition on the recipient, and its negation."""
    rules = book(rule("yes", "from-any", (condition, table)))
    opposite = book(rule("yes", "from-any", ("!" + condition, table)))
    for recipient in holds:
        assert chosen(rules, REMOTE, facts(recipient)) == "yes", recipient
        assert chosen(opposite, REMOTE, facts(recipient)) == "none", recipient
    for recipient in fails:
        assert chosen(rules, REMOTE, facts(recipient)) == "none", recipient
        assert chosen(opposite, REMOTE, facts(recipient)) == "yes", recipient


@pytest.mark.parametrize(
    ("condition", "table", "holds", "fails", "reads"),
    [
        ("helo", "domains", {"helo": "a.example.net"}, {"helo": "a.example.com"}, "helo"),
        ("mail-from", "people", {"sender": "alice@example.com"}, {"sender": ""}, "sender"),
        ("tls", "", {"tls": True}, {"tls": False}, "tls"),
    ],
)
def test_other_conditions(
    condition: str, table: str, holds: dict[str, object], fails: dict[str, object], reads: str
) -> None:
    """Each further condition, its negation, and that a view says what it reads."""
    rules = book(rule("yes", "from-any", "for-any", (condition, table)))
    opposite = book(rule("yes", "from-any", "for-any", ("!" + condition, table)))
    assert chosen(rules, REMOTE, facts(**holds)) == "yes"
    assert chosen(rules, REMOTE, facts(**fails)) == "none"
    assert chosen(opposite, REMOTE, facts(**holds)) == "none"
    assert chosen(opposite, REMOTE, facts(**fails)) == "yes"
    assert rules.view(REMOTE).reads == {reads}


def pattern_books(condition: str, pattern: str, other: ConditionKind) -> tuple[RuleBook, RuleBook]:
    """Rules with a regex condition, and with its negation."""
    tables = {"p": Table("p", "list", {"zzz": "", pattern.lower(): ""})}
    plain, negated = (
        RuleSettings((ConditionSettings(other), ConditionSettings(condition, no, "p", True)), "yes", 1)  # type: ignore[arg-type]
        for no in (False, True)
    )
    return RuleBook((plain,), tables, (), (), "+"), RuleBook((negated,), tables, (), (), "+")


@pytest.mark.parametrize(
    ("condition", "pattern", "holds", "fails"),
    [
        ("for-domain", "(^|[.])example[.]net$", [facts("x@example.net"), facts("x@a.b.example.net")],
         [facts("x@badexample.net")]),
        ("for-rcpt-to", "^(sales|info)@", [facts("info@a.org")], [facts("info+x@a.org")]),
        ("rcpt-to", "[+]list@", [facts("a+list@b.org")], [facts("list@b.org")]),
        ("helo", "^[[]", [facts(helo="[192.0.2.1]")], [facts(helo="a.example")]),
        ("mail-from", "^@$", [facts(sender="")], [facts()]),
        ("mail-from", "(?i)^S@", [facts()], [facts(sender="")]),
    ],
)  # fmt: skip
def test_regex_on_what_is_said(condition: str, pattern: str, holds: list[Facts], fails: list[Facts]) -> None:
    """Patterns are looked for anywhere in the whole address, domain or name; the null sender is @."""
    rules, opposite = pattern_books(condition, pattern, "from-any")
    for what in holds:
        assert (chosen(rules, REMOTE, what), chosen(opposite, REMOTE, what)) == ("yes", "none")
    for what in fails:
        assert (chosen(rules, REMOTE, what), chosen(opposite, REMOTE, what)) == ("none", "yes")


@pytest.mark.parametrize(
    ("condition", "pattern", "holds", "fails"),
    [
        ("from-src", "^192[.]0[.]2[.]", [Source("192.0.2.77")], [Source("192.0.20.1"), Source("local")]),
        ("from-src", "^[[]2001:db8:", [Source("2001:db8::1")], [Source("192.0.2.1")]),
        ("from-src", "^local$", [Source("local"), Source("192.0.2.1", reinjected=True)], [Source("192.0.2.1")]),
        ("tag", "^(office|home)$", [Source("::1", tag="Home")], [Source("::1"), Source("::1", tag="homes")]),
        ("auth", "@example[.]org$", [Source("::1", user="Bob@Example.org")], [Source("::1"), Source("::1", user="b")]),
        ("from-auth", "^b", [Source("::1", user="bob")], [Source("::1"), Source("::1", user="eve")]),
    ],
)
def test_regex_on_the_client(condition: str, pattern: str, holds: list[Source], fails: list[Source]) -> None:
    """Addresses are compared as text, IPv6 in brackets; who has not authenticated matches no user."""
    rules, opposite = pattern_books(condition, pattern, "for-any")
    for source in holds:
        assert (chosen(rules, source, facts()), chosen(opposite, source, facts())) == ("yes", "none")
    for source in fails:
        assert (chosen(rules, source, facts()), chosen(opposite, source, facts())) == ("none", "yes")


def test_rdns() -> None:
    """from rdns takes who has a name, or one of the list; neither a list nor its negation takes others (ruleset.c)."""
    named, nameless = Source("::1", name="a.example.net"), Source("::1")
    inner = Source("::1", reinjected=True, name="a.example.net")
    for conditions, takes in (
        (["from-rdns"], (True, False, False)),
        (["!from-rdns"], (False, True, False)),
        ([("from-rdns", "domains")], (True, False, False)),
        ([("!from-rdns", "domains")], (False, False, True)),
        ([("from-rdns", "nets")], (False, False, True)),  # which lists "local"
    ):
        rules = book(rule("yes", *conditions, "for-any"))
        assert tuple(chosen(rules, each, facts()) == "yes" for each in (named, nameless, inner)) == takes, conditions
    pattern, opposite = pattern_books("from-rdns", "^a[.]", "for-any")
    assert (chosen(pattern, named, facts()), chosen(opposite, named, facts())) == ("yes", "none")


def test_a_name_that_dns_does_not_tell() -> None:
    """Only mail whose fate depends on the name is left undecided; what other rules decide before is decided."""
    unknown = Source("198.51.100.7", tag="office", name=None)
    rules = book(
        rule("first", "from-any", ("for-domain", "domains")),
        rule("named", ("from-rdns", "domains"), "for-any", "tls"),
        rule("elsewhere", "!from-rdns", "for-any", ("!tag", "tags")),
        rule("last", "from-any", "for-any"),
    )
    view = rules.view(unknown)
    assert view.unsure
    assert view.match(facts()).action == "first"  # type: ignore[union-attr]
    assert view.match(facts("x@y.org", tls=True)) is UNSURE
    assert view.match(facts("x@y.org")).action == "last"  # type: ignore[union-attr]
    assert view is rules.view(Source("203.0.113.9", tag="office", name=None))
    known = rules.view(Source("198.51.100.7", tag="office", name="x.example.net"))
    assert known is not view
    assert not known.unsure
    assert not rules.view(Source("198.51.100.7", reinjected=True, name=None)).unsure


def test_negated_any() -> None:
    """`!from any` and `!for any` never match."""
    assert chosen(book(rule("a", "!from-any", "for-any")), REMOTE, facts()) == "none"
    assert chosen(book(rule("a", "from-any", "!for-any")), REMOTE, facts()) == "none"


def test_views_are_shared() -> None:
    """Clients for which the same rules remain have one view; others have not."""
    rules = book(rule("a", "from-local", "for-any"), rule("b", "from-any", "for-any"))
    assert rules.view(REMOTE) is rules.view(Source("203.0.113.5"))
    assert rules.view(Source("local")) is not rules.view(REMOTE)
    assert rules.view(REMOTE).reads == frozenset()
