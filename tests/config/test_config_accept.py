"""config/load: what is accepted, and what it means; actions and rules are in test_config_accept_rules."""

from types import SimpleNamespace

import pytest

from smtpd_ps.config.compile import compile_settings
from smtpd_ps.config.model import Condition, Lmtp, Relay
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


def test_addresses_of_this_host(load_text) -> None:
    """Local means every interface address and loopback (FEATURES A3)."""
    assert load_text(RULE).interface_addresses == (
        "127.0.0.1", "::1", "192.0.2.1", "2001:db8::1", "198.51.100.1",
    )  # fmt: skip
