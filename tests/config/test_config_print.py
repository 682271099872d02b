"""config/print: the configuration as understood reads back as the same."""

from dataclasses import fields, is_dataclass
from typing import Any

import pytest
from configuration_texts import configuration_texts
from hypothesis import HealthCheck, given, settings

from smtpd_ps.config.lexer import Lexer, Macros
from smtpd_ps.config.model import Configuration
from smtpd_ps.config.print import print_configuration
from smtpd_ps.config.print_words import delay, values, word
from smtpd_ps.config.tokens import KEYWORDS, Kind

_TABLE_FIELDS = (
    "table", "auth_table", "alias_table", "virtual_table", "src_table", "helo_table", "domain_table",
    "hostnames", "senders", "proxies", "userbase_table",
)  # fmt: skip


def meaning(conf: Configuration) -> Any:
    """All but places and messages; a table written in place is what it holds, not the name made for it."""

    def of(part: Any) -> Any:
        if is_dataclass(part):
            return {
                field.name: table_of(getattr(part, field.name))
                if field.name in _TABLE_FIELDS
                else of(getattr(part, field.name))
                for field in fields(part)
                if field.name != "where"
            }
        return tuple(of(one) for one in part) if isinstance(part, tuple) else part

    def table_of(name: str) -> Any:
        if not name.startswith("<"):
            return name
        return conf.tables[name].kind, conf.tables[name].entries

    named = [of(table) for name, table in conf.tables.items() if not name.startswith("<")]
    others = [list(map(of, group.values())) for group in (conf.pki, conf.authorities, conf.actions)]
    parts = (conf.hostname, conf.options, conf.listeners, conf.socket, conf.rules, conf.interface_addresses)
    return named, others, [of(part) for part in parts]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(text=configuration_texts())
def test_what_is_printed_means_the_same(load_text, text: str) -> None:
    """load(print(load(x))) is load(x), and printing that changes no character more."""
    conf = load_text(text, files={"/inc": "included = 'mbox'\naction from_inc $included\n"})
    printed = print_configuration(conf)
    again = load_text(printed)
    assert meaning(again) == meaning(conf)
    assert print_configuration(again) == printed


# fmt: off
EXPECTED = """\
smtp limit max-mails 100 max-rcpt 1000 processes 1
mta limit processes 1 max-conn-per-host 10 max-conn-per-route 5 max-conn-per-source 100 max-conn-per-connector 20 \
max-conn-per-relay 100 max-conn-per-domain 100 session-mail-max 100 session-keepalive 10 max-failures-per-session 25 \
max-mails-per-minute 0
mda limit max-session 50 max-session-per-user 7
scheduler limit max-inflight 5000
mta max-deferred 100
smtp max-message-size 36700160
smtp ciphers "HIGH:!aNULL:!MD5"
smtp sub-addr-delim "+"
queue ttl 36h
queue compression
queue encryption abcdefghijklmnopqrstuvwxyz012345
srs ttl 4d
bounce warn-interval 4h

table users { "any" = bob, "c d" = "" }
table many {
	a,
	b,
	c,
	d,
	e
}
table file "/etc/mail/x"
table labels { l = bob:secret }
table made db:/etc/mail/made.db
table people getpwnam

ca roots cert "/roots"
pki mx.example.org cert "/c" key "/k"

mda wrapper nice "nice %{mda}"

listen on socket tag inside
# 192.0.2.1
listen on if0 inet4 port 26 tls pki mx.example.org auth <users> hostname h.example tag t
listen on 203.0.113.7 port 465 smtps pki mx.example.org

action "the users" maildir "~/Mail" virtual { "@" = vmail } user vmail ttl 36h
action l lmtp localhost:25 rcpt-to alias <file>
action out relay host { smtp+tls://l@a.example, b } tls no-verify pki mx.example.org auth <labels> helo h.example
action shown relay mail-from "@h.example"
action box mbox
action spam maildir junk wrapper nice
action sorted mda "sorter -f %{sender}" user vmail ttl 2h

match from any mail-from "@x" for local action box
match !from src { 10.0.0.0/8, "[::1]" } for domain a.example !tls auth tag "tag" action out
match for any from local reject
"""
# fmt: on


def test_the_printed_text(load_text) -> None:
    """The form: defaults written out, values quoted where they must be, a comment with the addresses."""
    files = {"/inc": 'pki mx.example.org key "/k"\n'}
    text = """
        nic = "if0 inet4 port 26"
        queue ttl 36h
        queue encryption "abcdefghijklmnopqrstuvwxyz012345"
        queue compression
        pki MX.example.org cert "/c"
        include "/inc"
        ca roots cert "/roots"
        mda wrapper nice "nice %{mda}"
        table users { "any" = bob, "c d" => "" }
        table many { a b c d e }
        table file file:/etc/mail/x
        table labels { l = "bob:secret" }
        table made db:/etc/mail/made.db
        table people getpwnam
        listen on $nic tag t hostname h.example tls pki mx.example.org auth <users>
        listen on 203.0.113.7 smtps pki mx.example.org
        listen on socket tag inside
        action "the users" maildir Mail user vmail virtual { "@" = vmail } ttl 2160m
        action l lmtp localhost rcpt-to alias <file>
        action out relay host { "smtp+tls://l@a.example", b } auth <labels> tls no-verify \\
            helo h.example pki mx.example.org
        action shown relay mail-from "@h.example"
        action box mbox
        action spam maildir junk wrapper nice
        action sorted mda "sorter -f %{sender}" user vmail ttl 2h
        match from mail-from "@x" action box
        match ! from src { "10.0.0.0/8", "[::1]" } for domain a.example ! tls auth tag "tag" action out
        match for any from local reject
    """
    assert print_configuration(load_text(text, files=files)).splitlines() == EXPECTED.splitlines()


def test_the_longest_destination(load_text) -> None:
    """A host name of full length still fits with the port that is written out."""
    name = ".".join(["h" * 62] * 4)
    conf = load_text(f"action a lmtp {name}\nmatch action a\n")
    assert meaning(load_text(print_configuration(conf))) == meaning(conf)


def read_back(written: str) -> str:
    lexer = Lexer(f"{written}\n", "t", Macros({}))
    token = lexer.next()
    assert token.kind is Kind.WORD
    assert lexer.next().kind is Kind.NEWLINE
    return token.text


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a.example", "a.example"), ("", '""'), ("25", '"25"'), ("25x", "25x"), ("/x", '"/x"'), ("@", '"@"'),
        ("a b", '"a b"'), ('a"b', '"a\\"b"'), ("it's", '"it\'s"'), ("a\\b", '"a\\b"'), ("a\\ b", '"a\\\\ b"'),
        ('\\"', '"\\\\""'), ("$x", '"$x"'), ("#", '"#"'), ("a\\", '"a\\\\\n"'), ("a\tb", '"a\tb"'), ("é", '"é"'),
        ("\\\\\\", '"\\\\\\\\\n"'), ("\\\t", '"\\\\\t"'),
    ],
)  # fmt: skip
def test_words(text: str, written: str) -> None:
    """Quoted where a bare word would be something else; what a backslash would escape is escaped."""
    assert word(text) == written
    assert read_back(written) == text


@pytest.mark.parametrize("keyword", sorted(KEYWORDS))
def test_keywords_are_quoted(keyword: str) -> None:
    """A reserved word is a value in quotes only."""
    assert read_back(word(keyword)) == keyword


def test_values_and_delays() -> None:
    """Lists and mappings in braces; a delay in its largest whole unit."""
    assert values("list", [("a", ""), ("b c", "")]) == '{ a, "b c" }'
    assert values("map", [("a", "b"), ("@", "")]) == '{ a = b, "@" = "" }'
    assert values("list", [("a", ""), ("b", "")], one_a_line=True) == "{\n\ta,\n\tb\n}"
    assert [delay(secs) for secs in (1, 60, 90, 3600, 5400, 86400, 129_600)] == [
        "1s", "1m", "90s", "1h", "90m", "1d", "36h",
    ]  # fmt: skip
