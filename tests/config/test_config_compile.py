"""config/compile: each process's slice holds what its work needs and no more."""

import msgspec
import pytest

from smtpd_ps.config.compile import AssetPlan, compile_settings
from smtpd_ps.config.model import ConfigurationError
from smtpd_ps.contract.settings import ListenerSettings, PkiSettings, TableSettings
from smtpd_ps.contract.values import Process

TEXT = """\
table users "/etc/mail/users"
table virtuals { "@" = vmail }
table relays { mx1, mx2 }
table labels { Bob = "bob:secret" }
table idle "/etc/mail/idle"
pki in cert "/in.crt" key "/in.key"
pki out cert "/out.crt" key "/out.key"
pki idle cert "/idle.crt" key "/idle.key"
listen on lo tls pki in auth <users> hostname mx.example.org tag T
listen on socket tag S
action boxes maildir "~/M" virtual <virtuals> user vmail ttl 1h
action spool mbox
action mda lmtp "/run/lmtp" rcpt-to
action hosts relay host <relays> helo me.example.org
action host relay host smtps://Bob@mx1 auth <labels>
action mx relay pki out
match tag T for domain { A.example } action boxes
match from any for any reject
smtp limit max-rcpt 7 max-mails 8 processes 2
smtp max-message-size 1M
smtp sub-addr-delim "-"
queue ttl 2d
bounce warn-interval 1h
scheduler limit max-inflight 99
mta limit max-conn-per-host 3 max-conn-per-route 2 session-mail-max 11 session-keepalive 12 processes 3
mda limit max-session 13
"""
TEXT = TEXT.replace("action mda ", 'action "mda" ').replace("action host relay", 'action "host" relay').replace(
    "action mx relay", 'action "mx" relay'
)  # fmt: skip


@pytest.fixture
def slices(load_text):
    return compile_settings(load_text(TEXT), "127.0.0.1:53", 1000, "/run/smtpd.sock")


def test_smtp_slice(slices) -> None:
    """Listeners by address, the local socket last, the pki they use, the limits of a session."""
    smtp = slices.smtp
    common = {"port": 25, "hostname": "mx.example.org", "tag": "T", "tls": "offer", "pki": ("in",),
              "auth": "require", "auth_table": "users"}  # fmt: skip
    assert smtp.listeners == (
        ListenerSettings(index=0, address="127.0.0.1", **common),
        ListenerSettings(index=1, address="::1", **common),
        ListenerSettings(
            index=2, address="/run/smtpd.sock", port=0, local=True, hostname="mail.example.org", tag="S"
        ),
    )  # fmt: skip
    assert smtp.pki == (PkiSettings("in", "/in.crt", "/in.key"),)
    assert (smtp.hostname, smtp.max_message_bytes) == ("mail.example.org", 1 << 20)
    assert (smtp.max_recipients, smtp.max_mails) == (7, 8)


def test_lookup_slice(slices) -> None:
    """Rules, all actions, and the tables that something uses; inline keys in lower case."""
    lookup = slices.lookup
    assert lookup.tables == (
        TableSettings("users", "file", "map", (), "/etc/mail/users", ("credentials",)),
        TableSettings("virtuals", "inline", "map", (("@", "vmail"),), "", ("virtual",)),
        TableSettings("labels", "inline", "map", (("bob", "bob:secret"),), "", ("relay-credentials",)),
        TableSettings("<dynamic:0002>", "inline", "list", (("t", ""),), "", ("string",)),
        TableSettings("<dynamic:0003>", "inline", "list", (("a.example", ""),), "", ("domain",)),
    )
    assert [(rule.action, rule.line) for rule in lookup.rules] == [("boxes", 17), ("", 18)]
    assert [condition.kind for condition in lookup.rules[0].conditions] == ["tag", "for-domain", "from-local"]
    assert lookup.local_names == ("localhost", "mail.example.org")
    assert {"127.0.0.1", "::1", "192.0.2.1"} <= set(lookup.local_addresses)
    assert (lookup.resolver, lookup.sub_address_delimiter) == ("127.0.0.1:53", "-")
    assert len(lookup.actions) == 6


def test_queue_slice(slices) -> None:
    """How to group each action's mail, and when to give up."""
    queue = slices.queue
    assert [(a.name, a.shape, a.ttl_secs) for a in queue.actions] == [
        ("boxes", "agent", 3600), ("spool", "agent", 0), ("mda", "lmtp", 0),
        ("hosts", "host", 0), ("host", "host", 0), ("mx", "mx", 0),
    ]  # fmt: skip
    assert (queue.ttl_secs, queue.warn_secs, queue.max_inflight) == (172_800, (3600,), 99)
    assert slices.counts == {Process.SMTP: 2, Process.DELIVERY: 3}


def test_delivery_slice(slices) -> None:
    """Actions whole, the pki of relays only, the limits of connections."""
    delivery = slices.delivery
    actions = {action.name: action for action in delivery.actions}
    assert (actions["boxes"].kind, actions["boxes"].maildir_path, actions["boxes"].user) == ("maildir", "~/M", "vmail")
    assert (actions["mda"].lmtp_destination, actions["mda"].lmtp_rcpt_to) == ("/run/lmtp", True)
    assert (actions["hosts"].relay_hosts, actions["hosts"].relay_helo) == (("mx1", "mx2"), "me.example.org")
    assert (actions["host"].relay_tls, actions["host"].relay_auth_table) == ("opportunistic", "labels")
    assert delivery.pki == (PkiSettings("out", "/out.crt", "/out.key"),)
    assert (delivery.mta.max_connections_per_host, delivery.mta.max_connections_per_route) == (3, 2)
    assert (delivery.mta.max_mails_per_connection, delivery.mta.keepalive_secs, delivery.max_agents) == (11, 12, 13)


def test_keys_and_control_slices(slices) -> None:
    """keys may sign for what is used; control knows whose requests it takes."""
    assert [pki.name for pki in slices.keys.pki] == ["in", "out"]
    assert slices.control.allowed_uid == 1000


def test_assets(slices) -> None:
    """Private keys go to keys alone, tables to lookup alone, certificates where they are used."""
    assert set(slices.assets) == {
        AssetPlan(Process.LOOKUP, "table", "users", "/etc/mail/users"),
        AssetPlan(Process.SMTP, "cert", "in", "/in.crt"),
        AssetPlan(Process.DELIVERY, "cert", "out", "/out.crt"),
        AssetPlan(Process.KEYS, "cert", "in", "/in.crt"),
        AssetPlan(Process.KEYS, "key", "in", "/in.key"),
        AssetPlan(Process.KEYS, "cert", "out", "/out.crt"),
        AssetPlan(Process.KEYS, "key", "out", "/out.key"),
    }


def test_actions_for_the_parent(slices) -> None:
    """The parent looks users' actions up by name."""
    assert slices.actions["boxes"].user == "vmail"
    assert list(slices.actions) == [action.name for action in slices.delivery.actions]


def test_no_secrets_outside_lookup(slices) -> None:
    """Inline credentials are in lookup's slice and in no other."""
    for part in (slices.smtp, slices.queue, slices.delivery, slices.keys, slices.control):
        assert b"secret" not in msgspec.msgpack.encode(part)
    assert b"bob:secret" in msgspec.msgpack.encode(slices.lookup)


def test_values_over_a_bound_of_the_contract(load_text) -> None:
    """What the codec of the receiver would refuse is an error at start, not a violation later."""
    conf = load_text("match from any for any reject\n")
    with pytest.raises(ConfigurationError, match="SmtpSettings exceeds a bound of the contract"):
        compile_settings(conf, socket_path="/" * 300)


def test_users_of_the_system_as_a_userbase(load_text) -> None:
    """`table ... getpwnam` means what is done without a userbase; lookup gets no such table."""
    text = "table people getpwnam\naction a maildir userbase <people>\nmatch from any for any action a\n"
    lookup = compile_settings(load_text(text)).lookup
    assert lookup.tables == ()
    assert lookup.actions[0].userbase_table == ""


@pytest.mark.parametrize(
    ("extra", "uses"),
    [
        ("", {}),
        ("match from src <trusted> reject\n", {"trusted": ("netaddr",)}),
        ('filter f phase connect match src <trusted> reject "550 no"\n', {"trusted": ("netaddr",)}),
        ("match tag <trusted> reject\n", {"trusted": ("string",)}),
    ],
)
def test_lookup_knows_no_proxies(load_text, extra: str, uses: dict[str, tuple[str, ...]]) -> None:
    """The lists of proxy-v2 from are smtp's alone, as long as nothing else uses them, and then for that use."""
    made = compile_settings(
        load_text(f"""
table trusted {{ "192.0.2.0/24" }}
listen on lo port 26 proxy-v2 from <trusted>
listen on lo port 27 proxy-v2 from {{ 203.0.113.7, "2001:db8::/32" }}
listen on lo port 28 proxy-v2 from 203.0.113.8
{extra}match from any for any reject
""")
    )
    assert {table.name: table.uses for table in made.lookup.tables if not table.name.startswith("<")} == uses
    lookups = msgspec.msgpack.encode(made.lookup)
    assert b"203.0.113" not in lookups and b"2001:db8::/" not in lookups
    assert {each.proxies for each in made.smtp.listeners} == {
        ("192.0.2.0/24",), ("203.0.113.7", "2001:db8::/32"), ("203.0.113.8",), (),
    }  # fmt: skip


def test_where_this_host_is_an_exchanger(load_text) -> None:
    """The addresses of port 25 alone; a wildcard is every address of its family."""
    rule = "match from any for any reject\n"
    some = compile_settings(load_text("listen on 192.0.2.1\nlisten on 127.0.0.1 port 2525\n" + rule))
    assert some.lookup.own_exchangers == ("192.0.2.1",)
    every = compile_settings(load_text("listen on 0.0.0.0\n" + rule)).lookup.own_exchangers
    assert {"0.0.0.0", "127.0.0.1", "192.0.2.1"} <= set(every) and not any(":" in each for each in every)
