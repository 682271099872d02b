"""config/dangers and config/files: what is legal, and probably not meant."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from smtpd_ps.config.files import check_files

CONF = "/etc/mail/smtpd.conf"
OPEN = "this rule relays mail of anyone to anyone (an open relay); it should ask for auth"
LISTEN = "listen on if0\n"
RELAY = "action out relay\n"


Warnings = Callable[[str], list[tuple[int, str]]]


@pytest.fixture
def warnings(load_text) -> Warnings:
    """Line and text of each warning about a configuration."""
    return lambda text: [(each.line, each.text) for each in load_text(text).warnings]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (LISTEN + RELAY + "match from any for any action out", 3),
        (LISTEN + RELAY + "match from mail-from a@b for any action out", 3),
        (LISTEN + RELAY + "match from any for any !mail-from { x@y } helo z tls action out", 3),
        (LISTEN + 'action out relay host "smtp://mx"\nmatch from any for any action out', 3),
        (LISTEN + RELAY + "match from any for domain a reject\nmatch from any for any action out", 4),
    ],
)
def test_open_relays(warnings: Warnings, text: str, line: int) -> None:
    """Anyone may send to anyone, whatever the client says of itself."""
    assert warnings(text) == [(line, OPEN)]


@pytest.mark.parametrize(
    "rules",
    [
        RELAY + "match from any auth for any action out",
        RELAY + "match from auth for any action out",
        RELAY + "match from local for any action out",
        RELAY + "match from src 192.0.2.0/24 for any action out",
        RELAY + "match from any for domain a.example action out",
        RELAY + "match from any for any rcpt-to a@b action out",
        RELAY + "match from any for any tag inside action out",
        RELAY + "match from any for any !auth reject\nmatch from any for any action out",
        RELAY + "match !from any for any action out",
        "action out mbox\nmatch from any for any action out",
        "match from any for any reject",
    ],
)
def test_no_open_relay(warnings: Warnings, rules: str) -> None:
    """A rule that asks for something which a stranger has not is none."""
    assert warnings(LISTEN + rules) == []


def test_listeners_that_let_nobody_in(warnings: Warnings) -> None:
    """Where every listener is loopback or wants a password, such a rule is for friends."""
    rule = RELAY + "match from any for any action out\n"
    pki = 'pki p cert "/c" key "/k"\n'
    assert warnings("listen on lo\n" + rule) == []
    assert warnings(rule) == []
    assert warnings(pki + "listen on if0 tls-require pki p auth\n" + rule) == []
    assert warnings(pki + "listen on if0 tls-require pki p auth-optional\n" + rule) == [(4, OPEN)]
    assert warnings(pki + "listen on if0 tls-require pki p auth\nlisten on if1\n" + rule) == [(5, OPEN)]


def test_unused_actions(warnings: Warnings) -> None:
    """Each action that no rule names."""
    text = "action a mbox\naction b mbox\naction c mbox\nmatch for any action b"
    assert warnings(text) == [(1, 'action "a" is never used'), (3, 'action "c" is never used')]


@pytest.mark.parametrize(
    ("rules", "never"),
    [
        (["from any for any", "from local for any"], {2: 1}),
        (["", "from local for local"], {2: 1}),
        (["for any", "from any for any", "", "tag t"], {3: 1, 4: 1}),
        (["from any for domain a", "from any for domain A"], {2: 1}),
        (["from any for domain { a, b }", "from any for domain { b a } tls"], {2: 1}),
        (["from any for domain a", "from any for domain { a, b }"], {}),
        (["from any for domain <t>", "from any for domain <t> helo h", "from any for domain <u>"], {2: 1}),
        (["from any for domain regex a", "from any for domain a"], {}),
        (["from any for domain a", "from any !for domain a"], {}),
        (["from auth for any", "from any auth for any tls"], {2: 1}),
        (["from any auth for any", "from any auth { a } for any"], {}),
        (["from any for rcpt-to a@b", "from any for any rcpt-to a@b"], {2: 1}),
        (["!from any for any", "from any for any", "from any for any"], {3: 2}),
    ],
)
def test_rules_that_are_never_reached(warnings: Warnings, rules: list[str], never: dict[int, int]) -> None:
    """An earlier rule with some of the same conditions and no other takes all of a later one's mail."""
    text = "".join(f"match {rule} reject\n" for rule in rules) + "table t { a }\ntable u { a }\n"
    lines = text.splitlines()
    found = warnings("\n".join([*lines[-2:], *lines[:-2]]) + "\n")
    assert found == [
        (line + 2, f"this rule is never reached: the one at {CONF}:{by + 2} takes all that it would take")
        for line, by in never.items()
    ]


def test_rules_with_many_conditions_and_many_rules(warnings: Warnings) -> None:
    """The search stays short."""
    many = 'helo h tag t tls auth mail-from a@b for rcpt-to c@d from src "192.0.2.0/24"'
    assert [line for line, _text in warnings(f"match {many} reject\n" * 3)] == [2, 3]
    text = "".join(f"match from any for domain d{n}.example reject\n" for n in range(4000))
    assert warnings(text) == []


def test_credentials_that_everyone_can_read(load_text, tmp_path: Path) -> None:
    """A table of passwords is better readable by root alone; other tables may be read."""
    for name in ("users", "hosts", "domains"):
        (tmp_path / name).write_text("a b\n")
    for name, mode in (("cert", 0o644), ("key", 0o600)):
        (tmp_path / name).write_text("-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n")
        (tmp_path / name).chmod(mode)
    text = f"""
table users "{tmp_path}/users"
table hosts "{tmp_path}/hosts"
table domains "{tmp_path}/domains"
pki p cert "{tmp_path}/cert" key "{tmp_path}/key"
listen on lo tls pki p auth <users>
action out relay host smtps://l@mx auth <hosts>
match for domain <domains> action out
"""
    conf = load_text(text)

    def found(mode: int) -> list[str]:
        for name in ("users", "hosts", "domains"):
            os.chmod(tmp_path / name, mode)
        problems = check_files(conf)
        assert all(each.warning for each in problems)
        return [str(each) for each in problems]

    assert found(0o640) == []
    assert found(0o644) == [
        f'{CONF}:{line}: warning: file of table "{name}": {tmp_path}/{name} '
        "holds credentials and can be read by everyone"
        for line, name in ((2, "users"), (3, "hosts"))
    ]
