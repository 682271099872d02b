"""config/directives/filters: what is accepted and what it means, what is refused and why."""

import pytest

from smtpd_ps.config.compile import compile_settings
from smtpd_ps.config.model import Builtin, Chain, Program
from smtpd_ps.contract.settings import FILTER_PHASES, ProgramSettings
from smtpd_ps.contract.values import Process

RULE = "match from any for any reject\n"
TABLES = 'table list { a, b }\ntable map { a = b }\ntable file "/f"\n'
PHASES = "auth, commit, connect, data, ehlo, helo, mail-from, rcpt-to"
DECISIONS = "bypass, disconnect, junk, reject, report, rewrite"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("connect match fcrdns bypass", ("connect", "fcrdns", False, "", False, "bypass", "")),
        ('connect match !fcrdns reject "550 x"', ("connect", "fcrdns", True, "", False, "reject", "550 x")),
        ('connect match ! rdns disconnect "421 x"', ("connect", "rdns", True, "", False, "disconnect", "421 x")),
        ("connect match rdns junk", ("connect", "rdns", False, "", False, "junk", "")),
        ("connect match rdns <list> junk", ("connect", "rdns", False, "list", False, "junk", "")),
        ("connect match rdns regex <file> junk", ("connect", "rdns", False, "file", True, "junk", "")),
        ('connect match src <file> report "hello"', ("connect", "src", False, "file", False, "report", "hello")),
        ("connect match !src regex <list> junk", ("connect", "src", True, "list", True, "junk", "")),
        ("connect match dnsbl <list> junk", ("connect", "dnsbl", False, "list", False, "junk", "")),
        ("helo match helo <list> junk", ("helo", "helo", False, "list", False, "junk", "")),
        ("ehlo match helo regex <list> junk", ("ehlo", "helo", False, "list", True, "junk", "")),
        ("ehlo match fcrdns rewrite h.example", ("ehlo", "fcrdns", False, "", False, "rewrite", "h.example")),
        ("auth match helo <list> junk", ("auth", "helo", False, "list", False, "junk", "")),
        ("mail-from match auth junk", ("mail-from", "auth", False, "", False, "junk", "")),
        ("mail-from match !auth <map> junk", ("mail-from", "auth", True, "map", False, "junk", "")),
        ("mail-from match mail-from <map> junk", ("mail-from", "mail-from", False, "map", False, "junk", "")),
        ('mail-from match auth rewrite "<>"', ("mail-from", "auth", False, "", False, "rewrite", "<>")),
        ('rcpt-to match rcpt-to <list> rewrite "<a@b.example>"',
         ("rcpt-to", "rcpt-to", False, "list", False, "rewrite", "<a@b.example>")),
        ("rcpt-to match rcpt-to regex <list> junk", ("rcpt-to", "rcpt-to", False, "list", True, "junk", "")),
        ("data match auth regex <list> bypass", ("data", "auth", False, "list", True, "bypass", "")),
        ('commit match mail-from <list> reject "451 4.7.1 later"',
         ("commit", "mail-from", False, "list", False, "reject", "451 4.7.1 later")),
    ],
)  # fmt: skip
def test_builtin_filters(load_text, text: str, expected: tuple[object, ...]) -> None:
    """One condition and one decision; every phase, condition and decision."""
    conf = load_text(f"{TABLES}filter f phase {text}\n{RULE}")
    assert conf.filters["f"].body == Builtin(*expected)


@pytest.mark.parametrize(
    "text",
    ["{ a, b }", "{\na,\nb\n}", "{ a\nb }", "{ a b }", "{ a,\n b\n}"],
)
def test_chains(load_text, text: str) -> None:
    """A chain is laid out as a table is; in a listener it has no name."""
    two = "filter a phase connect match rdns junk\nfilter b phase data match auth bypass\n"
    conf = load_text(f"{two}filter c chain {text}\nlisten on lo filter c\nlisten on if0 filter {text}\n{RULE}")
    assert conf.filters["c"].body == Chain(("a", "b"))
    assert conf.listeners[0].filter == "c"
    assert conf.filters[conf.listeners[1].filter].body == Chain(("a", "b"))
    assert conf.listeners[1].filter.startswith("<")


def test_slices(load_text) -> None:
    """Lookup gets the filters and whose they are; smtp only the phases, those of every member of a chain."""
    conf = load_text(
        'table file "/f"\nfilter a phase connect match rdns <file> junk\nfilter b phase data match auth bypass\n'
        f"filter unused phase helo match rdns junk\nlisten on socket filter b\nlisten on lo\n"
        f"listen on if0 filter {{ a, b }}\n{RULE}"
    )
    slices = compile_settings(conf)
    bits = {phase: 1 << index for index, phase in enumerate(FILTER_PHASES)}
    both = bits["connect"] | bits["data"]
    assert [listener.filter_phases for listener in slices.smtp.listeners] == [0, 0, both, both, bits["data"]]
    chain = conf.listeners[1].filter
    assert slices.lookup.listener_filters == ((2, chain), (3, chain), (4, "b"))
    assert [each.name for each in slices.lookup.filters] == ["a", "b", "unused", chain]
    assert [asset.name for asset in slices.assets if asset.process is Process.LOOKUP] == ["file"]


BUILTIN = [
    ("filter", "1: expected the name of a filter, found the end of the line"),
    ('filter f "x"', '1: expected "chain" or "phase" or "proc" or "proc-exec", found "x"'),
    ("filter f phase", f"1: expected a phase ({PHASES}), found the end of the line"),
    ("filter f phase data-line match rdns junk",
     f'1: expected a phase ({PHASES}), found the keyword "data-line"'),
    ("filter f phase conect match rdns junk",
     f'1: expected a phase ({PHASES}), found "conect"; did you mean "connect"?'),
    ("filter f phase connect rdns junk", '1: expected "match", found the keyword "rdns"'),
    ("filter f phase connect match junk",
     '1: expected a condition of phase connect (dnsbl, fcrdns, rdns, src), found the keyword "junk"'),
    ('filter f phase connect match "dnsbl" x junk',
     '1: expected a condition of phase connect (dnsbl, fcrdns, rdns, src), found "dnsbl"'),
    ("filter f phase connect match helo x junk", "1: helo cannot be looked at in phase connect"),
    ("filter f phase ehlo match mail-from x junk", "1: mail-from cannot be looked at in phase ehlo"),
    ("filter f phase data match rcpt-to x junk", "1: rcpt-to cannot be looked at in phase data"),
    ("filter f phase connect match auth junk", "1: auth cannot be looked at in phase connect"),
    ("filter f phase connect match fcrdns src x junk",
     f'1: expected one condition and then a decision ({DECISIONS}), found the keyword "src"'),
    ("filter f phase connect match src junk",
     '1: expected a value, <table> or values in braces after "src", found the keyword "junk"; '
     "quote it to use it as a value"),
    ('filter f phase connect match src "x" junk', '1: "x" is not an address or a network such as 192.0.2.0/24'),
    ('filter f phase connect match rdns regex "(" junk',
     '1: "(" is not a regular expression: an empty pattern or branch'),
    ("filter f phase connect match rdns <map> junk",
     '4: rdns needs a list such as { a, b }, but table "map" is a mapping'),
    ('filter f phase connect match dnsbl "a b" junk', '1: "a b" is not the domain of a DNS list'),
    ("filter f phase connect match dnsbl regex x junk",
     '1: expected a value, <table> or values in braces after "dnsbl", found the keyword "regex"; '
     "quote it to use it as a value"),
    ("filter f phase connect match rdns reject", "1: expected the text of reject, found the end of the line"),
    ('filter f phase connect match rdns reject "go away"',
     '1: "go away": a reply starts with a code from 400 to 599 and a blank, as in "550 go away"'),
    ('filter f phase connect match rdns reject "250 Ok"',
     '1: "250 Ok": a reply starts with a code from 400 to 599 and a blank, as in "550 go away"'),
    ('filter f phase connect match rdns disconnect "550"',
     '1: "550": a reply starts with a code from 400 to 599 and a blank, as in "550 go away"'),
    ('filter f phase connect match rdns reject "550 é"',
     '1: "550 é": a reply starts with a code from 400 to 599 and a blank, as in "550 go away"'),
    ("filter f phase commit match auth junk", "1: junk cannot be decided in phase commit"),
    ("filter f phase commit match auth bypass", "1: bypass cannot be decided in phase commit"),
    ("filter f phase connect match rdns rewrite x", "1: phase connect has nothing to rewrite"),
    ("filter f phase data match rdns rewrite x", "1: phase data has nothing to rewrite"),
    ('filter f phase helo match rdns rewrite "a b"', '1: "a b" is not a host name or an address in brackets'),
    ('filter f phase rcpt-to match rdns rewrite "<a@b"',
     '1: "<a@b" is not an address such as "<user@example.org>"'),
    ("filter f phase connect match rdns junk\nfilter f phase data match auth junk",
     '2: filter "f" is already declared at CONF:1'),
    ('filter "<f" phase connect match rdns junk', '1: the name of a filter may not start with "<"'),
    ('filter f phase connect match rdns report "a\tb"', "1: the text of report must be printable"),
]  # fmt: skip
CHAINS = [
    ("filter c chain a", '4: expected "{", found "a"'),
    ("filter c chain { }", '4: expected the name of a filter, found "}"'),
    ("filter c chain { a, }", '4: expected the name of a filter, found "}"'),
    ("filter c chain { a ! }", '4: expected the name of a filter, a comma or "}", found "!"'),
    ("filter c chain { aa }", '4: no filter is declared with the name "aa"; did you mean "a"?'),
    ("filter c chain { a, b, a }", '4: filter "a" is already in this chain'),
    ("filter c chain { n }", '4: filter "n" is a chain, and chains do not nest'),
    ("listen on lo filter { n }", '4: filter "n" is a chain, and chains do not nest'),
    ("listen on lo filter x", '4: no filter is declared with the name "x"'),
    ("listen on lo filter", '4: expected the name of a filter or "{", found the end of the line'),
    ("listen on lo filter a filter b", "4: a filter is already given for this listener"),
    ("listen on socket filter a filter { b }", "4: a filter is already given for this listener"),
    ("filter c chain { broken }\nfilter broken phase connect match nothing", '4: no filter is declared with the name'),
]  # fmt: skip
ABC = "filter a phase connect match rdns junk\nfilter b phase data match auth bypass\nfilter n chain { a, b }\n"


@pytest.mark.parametrize(
    ("text", "expected"), [*BUILTIN, *((ABC + text, expected) for text, expected in CHAINS)]
)  # fmt: skip
def test_refused_with_a_reason(errors_of, text: str, expected: str) -> None:
    """file:line: what was expected and what was found."""
    if "<map>" in text:
        text = TABLES + text
    found = errors_of(f"{text}\n{RULE}")
    assert found
    assert found[0].startswith(expected), found[0]


PROGRAMS = [
    ("admd", "1: expected the administrative domain, found the end of the line"),
    ("admd a.example\nadmd b.example", "2: admd is already given"),
    ('admd "a b"', '1: the administrative domain has no blanks: "a b"'),
    ('admd "-"', '1: the administrative domain must be a host name: "-"'),
    ("proc", "1: expected the name of a proc, found the end of the line"),
    ("proc p", "1: expected a command, found the end of the line"),
    ('proc p ""', "1: the command is empty"),
    ('proc p "/x	y"', "1: a command is one line of printable characters"),
    (f'proc p "{"a " * 65}"', "1: the command has more than 64 words"),
    ('proc p "/x" user', "1: expected the name of a user, found the end of the line"),
    ('proc p "/x" user a user b', "1: user is already given for this program"),
    ('proc p "/x" chroot "x"', '1: the directory to chroot to must start with "/": "x"'),
    ('proc p "/x" mode x',
     '1: expected an option of a filter program (chroot, group, user) or the end of the line, found "mode"'),
    ('proc p "/x"\nproc p "/y"', '2: proc "p" is already declared at CONF:1'),
    ("filter f proc", "1: expected the name of a proc, found the end of the line"),
    ('proc part "/x"\nfilter f proc parts', '2: no proc is declared with the name "parts"; did you mean "part"?'),
    ("filter f proc-exec", "1: expected a command, found the end of the line"),
    ('proc f "/x"\nfilter f proc-exec "/y"', '2: proc "f" is already declared at CONF:1'),
    ('proc p "/x"\nfilter a proc p\nfilter b proc p\nfilter c chain { a, b }', '4: proc "p" is already in this chain'),
    ('filter f proc-exec "/x" on-failure', "1: expected accept or tempfail, found the end of the line"),
    ('filter f proc-exec "/x" on-failure acept',
     '1: expected accept or tempfail, found "acept"; did you mean "accept"?'),
    ('proc p "/x" on-failure accept', '1: expected the end of the line, found "on-failure"'),
    ("filter f chain { } on-failure accept", "1: expected the name of a filter"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), PROGRAMS)
def test_programs_refused_with_a_reason(errors_of, text: str, expected: str) -> None:
    """file:line: what was expected and what was found."""
    found = errors_of(f"{text}\n{RULE}")
    assert found
    assert found[0].startswith(expected), found[0]


def test_programs(load_text) -> None:
    """Who runs what as whom: the parent alone learns it; lookup gets names, smtp that there are programs."""
    conf = load_text(
        """\
admd mail.here.example
proc "shared one" "filter-x -a 1" user alice group bob chroot "/jail"
filter a proc "shared one"
filter b proc "shared one" on-failure accept
filter c proc-exec "/usr/bin/y '$HOME'" user carol on-failure tempfail
listen on lo filter { a, c }
listen on if0 filter b
"""
        + RULE
    )
    assert conf.admd == "mail.here.example"
    assert conf.filters["b"].body == Program("shared one", True)
    slices = compile_settings(conf)
    shared, own = slices.programs
    assert shared == ProgramSettings("shared one", "filter", ("filter-x", "-a", "1"), False, "alice", "bob", "/jail")
    assert own == ProgramSettings("c", "filter", ("/usr/bin/y '$HOME'",), True, "carol")
    lookup = slices.lookup
    assert (lookup.procs, lookup.admd) == (("shared one", "c"), "mail.here.example")
    assert [(f.program, f.accept_on_failure) for f in lookup.filters[:3]] == [
        ("shared one", False), ("shared one", True), ("c", False),
    ]  # fmt: skip
    assert [listener.filter_programs for listener in slices.smtp.listeners] == [True, True, True, True, False]
    every = (1 << len(FILTER_PHASES)) - 1
    assert [listener.filter_phases for listener in slices.smtp.listeners] == [every, every, every, every, 0]


def test_a_broken_filter_is_reported_once(errors_of) -> None:
    """Uses of a filter that was declared with an error are not reported as well."""
    text = f"filter f phase connect match nothing\nfilter c chain {{ f }}\nlisten on lo filter f\n{RULE}"
    assert len(errors_of(text)) == 1


def test_filters_of_a_relay(load_text) -> None:
    """Lookup and delivery learn the name, also of a chain in place; a builtin filter there decides nothing."""
    conf = load_text(
        'filter p proc-exec "/bin/p"\n'
        "filter b phase connect match !rdns junk\naction one relay filter p\n"
        "action two relay filter { p, b }\nmatch for any action one\nmatch from any for any action two\n"
    )
    assert [each.text for each in conf.warnings] == [
        'filter "b" has no effect on a relay: only programs are told of it'
    ]
    slices = compile_settings(conf)
    for actions in (slices.lookup.actions, slices.delivery.actions):
        assert [action.relay_filter for action in actions] == ["p", "<chain:0001>"]
