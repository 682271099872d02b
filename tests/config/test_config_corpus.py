"""Configurations such as administrators have: what is taken, and what is said to be missing.

Each file of corpus/ begins with `# expect: ok`, with what is not supported yet (all of it,
between semicolons), or with `# expect: error` for what OpenSMTPD refuses as well.
"""

from pathlib import Path

import pytest

from smtpd_ps.config.compile import compile_settings
from smtpd_ps.config.load import load
from smtpd_ps.config.model import ConfigurationError
from smtpd_ps.config.print import print_configuration

CORPUS = Path(__file__).parent / "corpus"
FILES = sorted(CORPUS.glob("*.conf"))
INCLUDED = """\
fqdn = "mail.example.org"
ext_if = "if0"
domains = "{ example.org, example.net }"
pki $fqdn cert "/etc/ssl/mail.pem" key "/etc/ssl/private/mail.key"
"""
SUFFIX = " is not supported yet"


class Host:
    """A host with the interfaces and groups that the files name."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files

    def read_text(self, path: str) -> str:
        return self.files[path]

    def hostname(self) -> str:
        return "mail.example.org"

    def interface_addresses(self) -> dict[str, tuple[str, ...]]:
        return {"lo0": ("127.0.0.1", "::1"), "eth0": ("192.0.2.1",), "if0": ("198.51.100.1", "2001:db8::1")}

    def interface_group(self, name: str) -> tuple[str, ...]:
        return ("if0",) if name == "egress" else ()

    def resolve(self, host: str) -> tuple[str, ...]:
        return ("127.0.0.1",) if host == "localhost" else ()

    def service_port(self, name: str) -> int | None:
        return {"submission": 587}.get(name)


def expected(text: str) -> str:
    first = text.splitlines()[0]
    assert first.startswith("# expect: "), first
    return first.removeprefix("# expect: ")


def problems(path: Path) -> list[str]:
    """Errors without their places; of a configuration that is taken, that it prints as itself and compiles."""
    text = path.read_text()
    host = Host({"/c": text, "/etc/mail/host.conf": INCLUDED})
    try:
        conf = load("/c", host)
    except ConfigurationError as error:
        return list(dict.fromkeys(problem.text for problem in error.problems if not problem.warning))
    compile_settings(conf)
    printed = print_configuration(conf)
    host.files["/c"] = printed
    assert print_configuration(load("/c", host)) == printed
    return []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_configuration(path: Path) -> None:
    """It is taken, or all that is wrong with it is what its first line says."""
    wanted = expected(path.read_text())
    found = problems(path)
    if wanted == "ok":
        assert found == []
    elif wanted == "error":
        assert found
        assert not any(text.endswith(SUFFIX) for text in found)
    else:
        assert found == [text.strip() for text in wanted.split(";")]
        assert all(text.endswith(SUFFIX) for text in found)


def test_there_are_enough() -> None:
    """At least 25, and each says what it is for."""
    assert len(FILES) >= 25
    assert all(path.read_text().splitlines()[1].startswith("# ") for path in FILES)
