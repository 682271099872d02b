"""The words of the grammar and docs/man/smtpd.conf.5, both ways."""

import re
from collections.abc import Iterator
from pathlib import Path

from smtpd_ps.config.directives import PRODUCTIONS
from smtpd_ps.config.directives.limits import MDA_LIMITS, MTA_LIMITS, SCHEDULER_LIMITS, SMTP_LIMITS
from smtpd_ps.config.tokens import KEYWORDS

PAGE = Path(__file__).parents[2] / "docs/man/smtpd.conf.5"
LITERAL = ("Ic", "Cm")  # macros of literal words
MACRO = re.compile(r"[A-Z][a-z]")
LIMITS = {name: limit for of in (MDA_LIMITS, MTA_LIMITS, SCHEDULER_LIMITS, SMTP_LIMITS) for name, limit in of.items()}
WORK = {name for name, limit in LIMITS.items() if limit.field}  # the others are taken with a warning
# Literal words of the page that are no reserved words: another program, and words of ours for filters.
OTHERS = {"smtpctl_ps", "encrypt", "dnsbl", "on-failure", "accept", "tempfail"}
# Words that OpenSMTPD reserves and its grammar uses nowhere.
RESERVED = {"data-line", "noop", "quit", "recipient", "rset", "smtp-in", "smtp-out", "tagged"}


def literals(text: str, macros: tuple[str, ...] = LITERAL) -> Iterator[str]:
    """The words that the page sets as literals."""
    for line in text.splitlines():
        if not line.startswith("."):
            continue
        macro = ""
        for token in line[1:].split():
            if MACRO.fullmatch(token):
                macro = "" if token in ("Ar", "Pa", "Xr", "No", "Fl", "Sx", "Ql", "Dq", "Qq", "Nm") else macro
                macro = token if token in macros else macro
            elif macro in macros:
                yield token.strip('",')


def test_every_word_of_the_grammar_is_in_the_manual() -> None:
    """A directive, an option or a limit that works has its place in smtpd.conf(5)."""
    there = set(literals(PAGE.read_text()))
    assert sorted((KEYWORDS | WORK) - there - RESERVED) == []
    paragraphs = set(re.findall(r"^\.It (?:Xo\n\.)?Ic ([a-z-]+)", PAGE.read_text(), re.MULTILINE))
    assert sorted(set(PRODUCTIONS) - paragraphs) == []


def test_every_word_of_the_manual_is_in_the_grammar() -> None:
    """What smtpd.conf(5) sets as a command word is a reserved word or a limit."""
    named = {word for word in literals(PAGE.read_text(), ("Ic",)) if re.fullmatch(r"[a-z][a-z0-9-]*", word)}
    assert sorted(named - KEYWORDS - set(LIMITS) - OTHERS) == []


def test_the_manual_is_read() -> None:
    """Literals are found after their macro, up to the next that begins something else."""
    text = ".It Ic inet4 | inet6\n.Ic a Ar b Cm c d\ntext Ic no\n.Op Ic e Oo Ar f Oc , g\n"
    assert [word for word in literals(text) if word != "|"] == ["inet4", "inet6", "a", "c", "d", "e"]
