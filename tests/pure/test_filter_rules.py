"""pure/filter_rules: what builtin filters decide."""

import pytest

from smtpd_ps.contract.settings import FilterSettings
from smtpd_ps.pure.filter_rules import Facts, Filters, ListsNeeded, Verdict, lists, run
from smtpd_ps.pure.table import Table

TABLES = {
    name: Table(name, kind, dict(entries))
    for name, kind, entries in (
        ("names", "list", (("good.example", ""), ("*.pool.example", ""))),
        ("nets", "list", (("192.0.2.0/24", ""), ("2001:db8::/32", ""), ("local", ""))),
        ("users", "list", (("bob", ""),)),
        ("mails", "list", (("@bad.example", ""), ("eve@x.example", ""))),
        ("patterns", "list", (("^dyn-", ""), ("unknown", ""), ("^@$", ""), (r"^\[2001:", ""))),
        ("zones", "list", (("bl.example", ""), ("two.example.", ""))),
    )
}


def facts(**changes: object) -> Facts:
    """A client as most are."""
    usual: dict[str, object] = {
        "address": "192.0.2.7", "name": "mx.client.example", "confirmed": True, "user": None, "helo": "client.example",
        "sender": "a@client.example", "parameter": "",
    }  # fmt: skip
    return Facts(**{**usual, **changes})  # type: ignore[arg-type]


def one(condition: str, decision: str = "junk", **more: object) -> FilterSettings:
    return FilterSettings("f", condition=condition, decision=decision, **more)  # type: ignore[arg-type]


def decide(settings: FilterSettings, **changes: object) -> Verdict | ListsNeeded:
    filters = Filters([settings], TABLES, "+")
    return run(filters.steps("f", settings.phase), facts(**changes), [])


@pytest.mark.parametrize(
    ("condition", "table", "regex", "changes", "holds"),
    [
        ("fcrdns", "", False, {}, True),
        ("fcrdns", "", False, {"confirmed": False}, False),
        ("rdns", "", False, {}, True),
        ("rdns", "", False, {"name": ""}, False),
        ("rdns", "names", False, {"name": "good.example"}, True),
        ("rdns", "names", False, {"name": "a.pool.example"}, True),
        ("rdns", "names", False, {"name": ""}, False),
        ("rdns", "patterns", True, {"name": "dyn-1.example"}, True),
        ("rdns", "patterns", True, {"name": ""}, True),
        ("rdns", "patterns", True, {}, False),
        ("src", "nets", False, {}, True),
        ("src", "nets", False, {"address": "2001:db8::1"}, True),
        ("src", "nets", False, {"address": "local"}, True),
        ("src", "nets", False, {"address": "198.51.100.1"}, False),
        ("src", "patterns", True, {"address": "2001:db8::1"}, True),
        ("src", "patterns", True, {}, False),
        ("helo", "names", False, {"helo": "good.example"}, True),
        ("helo", "names", False, {}, False),
        ("helo", "patterns", True, {"helo": "dyn-2"}, True),
        ("auth", "", False, {"user": "bob"}, True),
        ("auth", "", False, {}, False),
        ("auth", "users", False, {"user": "bob"}, True),
        ("auth", "users", False, {"user": "eve"}, False),
        ("auth", "users", False, {}, False),
        ("auth", "patterns", True, {"user": "dyn-x"}, True),
        ("mail-from", "mails", False, {"sender": "x@bad.example"}, True),
        ("mail-from", "mails", False, {"sender": "eve+tag@x.example"}, True),
        ("mail-from", "mails", False, {"sender": ""}, False),
        ("mail-from", "patterns", True, {"sender": ""}, True),
        ("rcpt-to", "mails", False, {"parameter": "eve@x.example"}, True),
        ("rcpt-to", "mails", False, {}, False),
        ("rcpt-to", "patterns", True, {"parameter": "dyn-x@y"}, True),
    ],
)
def test_conditions(condition: str, table: str, regex: bool, changes: dict[str, object], holds: bool) -> None:
    """Each condition looks at its fact; `!` turns it round."""
    junk, proceed = Verdict("junk", "", "f"), Verdict("proceed")
    assert decide(one(condition, table=table, regex=regex), **changes) == (junk if holds else proceed)
    assert decide(one(condition, table=table, regex=regex, negated=True), **changes) == (proceed if holds else junk)


@pytest.mark.parametrize("negated", [False, True])
@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        (("fcrdns", ""), {"confirmed": None}),
        (("rdns", ""), {"name": None}),
        (("rdns", "names"), {"name": None}),
    ],
)
def test_what_nobody_can_decide(settings: tuple[str, str], changes: dict[str, object], negated: bool) -> None:
    """DNS does not answer: a refusal becomes a temporary one, and any other decision is left out."""
    condition, table = settings
    for decision, answer in (
        ("reject", "reject"), ("disconnect", "disconnect"), ("junk", "proceed"), ("bypass", "proceed"),
        ("rewrite", "proceed"), ("report", "proceed"),
    ):  # fmt: skip
        outcome = decide(one(condition, decision, table=table, negated=negated, text="550 no"), **changes)
        assert isinstance(outcome, Verdict)
        assert outcome.answer == answer
        assert outcome.text[:3] == {"reject": "451", "disconnect": "421"}.get(answer, "")


def test_a_chain_goes_on_until_one_decides() -> None:
    """Filters of other phases are left out, a report goes on, bypass ends the chain of that phase only."""
    made = [
        FilterSettings("late", phase="data", condition="rdns", decision="reject", text="550 late"),
        FilterSettings("told", condition="rdns", decision="report", text="seen"),
        FilterSettings("fails", condition="rdns", negated=True, decision="reject", text="550 fails"),
        FilterSettings("decides", condition="rdns", decision="bypass"),
        FilterSettings("behind", condition="rdns", decision="reject", text="550 behind"),
        FilterSettings("all", ("late", "told", "fails", "decides", "behind")),
    ]
    filters = Filters(made, TABLES, "+")
    said: list[tuple[str, str]] = []
    assert run(filters.steps("all", "connect"), facts(), said) == Verdict("proceed", "", "decides")
    assert said == [("told", "seen")]
    assert run(filters.steps("all", "data"), facts(), said) == Verdict("reject", "550 late", "late")
    assert filters.steps("all", "helo") == ()
    assert run((), facts(), said) == Verdict("proceed")


def test_dns_lists() -> None:
    """The names to ask for are those of RFC 5782; what was answered decides, once for each filter."""
    made = [
        FilterSettings("told", condition="rdns", decision="report", text="seen"),
        FilterSettings("first", condition="dnsbl", table="zones", decision="junk"),
        FilterSettings("second", condition="dnsbl", table="zones", negated=True, decision="reject", text="550 x"),
        FilterSettings("all", ("told", "first", "second")),
    ]
    steps = Filters(made, TABLES, "+").steps("all", "connect")
    said: list[tuple[str, str]] = []
    needed = run(steps, facts(), said)
    assert needed == ListsNeeded(("7.2.0.192.bl.example", "7.2.0.192.two.example"), 1)
    assert run(steps, facts(), said, 1, True) == Verdict("junk", "", "first")
    again = run(steps, facts(), said, 1, False)
    assert isinstance(again, ListsNeeded)
    assert again.at == 2
    assert run(steps, facts(), said, 2, False) == Verdict("reject", "550 x", "second")
    assert run(steps, facts(), said, 2, True) == Verdict("proceed")
    assert said == [("told", "seen")]
    v6 = run(steps, facts(address="2001:db8::1"), [])
    assert isinstance(v6, ListsNeeded)
    assert v6.names[0] == f"1.{'0.' * 23}8.b.d.0.1.0.0.2.bl.example"


@pytest.mark.parametrize("address", ["local", "127.0.0.1", "::1"])
def test_a_local_client_is_in_no_dns_list(address: str) -> None:
    """And nobody is asked."""
    assert decide(one("dnsbl", table="zones"), address=address) == Verdict("proceed")
    assert decide(one("dnsbl", table="zones", negated=True), address=address) == Verdict("junk", "", "f")


def test_what_counts_as_listed() -> None:
    """127.0.0.0/8, without the addresses by which lists say that they do not want to be asked."""
    assert lists("127.0.0.2")
    assert not lists("127.255.255.254")
    assert not lists("192.0.2.1")
