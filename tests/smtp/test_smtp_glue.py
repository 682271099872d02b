"""smtp/: connections, bodies and channels around the SMTP server's core; who is let in is in test_smtp_limits."""

import os
import socket
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from smtp_glue import ENVELOPE, World

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Phase, Process
from smtpd_ps.pure import smtp_replies as say
from smtpd_ps.runtime.channel import Channel
from smtpd_ps.runtime.loop import Loop


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
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65536)  # or megabytes are answered line by line
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


def test_queue_that_does_not_keep_up_stops_bodies(world: World) -> None:
    """While queue's channel is full no more of bodies is read; afterwards it goes on."""
    client = world.connect()
    client.send(ENVELOPE)
    assert [client.reply()[:3] for _ in range(5)] == ["220", "250", "250", "250", "354"]
    world.queue.pending_bytes = 9 << 20
    client.send(b"A: b\r\n")
    (connection,) = world.server._open
    world.spin(lambda: connection._paused)
    world.queue.pending_bytes = 0
    client.send(b"\r\n.\r\n")
    assert client.reply()[:3] == "250"


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
