"""The documents say what the code says."""

import re
from pathlib import Path

import generate_architecture
import pytest

from smtpd_ps.cli.smtpctl_ps import Commands
from smtpd_ps.config.directives import PRODUCTIONS, UNSUPPORTED
from smtpd_ps.contract.installation import paths
from smtpd_ps.contract.values import Process

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
MAN = DOCS / "man"
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
RFC = re.compile(r"RFC (\d{3,5})(?:,? (\d{1,2}(?:\.\d+)*)(?!\d))?")
ROW = re.compile(r"^\| (.*) \|$", re.MULTILINE)


def cells(row: str) -> list[str]:
    """The cells of a Markdown row; an escaped bar does not end one."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", row)]


def named_tests(text: str) -> list[tuple[str, str]]:
    """Every `tests/...py::name` in a text."""
    return [(found[1], found[2] or "") for found in TEST.finditer(text)]


def test_generated_tables_are_fresh() -> None:
    """docs/ARCHITECTURE.md holds the tables that the contract makes now (make docs)."""
    text = generate_architecture.DOCUMENT.read_text()
    assert text == generate_architecture.generate(text)


def test_every_table_is_in_the_document() -> None:
    """No generated table was lost from docs/ARCHITECTURE.md."""
    for name in generate_architecture.TABLES:
        assert f"<!-- generated: {name} -->" in generate_architecture.DOCUMENT.read_text()


def test_smtpctl_manual_has_every_command() -> None:
    """smtpctl_ps.8 describes exactly the commands there are, in their order, with their arguments."""
    page = (MAN / "smtpctl_ps.8").read_text()
    lines = re.findall(r"^\.It Ic (.*)$", page, re.MULTILINE)
    described = [re.sub(r"\b(Op|Ar|Ic|Cm) ", "", re.sub(r"\bFl ", "-", line)).replace(" | ", "|") for line in lines]
    described = [line.replace(" ", "") for line in described]
    there = [
        "".join((*command.words, *(word.strip("[]") for word in command.arguments)))
        for command in Commands(None, False).table()
    ]
    assert described == there


def test_conf_manual_has_every_directive() -> None:
    """smtpd.conf.5 describes every directive that is supported and none that is not."""
    page = (MAN / "smtpd.conf.5").read_text()
    words = set(re.findall(r"^(?:\.It Ic|\.Ic) (\w+)", page, re.MULTILINE))
    supported = set(PRODUCTIONS) - set(UNSUPPORTED) - {"ca"}  # ca has no effect yet, and says so
    assert supported <= words
    assert not set(UNSUPPORTED) & set(re.findall(r"^\.It Ic (\w+)", page, re.MULTILINE))


def test_manual_has_privileges_of_each_process() -> None:
    """smtpd_ps.8's PRIVILEGES has a paragraph for each process, in order."""
    page = (MAN / "smtpd_ps.8").read_text()
    section = page[page.index(".Sh PRIVILEGES") : page.index(".Sh FILES")]
    described = re.findall(r"^\.It Sy (\w+)$", section, re.MULTILINE)
    assert described == [process.title for process in Process if process is not Process.CLIENT]


def test_manual_names_the_files() -> None:
    """Paths in smtpd_ps.8 are those of the installation."""
    page = (MAN / "smtpd_ps.8").read_text()
    places = paths(None)
    for path in (places.queue, places.empty, places.control_socket, places.submission_socket, places.pid_file):
        assert f".It Pa {path}\n" in page


@pytest.mark.parametrize("document", ["SECURITY.md", "PARITY.md"])
def test_named_tests_exist(document: str) -> None:
    """A test that a document names is there, in the file that it names."""
    named = named_tests((DOCS / document).read_text())
    for path, name in named:
        text = (ROOT / path).read_text() if (ROOT / path).exists() else ""
        assert text, f"{path} does not exist"
        assert not name or f"def {name}(" in text, f"{path} has no {name}"


def test_parity_rows_are_honest() -> None:
    """Each row has a status, and what works has a test that shows it."""
    statuses = []
    for row in ROW.findall((DOCS / "PARITY.md").read_text()):
        *_rest, status, shown = cells(row)
        if status in ("status", "---"):
            continue
        assert status in ("works", "partly", "not yet"), row
        if status == "works":
            assert named_tests(shown), f"no test for: {row}"
        statuses.append(status)
    assert len(statuses) > 200


def test_security_promises_have_tests() -> None:
    """Each promise that docs/SECURITY.md calls kept names a test."""
    rows = [cells(row) for row in ROW.findall((DOCS / "SECURITY.md").read_text())]
    promises = [row for row in rows if len(row) == 2 and row[0] not in ("promise", "---")]
    assert promises
    for promise, shown in promises:
        assert named_tests(shown), promise


def test_rfc_index_is_right() -> None:
    """Every line of docs/rfc-index.tsv names a module that cites that section, and no cited RFC is missing."""
    head, *lines = (DOCS / "rfc-index.tsv").read_text().splitlines()
    assert head == "RFC\tsection\tsubject\tmodule"
    indexed = set()
    for line in lines:
        rfc, section, subject, module = line.split("\t")
        assert subject
        indexed.add(rfc)
        cited = {(found[1], found[2] or "") for found in RFC.finditer((ROOT / module).read_text())}
        assert (rfc, section) in cited, f"{module} does not cite RFC {rfc} {section}"
    for path in (ROOT / "smtpd_ps").rglob("*.py"):
        for found in RFC.finditer(path.read_text()):
            assert found[1] in indexed, f"{path.name} cites RFC {found[1]}, which docs/rfc-index.tsv lacks"


def test_links_lead_somewhere() -> None:
    """Relative links of the documents and the README lead to files that exist."""
    for document in (ROOT / "README.md", *DOCS.glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
