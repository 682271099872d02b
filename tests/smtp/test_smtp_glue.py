"""smtp/: listeners, connections and channels around the SMTP server's core."""

import os
import socket
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from smtp_glue import World

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.policy import POLICIES
from smtpd_ps.contract.values import Phase, Process
from smtpd_ps.pure import smtp_replies as say
from smtpd_ps.pure.smtp_service import Wait
from smtpd_ps.runtime.channel import Channel
from smtpd_ps.runtime.loop import Loop
from smtpd_ps.smtp.server import MESSAGE_SECS, TICK_SECS
from smtpd_ps.smtp.sources import AUTH_FAILURES, network_of, source_of

ENVELOPE = b"EHLO client.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n"


@pytest.fixture
def make_world() -> Iterator[Callable[..., World]]:
    """Makes servers, and closes all their sockets afterwards."""
    made: list[World] = []

    def make(**changes: Any) -> World:
        made.append(World(**changes))
        return made[-1]

    yield make
    for world in made:
        world.close()


@pytest.fixture
def world(make_world: Callable[..., World]) -> Iterator[World]:
    """A server with the default settings, that nobody complained about."""
    made = make_world()
    yield made
    assert made.failures == []


def test_a_plain_mail(world: World) -> None:
    """Connect, greet, send, quit: the body is stored with a Received header, and everybody is told of the end."""
    client = world.connect()
    assert client.reply() == "220 mx.example.com ESMTP smtpd_ps"
    assert client.command("EHLO client.example").startswith("250 ")
    assert client.command("MAIL FROM:<a@b.example>") == "250 2.0.0 Ok"
    assert client.command("RCPT TO:<b@example.com>").startswith("250 2.1.5")
    assert client.command("DATA").startswith("354")
    client.send(b"Subject: x\r\n\r\nhello\r\n.\r\n")
    assert client.reply().startswith("250 2.0.0")
    assert client.command("QUIT") == "221 2.0.0 Bye"
    assert client.closed()
    (body,) = world.bodies.values()
    assert body.startswith(
        b"Received: from client.example (client.example [127.0.0.1])\r\n\tby mx.example.com (smtpd_ps)"
    )
    assert body.endswith(b"\r\nSubject: x\r\n\r\nhello\r\n")
    assert [type(one) for one in world.lookup.sent] == [m.PeerQuery, m.RcptRequest, m.SessionEnd]
    assert [type(one) for one in world.queue.sent] == [m.Commit]
    assert world.lookup.sent[0].session >> 56 == 3  # the process's index


def test_everything_at_once(world: World) -> None:
    """A pipelining client gets its replies in order."""
    client = world.connect()
    client.send(ENVELOPE + b"A: b\r\n\r\nx\r\n.\r\nQUIT\r\n")
    assert [client.reply()[:3] for _ in range(7)] == ["220", "250", "250", "250", "354", "250", "221"]
    assert client.closed()


def test_a_large_body_goes_to_a_file(world: World) -> None:
    """Several MiB pass through the spool file, whole and in order."""
    client = world.connect()
    message = b"A: b\r\n\r\n" + b"".join(b"%070d\r\n" % number for number in range(60_000))
    client.send(ENVELOPE)
    client.send(message + b".\r\n")
    assert [client.reply()[:3] for _ in range(6)] == ["220", "250", "250", "250", "354", "250"]
    (body,) = world.bodies.values()
    assert body.endswith(b"\r\n" + message)
    opened, commit = world.queue.sent
    assert isinstance(opened, m.BodyOpen)
    assert isinstance(commit, m.CommitFile)
    assert (commit.size_bytes, commit.body_crc) == (len(body), zlib.crc32(body))
    assert open_descriptors_of(world.directory) == 0


def open_descriptors_of(directory: str) -> int:
    """How many of our descriptors are files below `directory`."""
    paths = [Path(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    return sum(path.is_symlink() and os.readlink(path).startswith(directory) for path in paths)


def test_reading_stops_while_the_file_is_opened(world: World) -> None:
    """Until queue has opened the file, only what was read already is kept."""
    world.hold.add(m.BodyOpen)
    client = world.connect()
    client.send(ENVELOPE + b"A: b\r\n\r\n" + b"x" * 50_000 + b"\r\n" + b"y" * 50_000)
    world.spin(lambda: any(isinstance(one, m.BodyOpen) for one in world.queue.sent))
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)
    sent = 0
    for _ in range(2000):
        world.loop.turn(0.0)
        try:
            sent += client.sock.send(b"z" * 900 + b"\r\n")
        except BlockingIOError:
            break
    else:
        pytest.fail("the server reads on and on")
    (opened,) = (one for one in world.queue.sent if isinstance(one, m.BodyOpen))
    world.answer(opened)
    client.send(b"\r\n.\r\n")
    assert [client.reply()[:3] for _ in range(6)] == ["220", "250", "250", "250", "354", "250"]


def test_full_disk_in_the_middle(world: World) -> None:
    """A spool file that cannot be written is a 452, and queue hears Abort."""
    world.body_fd = lambda: os.open("/dev/full", os.O_WRONLY)
    client = world.connect()
    client.send(ENVELOPE + b"A: b\r\n\r\n" + b"x\r\n" * 100_000 + b".\r\n")
    assert [client.reply()[:3] for _ in range(5)] == ["220", "250", "250", "250", "354"]
    assert client.reply() == "452 4.3.1 Mail system full"
    assert type(world.queue.sent[-1]) is m.Abort
    assert client.command("NOOP").startswith("250")


def test_full_disk_at_the_end(world: World) -> None:
    """The same when the failing write is the last one: CommitFile is not sent."""
    world.hold.add(m.BodyOpen)
    world.body_fd = lambda: os.open("/dev/full", os.O_WRONLY)
    client = world.connect()
    client.send(ENVELOPE + b"A: b\r\n\r\n" + b"x\r\n" * 22_000 + b".\r\n")
    world.spin(lambda: any(isinstance(one, m.BodyOpen) for one in world.queue.sent))
    world.settle()
    world.answer(world.queue.sent[-1])
    assert [client.reply()[:3] for _ in range(6)] == ["220", "250", "250", "250", "354", "452"]
    assert [type(one) for one in world.queue.sent] == [m.BodyOpen, m.Abort]


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


def test_a_message_for_which_there_is_no_descriptor(world: World) -> None:
    """It is refused with 452 and the session goes on; queue is not asked; when one is closed there is room again."""
    world.server.max_bodies = 1
    first, second = world.connect(), world.connect()
    large = b"A: b\r\n\r\n" + b"x\r\n" * 30_000
    first.send(ENVELOPE + large)
    world.spin(lambda: world.server.bodies == 1)
    second.send(ENVELOPE + large + b".\r\n")
    assert [second.reply()[:3] for _ in range(6)] == ["220", "250", "250", "250", "354", "452"]
    assert sum(isinstance(one, m.BodyOpen) for one in world.queue.sent) == 1
    first.send(b".\r\n")
    assert [first.reply()[:3] for _ in range(6)] == ["220", "250", "250", "250", "354", "250"]
    assert world.server.bodies == 0
    second.send(b"MAIL FROM:<>\r\nRCPT TO:<a@example.com>\r\nDATA\r\n" + large + b".\r\n")
    assert [second.reply()[:3] for _ in range(4)] == ["250", "250", "354", "250"]
    assert world.server.bodies == 0


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


def test_a_late_file_is_closed(world: World) -> None:
    """The descriptor for a client that is gone is not leaked."""
    world.hold.add(m.BodyOpen)
    client = world.connect()
    client.send(ENVELOPE + b"A: b\r\n\r\n" + b"x\r\n" * 30_000)
    world.spin(lambda: any(isinstance(one, m.BodyOpen) for one in world.queue.sent))
    world.server.drain(lambda: None)
    world.server._cut()
    assert type(world.queue.sent[-1]) is m.Abort
    world.answer(next(one for one in world.queue.sent if isinstance(one, m.BodyOpen)))
    assert open_descriptors_of(world.directory) == 0


def test_a_client_that_does_not_read_is_not_read_either(make_world: Callable[..., World]) -> None:
    """Replies wait in bounded memory: reading pauses, and goes on when the client reads."""
    world = make_world(max_idle_commands=1_000_000)
    client = world.connect()
    client.send(b"EHLO x\r\n")
    command = b"HELP\r\n" * 500
    sent = 0
    for _ in range(20_000):
        world.loop.turn(0.0)
        try:
            sent += client.sock.send(command)
        except BlockingIOError:
            break
    else:
        pytest.fail("the server reads on and on")
    (connection,) = world.server._open
    assert connection.stream is not None
    assert connection.stream.unsent_bytes < 2 * 65_536  # some replies beyond the bound
    expected = (sent // 6) * len(say.HELP)
    got = 0

    def all_read() -> bool:
        nonlocal got
        while client.read():
            got += len(client.buffer)
            client.buffer = b""
        return got >= expected

    world.spin(all_read)


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


def test_queue_that_does_not_keep_up_stops_bodies(world: World) -> None:
    """While queue's channel is full no more of bodies is read; afterwards it goes on."""
    client = world.connect()
    client.send(ENVELOPE)
    assert [client.reply()[:3] for _ in range(5)] == ["220", "250", "250", "250", "354"]
    world.queue.pending_bytes = 9 << 20
    client.send(b"A: b\r\n")
    world.settle()
    (connection,) = world.server._open
    assert connection._paused
    world.queue.pending_bytes = 0
    client.send(b"\r\n.\r\n")
    assert client.reply()[:3] == "250"


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


def test_stats(world: World) -> None:
    """Sessions are counted by family, now."""
    client = world.connect()
    client.reply()
    world.server.control_handlers()[m.ShowStats](m.ShowStats(7))
    counters, done = world.control.sent
    assert isinstance(counters, m.Counters)
    assert dict(counters.values)["smtp.session"] == 1
    assert dict(counters.values)["smtp.session.inet4"] == 1
    assert dict(counters.values)["smtp.session.inet6"] == 0
    assert done == m.Done(7, True)


def test_local_socket(tmp_path: Path, make_world: Callable[..., World]) -> None:
    """A client of the Unix socket is "local", and its mail is completed like a submission."""
    world = make_world(unix_path=str(tmp_path / "sock"))
    client = world.connect()
    client.send(ENVELOPE + b"To: x\r\n\r\n.\r\n")
    assert [client.reply()[:3] for _ in range(6)] == ["220", "250", "250", "250", "354", "250"]
    (body,) = world.bodies.values()
    assert b"(mx.example.com [local])" in body
    assert b"\r\nDate: " in body
    assert b"\r\nMessage-ID: <" in body
    assert world.lookup.sent[0].address == "local"


def test_a_client_that_breaks_off(world: World) -> None:
    """A reset leaves nothing behind."""
    client = world.connect()
    client.reply()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    client.sock.close()
    world.spin(lambda: not world.server._open and not world.server._sessions)
    assert type(world.lookup.sent[-1]) is m.SessionEnd


@pytest.mark.parametrize(
    "message",
    [
        m.Committed(3 << 56 | 5, 1, 250, ""),
        m.RcptReply(3 << 56 | 5, 1, 0, 250, ""),
    ],
)
def test_answers_nobody_asked_for_end_the_process(message: m.Message, make_world: Callable[..., World]) -> None:
    """queue is broken or taken over when it answers what was not asked."""
    world = make_world()
    world.queue_says(message)
    assert len(world.failures) == 1


def test_wrong_answers_to_a_session_end_the_process(make_world: Callable[..., World]) -> None:
    """An answer that the session's state does not wait for is a violation too."""
    world = make_world()
    client = world.connect()
    client.reply()
    session = world.lookup.sent[0].session
    world.lookup_says(m.AuthReply(session, "ok"))
    world.queue_says(m.Committed(session, 1, 250, ""))
    world.queue_says(m.BodyRefused(session, 1, ""))
    world.queue_says(m.RcptReply(session, 1, 0, 250, ""))
    world.lookup_says(m.RcptRefuse(session, 1, 0, 550, ""))
    assert len(world.failures) == 5


def test_handlers_are_those_of_the_contract(make_world: Callable[..., World]) -> None:
    """Real channels accept the handler tables."""
    world = make_world()
    loop = Loop()
    tables = {
        Process.LOOKUP: world.server.lookup_handlers(),
        Process.QUEUE: world.server.queue_handlers(),
        # runtime/child answers Follow for all processes.
        Process.CONTROL: {**world.server.control_handlers(), m.Follow: lambda _message: None},
    }
    for peer, handlers in tables.items():
        ours, theirs = socket.socketpair()
        channel = Channel(loop, ours, Process.SMTP, peer, handlers, lambda _why: None, Phase.RUN)
        channel.close()
        theirs.close()


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
