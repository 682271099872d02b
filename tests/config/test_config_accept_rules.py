"""config/load: which actions, rules and tables are accepted, and what they mean."""

import pytest

from smtpd_ps.config.compile import compile_settings
from smtpd_ps.config.model import ExpandOnly, ForwardOnly, Lmtp, Maildir, Mbox, Relay

RULE = "match from any for any reject\n"


@pytest.mark.parametrize(
    ("line", "method"),
    [
        ("expand-only", ExpandOnly()),
        ("forward-only", ForwardOnly()),
        ("maildir", Maildir("")),
        ('maildir "/var/mail/%{user.username}"', Maildir("/var/mail/%{user.username}")),
        ('maildir "~/Mail/%{dest.user[0:1]:lowercase|strip}"', Maildir("~/Mail/%{dest.user[0:1]:lowercase|strip}")),
        ("maildir Mail", Maildir("~/Mail")),
        ('maildir "%{user.directory}/m"', Maildir("%{user.directory}/m")),
        ("mbox", Mbox()),
        ('lmtp "/run/lmtp"', Lmtp("/run/lmtp", rcpt_to=False)),
        ("lmtp localhost:24 rcpt-to", Lmtp("localhost:24", rcpt_to=True)),
        ("lmtp localhost", Lmtp("localhost:25", rcpt_to=False)),
        ('lmtp "[::1]:24"', Lmtp("[::1]:24", rcpt_to=False)),
        ("relay", Relay()),
        ("relay tls", Relay(tls="require-verify")),
        ("relay tls no-verify", Relay(tls="require")),
        ("relay helo mx.example.org", Relay(helo="mx.example.org")),
        ('relay helo "[192.0.2.1]"', Relay(helo="[192.0.2.1]")),
        ("relay mail-from a@b.example", Relay(mail_from="a@b.example")),
        ('relay mail-from "@b.example"', Relay(mail_from="@b.example")),
        ("relay host smtp://mx:26", Relay(("smtp://mx:26",))),
        ("relay host mx1 tls", Relay(("mx1",), "require-verify")),
        ("relay host smtp+tls://mx", Relay(("smtp+tls://mx",))),
        ("relay host smtp+tls://mx tls no-verify", Relay(("smtp+tls://mx",), "require")),
        ("relay host smtp+notls://mx", Relay(("smtp+notls://mx",))),
        ("relay host smtps://mx", Relay(("smtps://mx",))),
        ("relay host smtps://mx tls no-verify", Relay(("smtps://mx",), "require")),
        ("relay host { mx1, mx2 }", Relay(("mx1", "mx2"))),
        ("relay host lmtp://mx:24", Relay(("lmtp://mx:24",))),
        ("relay host { mx1, smtps://mx2, lmtp://mx3:24 }", Relay(("mx1", "smtps://mx2", "lmtp://mx3:24"))),
        ("relay host mx1 backup host { mx2, smtps://mx3 }", Relay(("mx1",), backup_hosts=("mx2", "smtps://mx3"))),
        ("relay backup", Relay(backup="mail.example.org")),
        ("relay backup mx Mx2.example", Relay(backup="mx2.example")),
        ("relay domain <secrets>", Relay(domain_table="secrets")),
        ("relay domain <secrets> auth <secrets>", Relay(auth_table="secrets", domain_table="secrets")),
        ('relay ca Roots tls\nca roots cert "/r"', Relay(tls="require-verify", ca="roots")),
        ("relay protocols tlsv1.3", Relay(protocols=("TLSv1.3",))),
        ('relay protocols "all:!tlsv1.3"', Relay(protocols=("TLSv1.2",))),
        ("relay protocols default", Relay(protocols=("TLSv1.2", "TLSv1.3"))),
        ('relay ciphers "ECDHE+AESGCM"', Relay(ciphers="ECDHE+AESGCM")),
        ("relay src <secrets>", Relay(src_table="secrets")),
        ("relay helo-src <secrets>", Relay(helo_table="secrets")),
        ("relay host <smarthosts>", Relay(("smtp://A.example", "smtp://b.example"))),
        ("relay host <relays> auth <secrets>", Relay(auth_table="secrets", host_table="relays")),
        ("relay host smtps://Bob@mx auth <secrets>", Relay(("smtps://Bob@mx",), auth_table="secrets")),
    ],
)
def test_methods(load_text, line: str, method: object) -> None:
    """What an action does; the protocol of a relay URL stays with the URL."""
    tables = 'table smarthosts { "smtp://A.example", "smtp://b.example" }\ntable secrets "/s"\ntable relays "/r"\n'
    assert load_text(f"{tables}action a {line}\n{RULE}").actions["a"].method == method


def test_action_options(load_text) -> None:
    """alias, virtual, user and a closing ttl."""
    text = """
        table aliases file:/etc/mail/aliases
        action a maildir alias <aliases> user vmail ttl 2d
        action b lmtp "/l" virtual { "@" = vmail, "a@b" => "c" }
        action c relay ttl 1h
    """
    actions = load_text(text + RULE).actions
    assert (actions["a"].alias_table, actions["a"].user, actions["a"].ttl_secs) == ("aliases", "vmail", 172_800)
    assert actions["b"].virtual_table == "<dynamic:0001>"
    assert actions["c"].ttl_secs == 3600


def test_userbase(load_text) -> None:
    """A table says who users are; it stands beside alias, virtual and user, in any order."""
    text = """
        table people file:/etc/mail/people
        action a maildir userbase <people> alias { root = bob }
        action b lmtp "/l" virtual { "@" = bob } userbase { bob = "1000:1000:/home/bob" } user vmail
        action c expand-only userbase <people>
        table system getpwnam
        action d mbox userbase <system>
    """
    conf = load_text(text + RULE)
    actions = conf.actions
    assert [actions[name].userbase_table for name in "abcd"] == ["people", "<dynamic:0003>", "people", "system"]
    slices = compile_settings(conf)
    assert [slices.actions[name].userbase_table for name in "abcd"] == ["people", "<dynamic:0003>", "people", ""]
    assert "people" in {table.name for table in slices.lookup.tables}
    assert actions["b"].user == "vmail"


@pytest.mark.parametrize(
    ("line", "conditions"),
    [
        ("", [("from-local", False, None), ("for-local", False, None)]),
        ("from any", [("from-any", False, None), ("for-local", False, None)]),
        ("from local for any", [("from-local", False, None), ("for-any", False, None)]),
        ("! from local for any", [("from-local", True, None), ("for-any", False, None)]),
        ("from socket for local", [("from-socket", False, None), ("for-local", False, None)]),
        ("from src 192.0.2.0/24 for any", [("from-src", False, ["192.0.2.0/24"]), ("for-any", False, None)]),
        ('from src "[2001:db8::]/32" for any', [("from-src", False, ["[2001:db8::]/32"]), ("for-any", False, None)]),
        ('from src { "10.0.0.1" "[::1]" } for any',
         [("from-src", False, ["10.0.0.1", "[::1]"]), ("for-any", False, None)]),
        ("from rdns for any", [("from-rdns", False, None), ("for-any", False, None)]),
        ('!from rdns { a.example, "*.b" } for any',
         [("from-rdns", True, ["a.example", "*.b"]), ("for-any", False, None)]),
        ("from auth for any", [("from-auth", False, None), ("for-any", False, None)]),
        ("from auth bob for any", [("from-auth", False, ["bob"]), ("for-any", False, None)]),
        ('from mail-from "@a.example" for any',
         [("from-any", False, None), ("mail-from", False, ["@a.example"]), ("for-any", False, None)]),
        ('from any !for domain { a.example, "*.b.example" }',
         [("from-any", False, None), ("for-domain", True, ["a.example", "*.b.example"])]),
        ("from any for rcpt-to bob@a.example", [("from-any", False, None), ("for-rcpt-to", False, ["bob@a.example"])]),
        ('from any for any auth { a, b } !tag T helo h.example !mail-from "@x" rcpt-to y@z !tls',
         [("from-any", False, None), ("for-any", False, None), ("auth", False, ["a", "b"]), ("tag", True, ["T"]),
          ("helo", False, ["h.example"]), ("mail-from", True, ["@x"]), ("rcpt-to", False, ["y@z"]),
          ("tls", True, None)]),
    ],
)  # fmt: skip
def test_conditions(load_text, line: str, conditions: list[tuple[str, bool, list[str] | None]]) -> None:
    """Every condition, negated or not; local is the default of both ends (QUIRKS 12)."""
    conf = load_text(f"match {line} reject\n")
    found = []
    for condition in conf.rules[0].conditions:
        values = [key for key, _ in conf.tables[condition.table].entries] if condition.table else None
        found.append((condition.kind, condition.negated, values))
    assert found == conditions
    assert conf.rules[0].action == ""


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("for domain regex", "for-domain"), ("for rcpt-to regex", "for-rcpt-to"), ("from auth regex", "from-auth"),
        ("from src regex", "from-src"), ("from rdns regex", "from-rdns"),
        ("auth regex", "auth"), ("helo regex", "helo"), ("rcpt-to regex", "rcpt-to"),
        ("mail-from regex", "mail-from"), ("from mail-from regex", "mail-from"), ("tag regex", "tag"),
    ],
)  # fmt: skip
def test_regex_conditions(load_text, line: str, kind: str) -> None:
    """regex stands before the values of every condition that compares text, in place or in a table."""
    forms = (('"(?i)^A"', ["(?i)^A"]), ('{ "^a", "b$" }', ["^a", "b$"]), ("<f>", []), ("<t>", ["[[:alpha:]]"]))
    for values, names in forms:
        conf = load_text(f'table f "/f"\ntable t {{ "[[:alpha:]]" }}\nmatch !{line} {values} reject\n')
        (found,) = [condition for condition in conf.rules[0].conditions if condition.regex]
        assert (found.kind, found.negated) == (kind, True)
        assert [key for key, _ in conf.tables[found.table].entries] == names


def test_inline_tables_over_several_lines(load_text) -> None:
    """Commas, blanks or line ends between values; = and => in mappings (QUIRKS 18)."""
    text = """
        table a {
            one, two

            three four,
            "five 5"
        }
        table b {

            k = v, "k 2" => "v 2"
            K = later
        }
        table c { one }
        table d "/etc/mail/d"
        table e file:/etc/mail/e
        table f static:/etc/mail/f
    """
    tables = load_text(text + RULE).tables
    assert [key for key, _ in tables["a"].entries] == ["one", "two", "three", "four", "five 5"]
    assert (tables["b"].kind, tables["b"].entries) == ("map", (("K", "later"), ("k 2", "v 2")))
    assert tables["c"].kind == "list"
    assert [(tables[name].kind, tables[name].path) for name in "def"] == [
        ("file", f"/etc/mail/{name}") for name in "def"
    ]


def test_srs(load_text) -> None:
    """A key, one before it, and how long addresses are read; the key comes before the action."""
    conf = load_text('srs key "one two"\nsrs key backup old\nsrs ttl 9d\naction a relay srs\nmatch for any action a\n')
    options, method = conf.options, conf.actions["a"].method
    assert (options.srs_key, options.srs_backup_key, options.srs_ttl_secs) == ("one two", "old", 9 * 86400)
    assert method == Relay(srs=True)
    assert "one two" not in repr(options)
    assert load_text(RULE).options.srs_ttl_secs == 4 * 86400


def test_sources_and_names_in_place(load_text) -> None:
    """Addresses of either family, in brackets too, and a name for each."""
    conf = load_text(
        'action a relay src { "192.0.2.9", "[2001:db8::1]", "[IPv6:2001:db8::2]" } '
        'helo-src { "192.0.2.9" = out.example, "[2001:db8::1]" = "[192.0.2.9]" }\nmatch for any action a\n'
    )
    method = conf.actions["a"].method
    assert isinstance(method, Relay)
    assert [key for key, _value in conf.tables[method.src_table].entries] == [
        "192.0.2.9", "[2001:db8::1]", "[IPv6:2001:db8::2]"]  # fmt: skip
    assert len(conf.tables[method.helo_table].entries) == 2


def test_auth_that_no_label_uses(load_text) -> None:
    """Credentials without a label in any host are never used: a warning."""
    conf = load_text('table s "/s"\naction a relay host smtps://mx auth <s>\nmatch for any action a\n')
    assert [problem.text for problem in conf.warnings] == ["auth has no effect: no host names a label (label@host)"]


def test_databases_and_users_of_the_system(load_text) -> None:
    """db:/path is made by makemap, and does for a list and for a mapping; getpwnam asks the system."""
    conf = load_text(f"""
table made db:/etc/mail/made.db
table "also made" "db:/etc/mail/a b.db"
table people getpwnam
action in maildir alias <made>
match for domain <made> action in
{RULE}""")
    assert (conf.tables["made"].kind, conf.tables["made"].path) == ("db", "/etc/mail/made.db")
    assert conf.tables["also made"].path == "/etc/mail/a b.db"
    assert (conf.tables["people"].kind, conf.tables["people"].path) == ("getpwnam", "")
    assert conf.table_uses == {"made": ("alias", "domain")}


def test_tables_of_programs(load_text) -> None:
    """TYPE:/path runs table-TYPE with the path, TYPE alone without; a command of ours runs as it stands."""
    conf = load_text("""
table users "ldap:/etc/mail/ldap.conf"
table plain passwd
table own "proc-exec:/opt/tables/sites --config /etc/sites"
table shell "proc-exec:sites 'a b'"
action in maildir userbase <users> virtual <plain>
action up relay host "smtps://label@mx.test" auth <own>
action by relay domain <own>
match from src <plain> for domain <own> action in
match from any for rcpt-to regex <shell> action up
match from any for any action by
""")
    tables = conf.tables
    assert {table.kind for table in tables.values() if not table.name.startswith("<")} == {"program"}
    assert (tables["users"].words, tables["users"].shell) == (("table-ldap", "/etc/mail/ldap.conf"), False)
    assert tables["plain"].words == ("table-passwd",)
    assert (tables["own"].words, tables["own"].shell) == (("/opt/tables/sites", "--config", "/etc/sites"), False)
    assert (tables["shell"].words, tables["shell"].shell) == (("sites 'a b'",), True)
    slices = compile_settings(conf)
    assert {program.name: program.title for program in slices.programs} == {
        "users": "users", "plain": "plain", "own": "", "shell": "",
    }  # fmt: skip
    assert all(plan.kind != "table" for plan in slices.assets)
    assert {table.source for table in slices.lookup.tables if not table.name.startswith("<")} == {"program"}
