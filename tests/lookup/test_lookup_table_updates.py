"""A table that is read again while lookup serves."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from desk_world import HASH, World, condition, refused
from support.dns_server import DnsServer, run_until
from test_lookup_desk_files import asset

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import (
    ActionSettings,
    ConditionSettings,
    LookupSettings,
    RuleSettings,
    TableSettings,
    TableUse,
)  # fmt: skip
from smtpd_ps.contract.values import Process
from smtpd_ps.lookup.files import read_files
from smtpd_ps.runtime.loop import Loop

BEFORE = {
    "domains": b"example.com\n",
    "patterns": b"^spam@\n",
    "aliases": b"list@example.com a@far.org\n",
    "submitters": f"alice {HASH}\n".encode(),
    "smarthosts": b"label user:old\n",
    "hosts": b"# of the relay\nsmtp://192.0.2.1:26\nsmtps://label@[2001:db8::1]\n",
}
USES: dict[str, TableUse] = {
    "domains": "domain", "patterns": "regex", "aliases": "virtual",
    "submitters": "credentials", "smarthosts": "relay-credentials", "hosts": "relayhosts",
}  # fmt: skip
SETTINGS = LookupSettings(
    "mx.example.com",
    (
        RuleSettings(
            (condition("from-any"), condition("for-any"), ConditionSettings("mail-from", table="patterns", regex=True)),
            "", 1,
        ),
        RuleSettings((condition("from-any"), condition("for-domain", "domains")), "in", 2),
        RuleSettings((condition("from-local"), condition("for-any")), "out", 3),
    ),
    (
        ActionSettings("in", "lmtp", virtual_table="aliases", lmtp_destination="/l"),
        ActionSettings("out", "relay", relay_hosts=("smtps://label@192.0.2.1",), relay_auth_table="smarthosts"),
        ActionSettings("listed", "relay", relay_host_table="hosts", relay_auth_table="smarthosts"),
    ),
    (
        *(TableSettings(name, "file", "map", path=f"/etc/{name}", uses=(use,)) for name, use in USES.items()),
        TableSettings("inline", "inline", "list", (("a", ""),)),
    ),
    ("127.0.0.1",),
    ("localhost",),
)  # fmt: skip


class Updating(World):
    def __init__(self, loop: Loop, server: DnsServer, directory: Path) -> None:
        self.directory = directory
        assets = [asset(directory, "table", name, data) for name, data in BEFORE.items()]
        super().__init__(loop, server, SETTINGS, read_files(SETTINGS, assets).tables)
        self.connect()
        assert isinstance(self.smtp.take(), m.PeerInfo)

    def update(self, name: str, data: bytes, client: int = 7) -> m.TableRead:
        self.begin(name, data, client)
        run_until(self.loop, lambda: bool(self.parent.messages))
        answer = self.parent.take()
        assert isinstance(answer, m.TableRead)
        assert answer.client == client
        return answer

    def begin(self, name: str, data: bytes, client: int) -> int:
        _asset, fd = asset(self.directory, "table", name, data)
        self.desk.handlers(Process.PARENT)[m.TableFile](m.TableFile(client, name), fd)
        return fd

    def code(self, recipient: str, sender: str = "s@far.org") -> int:
        """250, or what the recipient is refused with."""
        self.rcpt(recipient, sender=sender)
        if self.queue.messages:
            assert isinstance(self.queue.take(), m.RcptAccept)
            return 250
        return refused(self.smtp.take())[0]


@pytest.fixture
def world(loop: Loop, dns_server: DnsServer, tmp_path: Path) -> Iterator[Updating]:
    made = Updating(loop, dns_server, tmp_path)
    yield made
    made.checking.stop()


def test_rules_look_at_the_new_table(world: Updating) -> None:
    """Also in a session that was there before, and although the decision was remembered."""
    assert (world.code("list@example.com"), world.code("list@example.org")) == (250, 250)
    world.connect(2, "198.51.100.1")
    run_until(world.loop, lambda: bool(world.smtp.messages))
    world.smtp.take()

    def outside() -> int:
        world.rcpt("list@example.org", session=2)
        return refused(world.smtp.take())[0]

    assert outside() == 550
    assert world.update("domains", b"# now\nexample.org\nexample.net\n") == m.TableRead(
        7, True, "table domains: 2 entries", "domains"
    )
    assert outside() == 524  # the domain is ours now, and the virtual table does not know the recipient
    assert world.code("list@example.com") == 250  # relayed: from local for any
    assert world.update("patterns", b"^s@\n") == m.TableRead(7, True, "table patterns: 1 entry", "patterns")
    assert world.code("list@example.com") == 550
    assert world.code("list@example.com", "other@far.org") == 250


def test_expansion_uses_the_new_table(world: Updating) -> None:
    """An address that a virtual table gives is another one after the update."""
    world.rcpt("list@example.com")
    accept = world.queue.take()
    assert isinstance(accept, m.RcptAccept)
    assert [envelope.dest for envelope in accept.envelopes] == ["a@far.org"]
    world.update("aliases", b"list@example.com b@far.org, c@far.org\n")
    world.rcpt("list@example.com")
    accept = world.queue.take()
    assert isinstance(accept, m.RcptAccept)
    assert [envelope.dest for envelope in accept.envelopes] == ["b@far.org", "c@far.org"]


def test_an_expansion_under_way_ends_and_is_not_remembered_for_the_new_table(world: Updating) -> None:
    """A recipient that waited for the parent while its table was read again is answered by the new one."""
    world.update("aliases", b"list@example.com bob\n")
    world.rcpt("list@example.com")
    query = world.parent.take()
    assert isinstance(query, m.ForwardOpen)
    world.update("aliases", b"list@example.com a@far.org\n")
    world.give(Process.PARENT, m.ForwardNone(query.query, "none"))
    accept = world.queue.take()
    assert isinstance(accept, m.RcptAccept)
    assert [(envelope.user, envelope.dest) for envelope in accept.envelopes] == [("", "a@far.org")]
    assert world.code("list@example.com") == 250


def test_credentials_of_clients_and_of_relays(world: Updating) -> None:
    """Passwords are checked against the new table, and the next Route has the new password."""
    assert world.auth("alice", "secret") == "ok"
    world.update("submitters", f"bob {HASH}\n".encode())
    world.connect(2)
    world.smtp.take()
    assert world.auth("alice", "secret", session=2) == "no"
    assert world.auth("bob", "secret", session=2) == "ok"
    passwords = []
    for data in (b"label user:new\n", b"label user:newer\n"):
        world.update("smarthosts", data)
        world.give(Process.DELIVERY, m.RouteQuery(3, "out", "far.org"))
        route = world.delivery.take()
        assert isinstance(route, m.Route)
        assert route.ttl_secs <= 60
        passwords.append(route.hosts[0].password)
    assert passwords == ["new", "newer"]


def test_hosts_of_a_relay(world: Updating) -> None:
    """Its hosts take turns; after an update others do, and with none in it mail waits instead of going by MX."""

    def route() -> m.Route:
        world.give(Process.DELIVERY, m.RouteQuery(4, "listed", ""))
        found = world.delivery.take()
        assert isinstance(found, m.Route)
        return found

    before = [route() for _ in range(3)]
    assert [[(host.name, host.port) for host in each.hosts] for each in before] == [
        [("192.0.2.1", 26)], [("2001:db8::1", 465)], [("192.0.2.1", 26)],
    ]  # fmt: skip
    assert [each.hosts[0].user for each in before] == ["", "user", ""]
    world.update("hosts", b"192.0.2.9\n")
    after = route()
    assert ([host.name for host in after.hosts], after.temporary) == (["192.0.2.9"], False)
    assert after.ttl_secs <= 60
    world.update("hosts", b"# none\n")
    assert route() == m.Route(4, (), 10, True, "No host in the table of action listed")


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("aliases", b"a b\nbad\n\xff x\n",
         "/etc/aliases:2: expected a value after the key\n/etc/aliases:3: not UTF-8 text"),
        ("patterns", b"ok\n(\n",
         '/etc/patterns:2: "(" is not a regular expression: an empty pattern or branch at character 2'),
        ("submitters", b"eve $argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ$aGFzaGhhc2g\n",
         "/etc/submitters: hashes of scheme $argon2 can be checked only after a restart"),
        ("hosts", b"mx1\nsmtp://l@mx2\nlmtp://mx3\n",
         '/etc/hosts:2: "smtp://l@mx2": smtp:// does not always encrypt; a label needs smtp+tls:// or smtps://\n'
         '/etc/hosts:3: "lmtp://mx3": lmtp:// needs a port'),
        ("inline", b"a\n", "table inline has no file"),
        ("nonsense", b"a\n", "table nonsense has no file"),
    ],
)  # fmt: skip
def test_an_error_keeps_the_old_table(world: Updating, name: str, data: bytes, text: str) -> None:
    """It is told with path and line, and everything is as it was."""
    assert world.code("list@example.com") == 250
    if name in ("inline", "nonsense"):
        fd = world.begin(name, data, 9)
        assert world.parent.take() == m.TableRead(9, False, text, name)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
    else:
        assert world.update(name, data) == m.TableRead(7, False, text, name)
    assert (world.code("list@example.com"), world.code("x@example.com")) == (250, 524)
    assert world.code("list@example.com", "spam@x.org") == 550
    assert world.auth("alice", "secret") == "ok"


def test_the_newest_of_several_updates_holds(world: Updating) -> None:
    """Updates of one table at the same time are all answered, and their descriptors closed."""
    fds = [world.begin("domains", b"example.com\n" * 20_000 + b"d%d.test\n" % n, n) for n in range(1, 6)]
    run_until(world.loop, lambda: len(world.parent.messages) == 5)
    assert sorted(message.client for message in world.parent.messages) == [1, 2, 3, 4, 5]  # type: ignore[attr-defined]
    assert all(message.ok for message in world.parent.messages)  # type: ignore[attr-defined]
    assert world.code("x@d5.test") == 524
    for fd in fds:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_too_much_to_do_is_said(world: Updating, monkeypatch: pytest.MonkeyPatch) -> None:
    """An update that cannot be taken is answered, too."""
    monkeypatch.setattr("smtpd_ps.lookup.checking.MAX_QUEUED", 0)
    fd = world.begin("domains", b"x\n", 5)
    assert world.parent.take() == m.TableRead(5, False, "too much to do; try again", "domains")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_a_long_list_of_errors_is_cut(world: Updating) -> None:
    """What is wrong fits into the message, and control characters are not passed on."""
    answer = world.update("patterns", b"".join(b"[[:\x1b%s:]]\n" % (b"x" * 300) for _ in range(30)))
    assert not answer.ok
    assert len(answer.text) <= 2000
    assert answer.text.replace("\n", "").isprintable()
