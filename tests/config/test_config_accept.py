"""config/load: what is accepted, and what it means."""

from types import SimpleNamespace

import pytest

from smtpd_ps.config.compile import compile_settings
from smtpd_ps.config.model import Condition, ExpandOnly, ForwardOnly, Lmtp, Maildir, Mbox, Relay
from smtpd_ps.contract.settings import ListenerSettings, ListenerTables

RULE = "match from any for any reject\n"

PUBLISHED = """\
table virtuals "/usr/local/etc/mail/virtuals"
table submitters "/usr/local/etc/mail/submitters"

pki example_com cert "/etc/ssl/certs/example_com.crt"
pki example_com key "/etc/ssl/private/example_com.key"

listen on if0 tls pki example_com
listen on if0 port submission tls-require pki example_com auth <submitters>

action receive lmtp "/var/run/lmtp" rcpt-to virtual <virtuals>
action send relay pki example_com

match from any for domain example.com action receive
match auth from any for any action send
"""


def test_the_published_configuration(load_text) -> None:
    """The configuration that smtpd_ps is written for reads word for word."""
    conf = load_text(PUBLISHED)
    first, second = conf.listeners
    assert (first.addresses, first.port, first.tls, first.pki) == (
        ("192.0.2.1", "2001:db8::1"), 25, "offer", ("example_com",),
    )  # fmt: skip
    assert (second.port, second.tls, second.auth, second.auth_table) == (587, "require", "require", "submitters")
    assert conf.actions["receive"].method == Lmtp("/var/run/lmtp", rcpt_to=True)
    assert conf.actions["receive"].virtual_table == "virtuals"
    assert conf.actions["send"].method == Relay(pki="example_com")
    assert [rule.action for rule in conf.rules] == ["receive", "send"]
    assert conf.rules[0].conditions == (Condition("from-any"), Condition("for-domain", False, "<dynamic:0001>"))
    assert conf.rules[1].conditions == (Condition("auth"), Condition("from-any"), Condition("for-any"))
    assert conf.tables["<dynamic:0001>"].entries == (("example.com", ""),)
    assert conf.warnings == ()


TUNED = """\
smtp limit max-mails 100000
mta limit max-conn-per-host 20 max-conn-per-route 20 max-conn-per-relay 20 conn-delay-route 0 conn-delay-relay 0\
 reconn-delay-route 0 session-mail-max 1000 task-hiwat 500 task-lowat 200 task-release 200
mda limit max-session-per-user 20
scheduler limit max-inflight 20000
"""
BENCHMARKS = {
    "relay": 'action out relay host "smtp://127.0.0.1:21026"\nmatch from any for any action out\n',
    "lmtp": 'action out lmtp "/tmp/sink/lmtp" rcpt-to virtual <users>\n'
    'match from any for domain "example.test" action out\n',
    "maildir": 'action out maildir "/tmp/box/Maildir" virtual <users>\n'
    'match from any for domain "example.test" action out\n',
}
LISTEN = "listen on 127.0.0.1 port 21025 hostname bench.test"
SUBMISSION = f"""\
table users {{ "@" = "benchvm" }}
pki bench.test cert "/tmp/b/cert.pem"
pki bench.test key "/tmp/b/key.pem"
table credentials file:/tmp/b/credentials
{LISTEN} tls-require pki bench.test auth <credentials>
action out relay host "smtp://127.0.0.1:21026"
match auth from any for any action out
"""
BENCH_TEXTS = {kind: f'table users {{ "@" = "benchvm" }}\n{LISTEN}\n{rest}' for kind, rest in BENCHMARKS.items()} | {
    "submission": SUBMISSION
}


@pytest.mark.parametrize("kind", list(BENCH_TEXTS))
def test_benchmark_configurations(load_text, kind: str) -> None:
    """The side-by-side benchmark gives OpenSMTPD and us the same text."""
    conf = load_text(BENCH_TEXTS[kind])
    assert conf.warnings == ()
    assert conf.listeners[0].hostname == "bench.test"
    assert conf.listeners[0].port == 21025


@pytest.mark.parametrize("kind", list(BENCH_TEXTS))
def test_tuned_benchmark_configurations(load_text, kind: str) -> None:
    """The tuned text sets the limits we have and warns of each throttle that we have not."""
    conf = load_text(TUNED + BENCH_TEXTS[kind])
    options = conf.options
    assert (options.max_mails, options.max_inflight) == (100_000, 20_000)
    assert (options.max_connections_per_host, options.max_connections_per_route) == (20, 20)
    assert options.max_mails_per_connection == 1000
    names = ["mta limit task-hiwat", "mta limit task-lowat", "mta limit task-release"]
    assert [problem.text for problem in conf.warnings] == [
        f"{name} has no effect here: smtpd_ps has no such throttle" for name in names
    ]
    assert all(problem.warning for problem in conf.warnings)


@pytest.mark.parametrize(
    ("line", "addresses", "port"),
    [
        ("listen on lo", ("127.0.0.1", "::1"), 25),
        ("listen on lo inet4", ("127.0.0.1",), 25),
        ("listen on lo inet6", ("::1",), 25),
        ("listen on egress", ("192.0.2.1", "2001:db8::1", "198.51.100.1"), 25),
        ("listen on egress inet6", ("2001:db8::1",), 25),
        ("listen on 192.0.2.77", ("192.0.2.77",), 25),
        ("listen on ::1 port 2525", ("::1",), 2525),
        ("listen on 2001:db8::77", ("2001:db8::77",), 25),
        ("listen on mx.example.org", ("203.0.113.9", "2001:db8::9"), 25),
        ("listen on mx.example.org inet6", ("2001:db8::9",), 25),
        ("listen on lo port smtp", ("127.0.0.1", "::1"), 25),
        ("listen on lo port submission", ("127.0.0.1", "::1"), 587),
        ("listen on lo port smtps", ("127.0.0.1", "::1"), 465),
    ],
)
def test_where_to_listen(load_text, line: str, addresses: tuple[str, ...], port: int) -> None:
    """An interface, a group, an address or a host name, one family of it, a port or service."""
    (listener,) = load_text(f"{line}\n{RULE}").listeners
    assert (listener.addresses, listener.port) == (addresses, port)


def test_listener_options(load_text) -> None:
    """All options at once, in any order; names of pki have no case (QUIRKS 22)."""
    text = """
        pki Mail.example.org cert "/c"
        pki mail.EXAMPLE.org key "/k"
        pki "*" cert "/c2" key "/k2"
        listen on lo tag outside hostname mx.example.com auth-optional { bob = "$6$x" } smtps \\
            pki MAIL.example.org pki "*"
        listen on if0 tls pki mail.example.org auth
        listen on socket tag inside
    """
    conf = load_text(text + RULE)
    first, second = conf.listeners
    assert (first.tls, first.port, first.pki) == ("implicit", 465, ("mail.example.org", "*"))
    assert (first.auth, first.auth_table, first.tag, first.hostname) == (
        "optional", "<dynamic:0001>", "outside", "mx.example.com",
    )  # fmt: skip
    assert (second.auth, second.auth_table, second.hostname) == ("require", "", "mail.example.org")
    assert conf.socket.tag == "inside"


def test_all_other_listener_options(load_text) -> None:
    """What a listener may say of certificates, names, senders and proxies, and where it goes in the slices."""
    text = """
        ca Roots cert "/r"
        pki p cert "/c" key "/k" dhe auto
        table names { "127.0.0.1" = a.example, "::1" = b.example }
        table owners { bob = "bob@example.org, @example.net" }
        listen on lo port 587 tls-require verify ca ROOTS protocols "TLSv1.3" ciphers "HIGH" pki p auth \\
            hostnames <names> senders <owners> masquerade mask-src received-auth no-dsn \\
            proxy-v2 from { 192.0.2.1, "2001:db8::/32" }
        listen on if1 port 26 proxy-v2 senders <owners> tls pki p auth
        listen on if1 port 27
        listen on socket mask-src no-dsn tag t
    """
    conf = load_text(text + RULE)
    listener = conf.listeners[0]
    assert (listener.verify, listener.ca, listener.protocols, listener.ciphers) == (True, "roots", ("TLSv1.3",), "HIGH")
    assert (listener.hostnames, listener.senders, listener.masquerade) == ("names", "owners", True)
    slices = compile_settings(conf)
    first, second, third, fourth, local = slices.smtp.listeners
    assert (first.verify, first.ca, first.protocols, first.ciphers) == (True, "roots", ("TLSv1.3",), "HIGH")
    assert (first.hostnames, first.senders, first.masquerade, first.mask_source) == (True, True, True, True)
    assert (first.received_auth, first.dsn) == (True, False)
    assert (first.proxy, first.proxies) == ("listed", ("192.0.2.1", "2001:db8::/32"))
    assert (second.address, second.proxies) == ("::1", first.proxies)
    assert (third.proxy, third.proxies, third.senders, third.masquerade) == ("any", (), True, False)
    assert fourth == ListenerSettings(3, "198.51.100.1", 27, hostname="mail.example.org")
    assert (local.local, local.mask_source, local.dsn, local.tag) == (True, True, False, "t")
    assert slices.smtp.pki[0].dhe == "auto"
    assert slices.lookup.listeners == (
        ListenerTables(0, "127.0.0.1", "names", "owners"),
        ListenerTables(1, "::1", "names", "owners"),
        ListenerTables(2, "198.51.100.1", "", "owners"),
    )
    assert {table.name for table in slices.lookup.tables} >= {"names", "owners"}
    assert [(each.kind, each.name, each.path) for each in slices.assets if each.kind == "ca"] == [("ca", "roots", "/r")]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ("port 26 ca roots", "ca has no effect without verify"),
        ("port 26 protocols all", "protocols has no effect without tls, tls-require or smtps"),
        ("port 26 ciphers HIGH", "ciphers has no effect without tls, tls-require or smtps"),
        ("port 26 senders { a = b }", "senders has no effect without auth"),
        ("port 26 received-auth", "received-auth has no effect without auth"),
        ("port 26 proxy-v2", "proxy-v2 believes whoever connects, who can so pretend to be any client; "
         "say who may with: proxy-v2 from { addresses }"),
        ("smtps verify port 25 pki p ca roots",
         "verify on port 25 turns away servers without a client certificate: nearly all"),
    ],
)  # fmt: skip
def test_listener_options_that_are_probably_not_meant(load_text, options: str, text: str) -> None:
    """What has no effect, or believes strangers, is taken with a warning."""
    before = 'ca roots cert "/r"\npki p cert "/c" key "/k"\n'
    conf = load_text(f"{before}listen on lo smtps verify port 24 pki p ca roots\nlisten on if0 {options}\n{RULE}")
    assert [problem.text for problem in conf.warnings] == [text]


def test_the_socket_is_always_listened_on(load_text) -> None:
    """Without `listen on socket`, and without any listen, there is one."""
    conf = load_text(RULE)
    assert conf.listeners == ()
    assert conf.socket.tag == ""


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


def test_globals(load_text) -> None:
    """The global settings, in the units of smtpd.conf(5)."""
    text = """
        smtp limit max-rcpt 50 max-mails 7
        smtp max-message-size 1.5M
        smtp sub-addr-delim "-"
        smtp ciphers "ECDHE+AESGCM:!SHA1"
        queue ttl 1d
        bounce warn-interval 1h, 6h, 2d
        mta limit session-keepalive 20
        mda limit max-session 9
    """
    options = load_text(text + RULE).options
    expected = SimpleNamespace(
        max_recipients=50, max_mails=7, max_message_bytes=1_572_864, sub_address_delimiter="-",
        ciphers="ECDHE+AESGCM:!SHA1", queue_ttl_secs=86400, warn_secs=(3600, 21600, 172_800), keepalive_secs=20,
        max_agents=9,
    )  # fmt: skip
    for name, value in vars(expected).items():
        assert getattr(options, name) == value


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("", None), ("queue encryption", ""), ("queue encryption stdin", "stdin"), ("queue encryption STDIN", "stdin"),
        ('queue encryption "-"', "stdin"), (f"queue encryption {'k' * 32}", "k" * 32),
    ],
)  # fmt: skip
def test_queue_encryption(load_text, written: str, key: str | None) -> None:
    """The key is in smtpd.conf, comes from standard input, or is asked for; 32 characters."""
    options = load_text(f"{written}\nqueue compression\n{RULE}").options
    assert (options.queue_encryption, options.queue_compression) == (key, True)
    assert key in (None, "", "stdin") or key not in repr(options)  # not in a log


@pytest.mark.parametrize(("written", "size"), [("0", 0), ("10", 10), ('"10"', 10), ("35m", 36_700_160)])
def test_message_sizes(load_text, written: str, size: int) -> None:
    """A size may be a number or text, quoted or not."""
    assert load_text(f"smtp max-message-size {written}\n{RULE}").options.max_message_bytes == size


def test_macros(load_text) -> None:
    """`name = value`, $name, and -D, which wins over the file."""
    text = 'iface = "lo port 26"\ndomains = "{ a.example, b.example }"\nunused = x\n' \
        "listen on $iface\nmatch from any for domain $domains reject\n"  # fmt: skip
    conf = load_text(text)
    assert conf.listeners[0].port == 26
    assert len(conf.tables["<dynamic:0001>"].entries) == 2
    assert [str(problem) for problem in conf.unused_macros] == [
        '/etc/mail/smtpd.conf:3: warning: macro "unused" is not used'
    ]
    assert load_text(text, defines={"iface": "if1"}).listeners[0].addresses == ("198.51.100.1",)


def test_include(load_text) -> None:
    """Included files share macros both ways; the same file twice, one after the other, is fine."""
    files = {"/etc/mail/a": 'include "/etc/mail/b"\naction a relay\n', "/etc/mail/b": "where = lo", "/etc/mail/c": "#"}
    text = 'include "/etc/mail/a"\ninclude "/etc/mail/c"\ninclude "/etc/mail/c"\nlisten on $where\nmatch action a\n'
    assert load_text(text, files=files).listeners[0].addresses == ("127.0.0.1", "::1")


def test_a_ca_is_read(load_text) -> None:
    """A ca is declared by its name in lower case; one that nothing names is warned about."""
    conf = load_text('ca Roots cert "/etc/ssl/roots.pem"\n' + RULE)
    assert conf.authorities["roots"].cert_path == "/etc/ssl/roots.pem"
    assert [problem.text for problem in conf.warnings] == ['ca "roots" is never used']


def test_limits_of_a_domain(load_text) -> None:
    """What is said of a domain replaces what holds for all so far, and a second statement adds to the first."""
    conf = load_text(
        "mta limit max-conn-per-host 3 inet4\nmta limit for domain Slow.example max-conn-per-domain 1\n"
        "mta limit session-mail-max 9\n"
        "mta limit for domain slow.example session-keepalive 0 inet6 max-mails-per-minute 12\n" + RULE
    )
    (own,) = conf.options.domain_limits
    assert (own.domain, own.family, own.max_connections_per_host, own.max_connections_per_domain) == (
        "slow.example", 6, 3, 1)  # fmt: skip
    assert (own.max_mails_per_connection, own.keepalive_secs, own.max_mails_per_minute) == (100, 0, 12)
    assert conf.options.mta_limits().max_mails_per_minute == 0
    assert (conf.options.family, conf.options.mta_limits().max_mails_per_connection) == (4, 9)


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


def test_addresses_of_this_host(load_text) -> None:
    """Local means every interface address and loopback (FEATURES A3)."""
    assert load_text(RULE).interface_addresses == (
        "127.0.0.1", "::1", "192.0.2.1", "2001:db8::1", "198.51.100.1",
    )  # fmt: skip


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
