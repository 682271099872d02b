"""smtp/: which clients are let in, and how long they may stay: limits, drain, retirement and pause."""

from collections.abc import Callable

import pytest
from smtp_glue import ENVELOPE, World

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.policy import POLICIES
from smtpd_ps.contract.values import Process
from smtpd_ps.pure.smtp_service import Wait
from smtpd_ps.smtp.server import MESSAGE_SECS, TICK_SECS
from smtpd_ps.smtp.sources import AUTH_FAILURES, network_of, source_of


def test_sessions_and_spool_files_have_their_descriptors(world: World) -> None:
    """With what the policy gives there are ten thousand sessions; with less all is scaled, and the log says so."""
    allowed = next(limit.value for limit in POLICIES[Process.SMTP].limits if limit.resource == "nofile")
    world.server.fit_into(allowed)
    assert world.server.max_sessions >= 10_000
    assert world.server.max_bodies >= 6_000
    world.server.fit_into(100)
    sessions, bodies = world.server.max_sessions, world.server.max_bodies
    assert sessions > bodies > 20
    assert sessions + bodies < 70


def test_a_wrong_password_is_answered_after_a_time_that_its_check_does_not_show(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The delay counts from when the password was given."""
    client = world.connect()
    client.send(b"EHLO x\r\n")
    world.spin(lambda: len(world.server._open) == 1)
    (connection,) = world.server._open
    waits: list[float] = []
    monkeypatch.setattr(world.loop, "call_later", lambda secs, _call: waits.append(secs))
    given = world.loop.now()
    times = iter((given, given + 0.25, given + 9.0))
    monkeypatch.setattr(world.loop, "now", lambda: next(times))
    connection._check_password(m.AuthRequest(1, "users", "user", "wrong"))
    connection._wait(Wait(0.75))
    connection._wait(Wait(0.75))
    assert waits == [pytest.approx(0.5), 0.0]


def test_too_many_sessions(make_world: Callable[..., World]) -> None:
    """Beyond max_sessions clients get a 421; when one leaves there is room again."""
    world = make_world(max_sessions=2)
    first, second, third = world.connect(), world.connect(), world.connect()
    assert first.reply()[:3] == second.reply()[:3] == "220"
    assert third.reply() == "421 4.3.2 Too many connections, try again later"
    assert third.closed()
    first.command("QUIT")
    assert first.closed()
    assert world.connect().reply()[:3] == "220"


def test_too_many_sessions_of_one_source(make_world: Callable[..., World]) -> None:
    """One client cannot take every session there is."""
    world = make_world(max_sessions_per_source=2)
    first, second, third = world.connect(), world.connect(), world.connect()
    assert first.reply()[:3] == second.reply()[:3] == "220"
    assert third.reply()[:3] == "421"
    assert third.closed()
    first.command("QUIT")
    assert first.closed()
    assert world.connect().reply()[:3] == "220"
    assert world.server._sources.count("127.0.0.1") == 2


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8::1", "2001:db8:0:0:ffff::2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("local", "local", True),
    ],
)
def test_sources(one: str, other: str, same: bool) -> None:
    """An IPv6 network of 64 bits is one source."""
    assert (source_of(one) == source_of(other)) is same


def test_idle_sessions_are_closed(make_world: Callable[..., World]) -> None:
    """After idle_secs without a command a session gets 421; bytes without a command do not count."""
    world = make_world(idle_secs=10)
    client = world.connect()
    assert client.reply()[:3] == "220"
    client.send(b"NOO")
    world.settle()
    for _ in range(4):
        world.server._tick()
    assert client.reply() == "421 4.4.2 Timeout"
    assert client.closed()


def test_busy_sessions_are_not_closed(make_world: Callable[..., World]) -> None:
    """A command between two looks keeps the session."""
    world = make_world(idle_secs=10)
    client = world.connect()
    client.reply()
    for _ in range(6):
        assert client.command("NOOP")[:3] == "250"
        world.server._tick()


def test_drain(world: World) -> None:
    """Idle clients get 421 at once, a message may finish, new clients are not taken; then it is drained."""
    idle, busy = world.connect(), world.connect()
    busy.send(ENVELOPE)
    assert [busy.reply()[:3] for _ in range(5)] == ["220", "250", "250", "250", "354"]
    assert idle.reply()[:3] == "220"
    drained: list[bool] = []
    world.server.drain(lambda: drained.append(True))
    assert idle.reply() == "421 4.3.2 Service shutting down"
    assert idle.closed()
    with pytest.raises(ConnectionRefusedError):
        world.connect()
    assert not drained
    busy.send(b"A: b\r\n.\r\n")
    assert busy.reply()[:3] == "250"
    assert busy.reply()[:3] == "421"
    assert busy.closed()
    world.spin(lambda: bool(drained))


def test_drain_cuts_what_takes_too_long(world: World) -> None:
    """A message that does not finish in time is cut off with 421."""
    client = world.connect()
    client.send(ENVELOPE)
    assert [client.reply()[:3] for _ in range(5)] == ["220", "250", "250", "250", "354"]
    drained: list[bool] = []
    world.server.drain(lambda: drained.append(True))
    world.server._cut()
    assert client.reply()[:3] == "421"
    assert client.closed()
    world.spin(lambda: bool(drained))


def test_drain_with_nobody_there(world: World) -> None:
    """Nothing under way: drained at once."""
    drained: list[bool] = []
    world.server.drain(lambda: drained.append(True))
    assert drained == [True]


def test_retire_keeps_sessions(world: World) -> None:
    """No new client is taken; who is here goes on, message after message, and then it is drained."""
    client = world.connect()
    client.send(ENVELOPE)
    assert [client.reply()[:3] for _ in range(5)] == ["220", "250", "250", "250", "354"]
    drained: list[bool] = []
    world.server.retire(lambda: drained.append(True))
    with pytest.raises(ConnectionRefusedError):
        world.connect()
    for _ in range(2):
        client.send(b"A: b\r\n.\r\n")
        assert client.reply()[:3] == "250"
        client.send(b"MAIL FROM:<a@x>\r\nRCPT TO:<b@y>\r\nDATA\r\n")
        assert [client.reply()[:3] for _ in range(3)] == ["250", "250", "354"]
    assert not drained
    client.send(b"A: b\r\n.\r\nQUIT\r\n")
    assert [client.reply()[:3] for _ in range(2)] == ["250", "221"]
    world.spin(lambda: bool(drained))


def test_retire_takes_who_has_connected_already(world: World) -> None:
    """A client in the backlog is not lost with the listener."""
    client = world.connect()
    world.server.retire(lambda: None)
    assert client.reply()[:3] == "220"


def test_retirement_ends(world: World) -> None:
    """A session that stays too long hears 421; one that is drained twice says so."""
    client = world.connect()
    assert client.reply()[:3] == "220"
    drained: list[str] = []
    world.server.retire(lambda: drained.append("retired"))
    world.server._end_retirement()
    assert client.reply() == "421 4.3.2 Service shutting down"
    assert client.closed()
    world.spin(lambda: bool(drained))
    world.server.drain(lambda: drained.append("drained"))
    assert drained == ["retired", "drained"]


def test_pause_and_resume(world: World) -> None:
    """While paused clients wait in the backlog; they are served after resume (QUIRKS 50)."""
    handlers = world.server.control_handlers()
    handlers[m.Pause](m.Pause(1, "smtp", True))
    client = world.connect()
    world.settle(20)
    assert not client.read()
    handlers[m.ShowStatus](m.ShowStatus(2))
    handlers[m.Pause](m.Pause(3, "smtp", False))
    assert client.reply()[:3] == "220"
    assert world.control.sent == [
        m.Done(1, True), m.TextPart(2, "SMTP paused\n"), m.Done(2, True), m.Done(3, True),
    ]  # fmt: skip


def test_too_many_sessions_of_one_network(make_world: Callable[..., World]) -> None:
    """A network cannot take them all either, with whatever many addresses; what is gone makes room."""
    world = make_world(max_sessions_per_network=1)
    first, second = world.connect(), world.connect()
    assert first.reply()[:3] == "220"
    assert second.reply()[:3] == "421"
    first.command("QUIT")
    assert first.closed()
    assert world.connect().reply()[:3] == "220"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [("192.0.2.1", "192.0.2.99", True), ("192.0.2.1", "192.0.3.1", False), ("2001:db8:1:2::1", "2001:db8:1:3::1", True),
     ("2001:db8:1::1", "2001:db8:2::1", False)],
)  # fmt: skip
def test_networks(one: str, other: str, same: bool) -> None:
    """24 bits of IPv4, 48 of IPv6."""
    assert (network_of(one) == network_of(other)) is same


def test_a_message_that_trickles(make_world: Callable[..., World]) -> None:
    """A byte now and then keeps no message alive: after MESSAGE_SECS it has to have come fast enough."""
    world = make_world(idle_secs=10**6)
    client = world.connect()
    client.reply()
    for line in ("HELO x", "MAIL FROM:<>", "RCPT TO:<a@example.com>"):
        assert client.command(line)[:3] == "250"
    assert client.command("DATA")[:3] == "354"
    for _ in range(int(MESSAGE_SECS / TICK_SECS)):
        client.send(b"x")
        world.settle(1)
        world.server._tick()
    assert len(world.server._sessions) == 1
    world.server._tick()
    assert client.reply() == "421 4.4.2 Message too slow"
    assert client.closed()


def test_passwords_that_fail_too_often_from_one_address(make_world: Callable[..., World]) -> None:
    """In however many sessions: then no password of that address is looked at for a while."""
    world = make_world()
    for _ in range(AUTH_FAILURES):
        assert not world.server._sources.passwords_stopped("192.0.2.1")
        world.server._sources.password_failed("192.0.2.1")
    assert world.server._sources.passwords_stopped("192.0.2.1")
    assert not world.server._sources.passwords_stopped("192.0.2.2")
