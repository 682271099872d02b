"""A host for the configuration that exists in memory only."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import pytest

from smtpd_ps.config.load import load
from smtpd_ps.config.model import Configuration, ConfigurationError

CONF = "/etc/mail/smtpd.conf"
RULE = "match from any for any reject\n"
TABLES = 'table list { a, b }\ntable map { a = b }\ntable file "/f"\n'


@dataclass
class FakeHost:
    """Files by path, and the interfaces, groups, names and services that tests use."""

    files: dict[str, str | Exception] = field(default_factory=dict)
    name: str = "mail.example.org"

    def read_text(self, path: str) -> str:
        content = self.files.get(path, FileNotFoundError(2, "No such file or directory"))
        if isinstance(content, Exception):
            raise content
        return content

    def hostname(self) -> str:
        return self.name

    def interface_addresses(self) -> Mapping[str, tuple[str, ...]]:
        return {
            "lo": ("127.0.0.1", "::1"),
            "if0": ("192.0.2.1", "2001:db8::1"),
            "if1": ("198.51.100.1",),
            "bare": (),
        }

    def interface_group(self, name: str) -> tuple[str, ...]:
        return {"egress": ("if0", "if1")}.get(name, ())

    def resolve(self, host: str) -> tuple[str, ...]:
        return {"mx.example.org": ("203.0.113.9", "2001:db8::9")}.get(host, ())

    def service_port(self, name: str) -> int | None:
        return {"smtp": 25, "smtps": 465, "submission": 587}.get(name)


Load = Callable[..., Configuration]
Errors = Callable[..., list[str]]


@pytest.fixture
def load_text() -> Load:
    """Load a text as smtpd.conf; further files by keyword `files`, macros by `defines`."""

    def load_it(text: str, files: Mapping[str, str | Exception] = {}, defines: Mapping[str, str] = {}) -> Configuration:
        return load(CONF, FakeHost({CONF: text, **files}), defines)

    return load_it


@pytest.fixture
def errors_of(load_text: Load) -> Errors:
    """The problems of a text as lines, without the path of smtpd.conf and the columns; [] where it loads."""

    def problems(text: str, **more: object) -> list[str]:
        try:
            load_text(text, **more)
        except ConfigurationError as error:
            lines = (str(replace(problem, column=0)).replace(CONF, "CONF") for problem in error.problems)
            return [line.removeprefix("CONF:") if line[5:6].isdigit() else line for line in lines]
        return []

    return problems


@pytest.fixture
def refused(errors_of: Errors) -> Callable[[str, str | list[str]], None]:
    """Look that a text has these errors and no others; the tables `list`, `map` and `file` are declared for it."""

    def check(text: str, expected: str | list[str]) -> None:
        if any(f"<{name}>" in text for name in ("list", "map", "file", "fiel")) or text.startswith("table list"):
            text = TABLES + text
        ending = "" if "quote that starts" in str(expected) or "end of the file" in str(expected) else "\n" + RULE
        assert errors_of(text + ending)[: 1 if not ending else None] == (
            [expected] if isinstance(expected, str) else expected
        )

    return check
