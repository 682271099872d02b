"""Every place of the grammar that takes a table, and every form of table in it."""

import pytest

from smtpd_ps.contract.settings import TableUse
from smtpd_ps.pure.table_uses import USES

RULE = "match from any for any reject\n"
PKI = 'pki p cert "/c" key "/k"\n'
LISTEN = f"{PKI}listen on lo tls pki p auth"
FILTER = "filter f phase"
# Each place with {} for the table, and how the table is used there.
PLACES: list[tuple[str, TableUse]] = [
    ("action a maildir alias {}", "alias"),
    ("action a mbox alias {}", "alias"),
    ('action a lmtp "/l" virtual {}', "virtual"),
    ("action a expand-only virtual {}", "virtual"),
    ("action a maildir userbase {}", "userinfo"),
    ("action a relay host smtps://l@h auth {}", "relay-credentials"),
    ("action a relay host {}", "relayhosts"),
    ("action a relay domain {}", "relayhost"),
    ("action a relay src {}", "source"),
    ("action a relay helo-src {}", "addrname"),
    (f"{LISTEN} {{}}", "credentials"),
    (f"{PKI}listen on lo smtps pki p auth-optional {{}}", "credentials"),
    ("listen on lo hostnames {}", "addrname"),
    (f"{LISTEN} senders {{}}", "mailaddrmap"),
    (f"{LISTEN} senders {{}} masquerade", "mailaddrmap"),
    ("match for domain {} reject", "domain"),
    ("match !for rcpt-to {} reject", "mailaddr"),
    ("match from src {} reject", "netaddr"),
    ("match from rdns {} reject", "domain"),
    ("match !from auth {} reject", "string"),
    ("match from mail-from {} reject", "mailaddr"),
    ("match auth {} reject", "user"),
    ("match !tag {} reject", "string"),
    ("match helo {} reject", "domain"),
    ("match mail-from {} reject", "mailaddr"),
    ("match rcpt-to {} reject", "mailaddr"),
    *[
        (f"match {condition} regex {{}} reject", "regex")
        for condition in (
            "for domain", "for rcpt-to", "from src", "from rdns", "from auth", "from mail-from",
            "auth", "tag", "helo", "mail-from", "rcpt-to",
        )
    ],
    (f'{FILTER} connect match src {{}} reject "550 no"', "netaddr"),
    (f'{FILTER} connect match rdns {{}} reject "550 no"', "domain"),
    (f'{FILTER} helo match helo {{}} reject "550 no"', "domain"),
    (f'{FILTER} auth match auth {{}} reject "550 no"', "user"),
    (f'{FILTER} mail-from match mail-from {{}} reject "550 no"', "mailaddr"),
    (f'{FILTER} rcpt-to match rcpt-to {{}} reject "550 no"', "mailaddr"),
    (f'{FILTER} rcpt-to match rcpt-to regex {{}} reject "550 no"', "regex"),
]  # fmt: skip
ENTRY: dict[TableUse, tuple[str, str]] = {
    "userinfo": ("bob", "1000:1000:/home/bob"), "relay-credentials": ("l", "u:p"), "netaddr": ("192.0.2.1", "x"),
    "relayhosts": ("smtps://l@h", "x"), "relayhost": ("b.example", "smtp://h"), "source": ("192.0.2.1", "x"),
    "addrname": ("192.0.2.1", "a.example"), "mailaddrmap": ("bob", "b@a.example"),
}  # fmt: skip


@pytest.mark.parametrize(("place", "use"), PLACES)
def test_every_form_in_every_place(errors_of, place: str, use: TableUse) -> None:
    """In place, declared with values, of a file, of a database: taken where list or mapping is what is needed."""
    if use == "relayhosts":
        place += " auth <secrets>"
    key, value = ENTRY.get(use, ("a.example", "x"))
    tables = (
        f'table secrets "/s"\ntable l {{ "{key}" }}\ntable m {{ "{key}" = "{value}" }}\n'
        'table f "/f"\ntable d db:/d.db\ntable p getpwnam\n'
    )
    kinds = USES[use].kinds
    forms = (
        (f'"{key}"', "list" in kinds), (f'{{ "{key}", "{key}" }}', "list" in kinds), ("<l>", "list" in kinds),
        (f'{{\n"{key}" => "{value}"\n}}', "map" in kinds), ("<m>", "map" in kinds),
        ("<f>", True), ("<d>", True), ("<p>", use == "userinfo"), ("<none>", False), ("5", False),
    )  # fmt: skip
    for form, good in forms:
        problems = errors_of(f"{tables}{place.format(form)}\n{RULE}")
        assert bool(problems) is not good, (form, problems)
        if form in ("<l>", "<m>") and not good:
            assert "needs a " in problems[0]


def test_every_use_has_a_place() -> None:
    """No use of a table is left out above."""
    assert {use for _place, use in PLACES} == set(USES)


def test_contradicting_uses_of_one_file(errors_of) -> None:
    """A file cannot be a list and a mapping, but serves several uses of one kind."""
    good = 'table f "/f"\naction a maildir alias <f>\nmatch auth <f> mail-from <f> reject\n'
    assert errors_of(good + RULE) == []
    assert errors_of(f"{good}match tag <f> reject\n{RULE}") == [
        '4: tag needs a list such as { a, b }, but table "f" is used as a mapping above'
    ]
