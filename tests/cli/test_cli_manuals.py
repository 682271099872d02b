"""The manual pages of the programs name every option that the programs take, and no other."""

import re
from pathlib import Path

import pytest

from smtpd_ps.cli import mailq, makemap, newaliases, sendmail_options, smtp_options

PAGES = Path(__file__).parents[2] / "docs/man"


def options_of(text: str) -> set[str]:
    """The options that have a paragraph of their own; of getopt(3) the letters, else --words."""
    found = set(re.findall(r"^\.It Fl (\S+)", text, re.MULTILINE))
    return {f"-{word}" for word in found}


def options_in(usage: str) -> set[str]:
    """The options of a usage line: -x, clusters such as -tv, and --words."""
    found = {f"--{word}" for word in re.findall(r"--([a-z-]+)", usage)}
    for cluster in re.findall(r"\[-([A-Za-z]+)", usage):
        found |= {f"-{letter}" for letter in cluster}
    return found


@pytest.mark.parametrize(
    ("page", "program", "usage", "more"),
    [
        ("sendmail.8", "sendmail_ps", sendmail_options.USAGE, set("qrS")),
        ("mailq.8", "mailq_ps", mailq.USAGE, set()),
        ("smtp.1", "smtp_ps", smtp_options.USAGE, set()),
        ("newaliases.8", "newaliases_ps", newaliases.USAGE, set()),
        ("makemap.8", "makemap_ps", makemap.USAGE, set()),
    ],
)
def test_options(page: str, program: str, usage: str, more: set[str]) -> None:
    """The paragraphs of the page are the options of the usage (`more`: those the usage leaves out)."""
    text = (PAGES / page).read_text()
    assert f".Nm {program}\n" in text and f"usage: {program} " in usage
    assert options_of(text) == options_in(usage) | {f"-{letter}" for letter in more}


def test_every_letter_of_sendmail_is_in_its_manual() -> None:
    """Those that change nothing stand in a sentence."""
    text = (PAGES / "sendmail.8").read_text()
    named = {word for line in re.findall(r"^\.Fl (.*)$", text, re.MULTILINE) for word in re.findall(r"[A-Za-z]", line)}
    named |= {option[1] for option in options_of(text)}
    letters = {letter for letter in sendmail_options._LETTERS if letter != ":"}
    assert letters <= named


def test_words_of_tls_and_servers() -> None:
    """The parameters of -T and the protocols of -s have their lines in smtp(1)."""
    words = set(re.findall(r"^\.It Cm (\S+)", (PAGES / "smtp.1").read_text(), re.MULTILINE))
    assert words == set(smtp_options._TLS_WORDS) | set(smtp_options._SCHEMES)


def test_exit_statuses() -> None:
    """Every status in a page is one of sysexits(3) that the programs use."""
    from smtpd_ps.cli.program import Exit

    for page in ("sendmail.8", "smtp.1"):
        text = (PAGES / page).read_text()
        statuses = set(map(int, re.findall(r"^\.It (\d+)$", text, re.MULTILINE)))
        assert statuses and statuses <= set(Exit)


def test_mailer_conf_names_programs_that_are_installed() -> None:
    """Each line of the sample is a name and the path of a script of this package."""
    scripts = set(re.findall(r"^([a-z]+_ps) = ", (PAGES.parents[1] / "pyproject.toml").read_text(), re.MULTILINE))
    lines = [line.split() for line in (PAGES.parents[1] / "etc/mailer.conf").read_text().splitlines() if line[0] != "#"]
    assert {"sendmail", "send-mail", "mailq", "newaliases", "makemap"} == {name for name, _path in lines}
    assert all(path.removeprefix("/usr/local/bin/") in scripts for _name, path in lines)
