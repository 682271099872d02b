"""The lookup process as a whole, driven with messages."""

from collections.abc import Callable, Iterator

import pytest
from desk_world import HASH, Box, Violated, World, condition, refused
from support.dns_server import DnsServer, run_until

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.routes import ROUTES
from smtpd_ps.contract.settings import (
    ActionSettings,
    LookupSettings,
    RuleSettings,
    TableSettings,
)  # fmt: skip
from smtpd_ps.contract.values import Account, Client, Dsn, Envelope, Phase, Process
from smtpd_ps.lookup import asking, knowledge
from smtpd_ps.pure.table import Table
from smtpd_ps.runtime.loop import Loop


@pytest.fixture
def world(loop: Loop, dns_server: DnsServer) -> Iterator[World]:
    made = World(loop, dns_server)
    yield made
    made.checking.stop()


def test_handlers_are_what_the_contract_says(world: World) -> None:
    """Every message that may come at run time has a handler, and no other."""
    for process in (Process.SMTP, Process.QUEUE, Process.DELIVERY, Process.PARENT):
        incoming = {
            route.message for route in ROUTES
            if (process, Process.LOOKUP) in route.hops and route.phase & (Phase.RUN | Phase.DRAIN)
        }  # fmt: skip
        assert set(world.desk.handlers(process)) == incoming - {m.LogLevel, m.TraceMask}


def test_an_smtp_speaks_of_its_own_sessions_only(world: World) -> None:
    """One that has been taken over cannot authenticate, end or feed a session of another smtp process."""
    world.desk.attach(Process.SMTP, other := Box(Process.SMTP), 1)
    handlers = world.desk.handlers(Process.SMTP, 1)
    theirs = 1 << 56 | 5
    handlers[m.PeerQuery](m.PeerQuery(theirs, 0, "127.0.0.1", ""))
    assert other.take() == m.PeerInfo(theirs, "localhost", True), "and the answer goes to who asked"
    assert world.smtp.messages == []
    for message in (m.PeerQuery(5, 0, "127.0.0.1", ""), m.AuthRequest(5, "submitters", "alice", "x"),
                    m.RcptRequest(5, 1, 1, "h", False, "a@b.org", "c@d.org", Dsn()), m.SessionEnd(5)):  # fmt: skip
        with pytest.raises(Violated, match="smtp 1 names a session of smtp 0"):
            handlers[type(message)](message)


def test_recipient_is_accepted(world: World) -> None:
    """The envelope goes to queue with all that is known of the client; the user was asked for."""
    world.connect(tag="office")
    assert world.smtp.take() == m.PeerInfo(1, "localhost", True)
    world.rcpt("John.Doe@example.com")
    assert world.user(True) == "cyrus"
    accept = world.queue.take()
    assert accept == m.RcptAccept(
        1, 2, 1,
        (Envelope("receive", "s@far.org", "John.Doe@example.com", "John.Doe@example.com", "cyrus",
                  Client("127.0.0.1", "localhost", "helo.far.org", "", "office"), Dsn(4, "rfc822;x", "FULL", "e")),),
    )  # fmt: skip
    assert world.smtp.messages == []
    world.rcpt("john.doe@example.com", number=2)
    assert isinstance(world.queue.take(), m.RcptAccept)
    assert world.parent.messages == []


def test_refusals(world: World) -> None:
    """550 without a rule, 524 without a virtual entry, 550 without the user, 451 where nobody knows."""
    world.connect(address="198.51.100.1")
    run_until(world.loop, lambda: bool(world.smtp.messages))
    world.smtp.take()
    world.rcpt("x@elsewhere.org")
    assert refused(world.smtp.take()) == (550, "Invalid recipient")
    world.rcpt("nobody@example.com")
    assert refused(world.smtp.take()) == (524, "5.2.4 Mailing list expansion problem")
    world.rcpt("new@example.com")
    world.user(False, temporary=True)
    assert refused(world.smtp.take()) == (451, "Temporary failure")
    world.rcpt("new@example.com")
    assert world.user(False) == "newcomer"
    assert refused(world.smtp.take()) == (550, "Invalid recipient")
    assert world.queue.messages == []


def test_the_parent_asks_for_a_user_of_a_userbase(loop: Loop, dns_server: DnsServer) -> None:
    """The account of the table, none for others, "temporary" for what is no account or no userbase."""
    actions = (ActionSettings("v", "maildir", userbase_table="people"), ActionSettings("s", "maildir"))
    settings = LookupSettings("mx.example.com", (), actions, (TableSettings("people", "inline", "map"),), (), ())
    people = Table("people", "map", {"bob": "1000:100:/h", "odd": "1000"})
    world = World(loop, dns_server, settings, {"people": people})
    account = Account(1000, 100, "/h")
    for action, user, expected in (
        ("v", "Bob", m.UserbaseInfo(5, account)),
        ("v", "ghost", m.UserbaseInfo(5)),
        ("v", "odd", m.UserbaseInfo(5, temporary=True)),
        ("s", "bob", m.UserbaseInfo(5, temporary=True)),
        ("gone", "bob", m.UserbaseInfo(5, temporary=True)),
    ):
        world.give(Process.PARENT, m.UserbaseQuery(5, action, user))
        assert world.parent.take() == expected
    assert "user odd" in world.warnings[-1]
    world.checking.stop()


def test_decisions_about_users_expire(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user that was absent is asked for again after ten seconds, the .forward of one that was found after two."""
    world.connect()
    world.smtp.take()
    world.rcpt("new@example.com")
    world.user(False)
    world.smtp.take()
    world.rcpt("new@example.com")
    assert refused(world.smtp.take())[0] == 550
    real = world.loop.now
    monkeypatch.setattr(world.loop, "now", lambda: real() + knowledge.ABSENT_SECS + 1)
    world.rcpt("new@example.com")
    world.user(True)
    assert isinstance(world.queue.take(), m.RcptAccept)
    monkeypatch.setattr(world.loop, "now", lambda: real() + knowledge.ABSENT_SECS + 2 * knowledge.FILE_SECS)
    world.rcpt("new@example.com")
    assert world.user(False) == "newcomer"


def test_many_ask_for_one_user_once(world: World) -> None:
    """Equal questions to the parent are one; every recipient is answered."""
    world.connect()
    world.smtp.take()
    for number in range(5):
        world.rcpt("john.doe@example.com", number=number)
    world.user(True)
    assert [message.number for message in world.queue.messages] == [0, 1, 2, 3, 4]  # type: ignore[attr-defined]


def test_parent_that_does_not_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an answer in time the recipient is refused for now; a late answer does no harm."""
    monkeypatch.setattr(asking, "PATIENCE_SECS", 0.05)
    world.connect()
    world.smtp.take()
    world.rcpt("john.doe@example.com")
    query = world.parent.take()
    assert isinstance(query, m.ForwardOpen)
    run_until(world.loop, lambda: bool(world.smtp.messages))
    assert refused(world.smtp.take())[0] == 451
    world.give(Process.PARENT, m.ForwardNone(query.query, "none"))


def test_answer_comes_even_when_the_session_has_ended(world: World) -> None:
    """smtp waits for every recipient before it aborts, so each is answered."""
    world.connect()
    world.smtp.take()
    world.rcpt("john.doe@example.com")
    world.give(Process.SMTP, m.SessionEnd(1))
    world.user(True)
    assert isinstance(world.queue.take(), m.RcptAccept)
    assert len(world.desk.sessions) == 0


def test_decision_depends_on_what_rules_read(world: World) -> None:
    """A rule that looks at the sender is asked for each sender; the cache does not mix them."""
    world.connect(address="198.51.100.1")
    run_until(world.loop, lambda: bool(world.smtp.messages))
    world.smtp.take()
    for _ in range(2):
        world.rcpt("x@elsewhere.org", sender="boss@vip.org")
        accept = world.queue.take()
        assert isinstance(accept, m.RcptAccept)
        assert [(e.action, e.user, e.dest) for e in accept.envelopes] == [("vip", "", "x@elsewhere.org")]
        world.rcpt("x@elsewhere.org", sender="")
        assert refused(world.smtp.take()) == (550, "Invalid recipient")


def test_only_lookups_own_record_authenticates(world: World) -> None:
    """Relaying works once lookup itself has seen the right password, and only in that session."""
    world.connect(1, "198.51.100.1")
    world.connect(2, "198.51.100.2")
    run_until(world.loop, lambda: len(world.smtp.messages) == 2)
    world.smtp.messages.clear()
    world.rcpt("x@elsewhere.org")
    assert refused(world.smtp.take()) == (550, "Invalid recipient")
    assert world.auth("alice", "wrong") == "no"
    world.rcpt("x@elsewhere.org")
    assert refused(world.smtp.take())[0] == 550
    assert world.auth("Alice", "secret") == "ok"
    world.rcpt("x@elsewhere.org")
    accept = world.queue.take()
    assert isinstance(accept, m.RcptAccept)
    assert (accept.envelopes[0].action, accept.envelopes[0].client.user) == ("send", "Alice")
    world.rcpt("x@elsewhere.org", session=2)
    assert refused(world.smtp.take())[0] == 550
    assert world.auth("alice", "secret") == "error"  # twice in a session
    world.give(Process.SMTP, m.SessionEnd(1))
    world.connect(1, "198.51.100.1")
    run_until(world.loop, lambda: bool(world.smtp.messages))
    world.smtp.take()
    world.rcpt("x@elsewhere.org")
    assert refused(world.smtp.take())[0] == 550


@pytest.mark.parametrize(
    ("user", "password", "table", "verdict"),
    [
        ("nobody", "secret", "submitters", "no"),
        ("", "secret", "submitters", "no"),
        ("alice", "", "submitters", "no"),
        ("alice", "secret\0", "submitters", "no"),
        ("alice", "Secret", "submitters", "no"),
        ("empty", "", "submitters", "no"),
        ("empty", "-", "submitters", "no"),
        ("bad", "x", "submitters", "no"),
        ("alice", "secret", "no-such-table", "error"),
        ("example.com", "", "ours", "no"),
    ],
)
def test_failed_authentication(world: World, user: str, password: str, table: str, verdict: str) -> None:
    """Unknown users, wrong and cut passwords, empty and malformed hashes."""
    world.connect()
    world.smtp.take()
    assert world.auth(user, password, table) == verdict
    assert any("malformed" in line for line in world.warnings) is (user in ("bad", "empty", "example.com"))
    assert not any(password in line for line in world.warnings if len(password) > 1)


def test_unknown_user_costs_a_check(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no hash, another one of the table is checked, always the same for a name."""
    world.connect()
    world.smtp.take()
    checked: list[str] = []
    submit = world.checking.submit

    def watch(password: str, stored: str, done: Callable[..., None]) -> bool:
        checked.append(stored)
        return submit(password, stored, done)

    monkeypatch.setattr(world.checking, "submit", watch)
    for user in ("ghost", "ghost", "bad"):
        assert world.auth(user, "secret") == "no"
    assert checked == [HASH] * 3


def test_authentication_by_the_system(world: World) -> None:
    """Without a table the parent is asked; a verdict for a session that ended goes nowhere."""
    world.connect()
    world.smtp.take()
    assert world.auth("root", "pw", table="") == "asked"
    query = world.parent.take()
    assert query == m.SystemAuth(1, "root", "pw")
    world.give(Process.PARENT, m.SystemAuthReply(1, "ok"))
    assert world.smtp.take() == m.AuthReply(1, "ok")
    world.give(Process.PARENT, m.SystemAuthReply(1, "ok"))
    world.connect(5)
    world.smtp.take()
    world.auth("root", "pw", table="", session=5)
    world.give(Process.SMTP, m.SessionEnd(5))
    world.give(Process.PARENT, m.SystemAuthReply(2, "ok"))
    assert world.smtp.messages == []


def test_queue_of_checks_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of passwords is answered with an error rather than with a wait without end."""
    monkeypatch.setattr("smtpd_ps.lookup.checking.MAX_QUEUED", 3)
    for session in range(1, 11):
        world.connect(session)
    world.smtp.messages.clear()
    for session in range(1, 11):
        world.give(Process.SMTP, m.AuthRequest(session, "submitters", "alice", "wrong"))
    run_until(world.loop, lambda: len(world.smtp.messages) == 10)
    verdicts = [message.verdict for message in world.smtp.messages]  # type: ignore[attr-defined]
    assert sorted(verdicts) == ["error"] * 7 + ["no"] * 3


def test_what_smtp_may_not_say(world: World) -> None:
    """Recipients of unknown sessions and addresses that smtp should have refused become no envelope."""
    world.rcpt("john.doe@example.com", session=99)
    assert refused(world.smtp.take())[0] == 451
    world.connect()
    world.smtp.take()
    for sender, recipient in (("a b@c", "john.doe@example.com"), ("s@far.org", "x\r\ny@example.com"), ("", "nodomain")):
        world.rcpt(recipient, sender=sender)
        assert refused(world.smtp.take())[0] == 451
    assert world.queue.messages == []
    assert len(world.warnings) == 4


def test_bounces(world: World) -> None:
    """A bounce goes out as local mail of the null sender, or comes back with a reason."""
    world.give(Process.QUEUE, m.BounceQuery(1, "s@far.org"))
    route = world.queue.take()
    client = Client("local", "", "", "", "")
    assert route == m.BounceRoute(
        1, (Envelope("outbound", "", "s@far.org", "s@far.org", "", client, internal=True),)
    )  # fmt: skip
    world.give(Process.QUEUE, m.BounceQuery(2, "nobody@example.com"))
    assert world.queue.take() == m.BounceRoute(2, (), False, "524 5.2.4 Mailing list expansion problem")
    world.give(Process.QUEUE, m.BounceQuery(3, "pipe@example.com"))
    piped = Envelope(
        "receive", "", "pipe@example.com", "pipe@example.com", "_sps_alias", client, internal=True,
        target="|x", target_source="alias",
    )  # fmt: skip
    assert world.queue.take() == m.BounceRoute(3, (piped,))
    world.give(Process.QUEUE, m.BounceQuery(4, "rubbish"))
    assert world.queue.take() == m.BounceRoute(4, (), False, "Invalid recipient")
    world.give(Process.QUEUE, m.BounceQuery(5, "list@example.com"))
    world.user(True)
    answer = world.queue.take()
    assert isinstance(answer, m.BounceRoute)
    assert {(e.action, e.dest, e.user) for e in answer.envelopes} == {
        ("receive", "list@example.com", "cyrus"), ("outbound", "a@b.org", ""),
    }  # fmt: skip


def rdns_world(loop: Loop, server: DnsServer) -> World:
    named = RuleSettings((condition("from-rdns", "names"), condition("for-any")), "out", 1)
    others = RuleSettings((condition("from-any"), condition("for-domain", "ours")), "out", 2)
    tables = (
        TableSettings("names", "inline", "list", (("*.good.test", ""),)),
        TableSettings("ours", "inline", "list", (("example.com", ""),)),
    )
    actions = (ActionSettings("out", "relay"),)
    return World(loop, server, LookupSettings("mx.example.com", (named, others), actions, tables, (), ()))


def test_recipients_wait_for_the_name(loop: Loop, dns_server: DnsServer) -> None:
    """Where a rule looks at the client's name, a recipient is answered once DNS has told it."""
    dns_server.zone = {("1.2.0.192.in-addr.arpa", "PTR"): ["Mail.Good.test."]}
    world = rdns_world(loop, dns_server)
    for session, address in ((1, "192.0.2.1"), (2, "192.0.2.2")):
        world.connect(session, address)
        world.rcpt("x@elsewhere.org", session=session)
        world.rcpt("x@example.com", session=session, number=2)
    assert world.smtp.messages == world.queue.messages == []
    run_until(loop, lambda: len(world.smtp.messages) == 3)
    accepted = [(message.session, message.number) for message in world.queue.messages]  # type: ignore[attr-defined]
    assert sorted(accepted) == [(1, 1), (1, 2), (2, 2)]
    (refusal,) = [message for message in world.smtp.messages if isinstance(message, m.RcptRefuse)]
    assert (refusal.session, refusal.number, *refused(refusal)) == (2, 1, 550, "Invalid recipient")
    world.queue.messages.clear()
    world.rcpt("y@elsewhere.org")
    assert isinstance(world.queue.take(), m.RcptAccept)
    world.give(Process.QUEUE, m.BounceQuery(1, "s@far.org"))
    assert world.queue.take() == m.BounceRoute(1, (), False, "550 Invalid recipient")
    world.checking.stop()


def test_a_name_that_dns_does_not_tell(loop: Loop, dns_server: DnsServer) -> None:
    """Then mail whose rule depends on it is refused for now, and for now only."""
    dns_server.rcodes["1.2.0.192.in-addr.arpa"] = 2
    world = rdns_world(loop, dns_server)
    for _ in range(2):
        world.connect(1, "192.0.2.1")
        world.rcpt("x@elsewhere.org")
        run_until(loop, lambda: len(world.smtp.messages) == 2)
        assert refused(world.smtp.messages[0]) == (451, "Temporary failure in looking up the name of your host")
        assert world.smtp.messages[1] == m.PeerInfo(1, "", False)
        world.smtp.messages.clear()
    world.rcpt("x@example.com")
    assert refused(world.smtp.take())[0] == 451
    dns_server.rcodes.clear()
    world.connect(2, "192.0.2.1")
    world.rcpt("x@example.com", session=2)
    run_until(loop, lambda: bool(world.queue.messages))
    world.checking.stop()


def test_what_waits_for_a_name_is_bounded_and_answered(
    loop: Loop, dns_server: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No recipient is forgotten: not those beyond the bound, and not when the session ends meanwhile."""
    monkeypatch.setattr("smtpd_ps.lookup.recipients.MAX_HELD", 3)
    world = rdns_world(loop, dns_server)
    world.connect(1, "192.0.2.1")
    for number in range(5):
        world.rcpt("x@elsewhere.org", number=number)
    early = [(message.number, message.code) for message in world.smtp.messages]  # type: ignore[attr-defined]
    assert early == [(3, 451), (4, 451)]
    world.smtp.messages.clear()
    world.give(Process.SMTP, m.SessionEnd(1))
    run_until(loop, lambda: len(world.smtp.messages) == 3)
    assert [(message.number, message.code) for message in world.smtp.messages] == [(0, 550), (1, 550), (2, 550)]  # type: ignore[attr-defined]
    world.checking.stop()


def test_route(world: World) -> None:
    """delivery is answered with a Route."""
    world.server.zone = {("far.org", "MX"): ["5 mx.far.org."], ("mx.far.org", "A"): ["192.0.2.1"]}
    world.give(Process.DELIVERY, m.RouteQuery(3, "send", "far.org"))
    run_until(world.loop, lambda: bool(world.delivery.messages))
    route = world.delivery.take()
    assert isinstance(route, m.Route)
    assert (route.query, [host.name for host in route.hosts]) == (3, ["mx.far.org"])
