"""Channels over a real socketpair, driven by a real loop."""

import contextlib
import os
import resource
import socket
from collections.abc import Callable, Iterator

import pytest

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Phase, Process
from smtpd_ps.runtime.channel import BlockingChannel, Channel
from smtpd_ps.runtime.codec import ContractViolation, encode
from smtpd_ps.runtime.frames import incoming
from smtpd_ps.runtime.loop import Loop


class Ends:
    """smtp's and queue's end of one channel, what arrived at each, why each closed."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.got: list[tuple[m.Message, tuple[int, ...]]] = []
        self.closed: list[str] = []
        self.raw, other = socket.socketpair()
        self.queue = Channel(
            self.loop,
            other,
            Process.QUEUE,
            Process.SMTP,
            self.handlers(Process.SMTP, Process.QUEUE),
            self.closed.append,
        )

    def handlers(self, sender: Process, receiver: Process) -> dict[type[m.Message], Callable[..., None]]:
        def keep(message: m.Message, *fds: int) -> None:
            self.got.append((message, fds))

        return {route.message: keep for route in incoming(sender, receiver).values()}

    def smtp(self) -> Channel:
        return Channel(
            self.loop,
            self.raw,
            Process.SMTP,
            Process.QUEUE,
            self.handlers(Process.QUEUE, Process.SMTP),
            lambda _why: None,
        )

    def turns(self, count: int = 20) -> None:
        for _ in range(count):
            self.loop.turn(0.01)


@pytest.fixture
def ends() -> Iterator[Ends]:
    pair = Ends()
    yield pair
    pair.queue.close()
    pair.raw.close()


def test_messages_arrive_in_order(ends: Ends) -> None:
    """What one end sends, the other handles in the same order."""
    smtp = ends.smtp()
    sent = [m.Abort(1, number) for number in range(500)]
    for message in sent:
        smtp.send(message)
    ends.turns()
    assert [message for message, _fds in ends.got] == sent


def test_more_than_the_kernel_takes_at_once(ends: Ends) -> None:
    """Frames beyond the socket buffer wait and arrive whole; pending_bytes returns to 0."""
    smtp = ends.smtp()
    bodies = [m.Commit(1, number, 1, False, bytes([number]) * 60_000) for number in range(60)]
    for message in bodies:
        smtp.send(message)
    assert smtp.pending_bytes > 60 * 60_000
    ends.turns(200)
    assert [message for message, _fds in ends.got] == bodies
    assert smtp.pending_bytes == 0


def test_descriptors_travel_between_plain_messages(ends: Ends) -> None:
    """A descriptor comes with its own message although others go out in the same turn; the sender's copy is closed."""
    smtp = ends.smtp()
    reader, writer = os.pipe()
    ends.queue.send(m.Committed(1, 1, 250, "ok"))
    ends.queue.send(m.BodyFile(1, 2), writer)
    ends.queue.send(m.Committed(1, 3, 250, "ok"))
    ends.turns()
    assert [type(message) for message, _fds in ends.got] == [m.Committed, m.BodyFile, m.Committed]
    received = ends.got[1][1][0]
    os.write(received, b"through")
    os.close(received)
    assert os.read(reader, 20) == b"through"
    assert os.read(reader, 20) == b"", "a writable end is still open at the sender"
    os.close(reader)
    assert not smtp.closed


def test_a_violation_closes_with_its_reason(ends: Ends) -> None:
    """What the peer may not say ends the channel, and the owner hears why."""
    ends.raw.sendall(encode(m.Deliver(())))
    ends.turns()
    assert len(ends.closed) == 1
    assert "may not send" in ends.closed[0]


def test_a_clean_end_has_no_reason(ends: Ends) -> None:
    """EOF between messages is a plain end; in the middle of one it is not."""
    ends.raw.close()
    ends.turns()
    assert ends.closed == [""]


def test_an_end_inside_a_message_says_so(ends: Ends) -> None:
    """A truncated frame is never handled."""
    ends.raw.sendall(encode(m.Abort(1, 2))[:-1])
    ends.raw.close()
    ends.turns()
    assert ends.closed == ["closed in the middle of a message"]
    assert not ends.got


def test_stray_descriptors_are_a_violation(ends: Ends) -> None:
    """smtp may not slip queue a descriptor: none of its messages carries one, so it is never even received."""
    reader, writer = os.pipe()
    socket.send_fds(ends.raw, [encode(m.Abort(1, 2))], [writer])
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    ends.turns()
    os.close(writer)
    assert os.read(reader, 1) == b"", "the descriptor stayed open at the receiver"
    os.close(reader)
    if before:
        assert len(os.listdir("/proc/self/fd")) <= len(before)


def test_handlers_must_match_the_contract() -> None:
    """A process that forgot a message, or handles one that cannot come, does not start."""
    left, right = socket.socketpair()
    with left, right, pytest.raises(ContractViolation, match="differ from the contract"):
        Channel(Loop(), left, Process.QUEUE, Process.SMTP, {}, lambda _why: None)


def test_sending_without_a_route_raises(ends: Ends) -> None:
    """The sender's own end refuses what the contract does not list."""
    with pytest.raises(ContractViolation):
        ends.queue.send(m.Abort(1, 1))


def test_blocking_channel_times_out() -> None:
    """A signer that does not answer costs the time-out and not more."""
    left, right = socket.socketpair()
    with left, right:
        channel = BlockingChannel(left, Process.SMTP, Process.KEYS, Phase.RUN, 0.05)
        channel.send(m.Sign("pki", "rsa", b"x"))
        with pytest.raises(TimeoutError):
            channel.receive()


def test_blocking_channel_hears_the_end() -> None:
    """The peer's end is EOFError, not an empty message."""
    left, right = socket.socketpair()
    with left:
        right.close()
        with pytest.raises(EOFError):
            BlockingChannel(left, Process.SMTP, Process.KEYS, Phase.RUN, 1).receive()


def test_a_descriptor_waits_until_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit of open files the kernel would drop it and deliver the message: the channel does not read then."""
    loop = Loop()
    got: list[tuple[m.Message, tuple[int, ...]]] = []
    closed: list[str] = []
    raw, other = socket.socketpair()

    def keep(message: m.Message, *fds: int) -> None:
        got.append((message, fds))

    handlers = {route.message: keep for route in incoming(Process.QUEUE, Process.SMTP).values()}
    Channel(loop, other, Process.SMTP, Process.QUEUE, handlers, closed.append)
    sender = BlockingChannel(raw, Process.QUEUE, Process.SMTP, Phase.RUN, 5)
    with open(os.devnull, "rb") as body:
        sender.send(m.BodyFile(7, 1), body.fileno())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fillers = [os.dup(0)]
    monkeypatch.setattr("smtpd_ps.runtime.channel.NO_ROOM_SECS", 0.01)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(fillers[0] + 1, 64), hard))
        with contextlib.suppress(OSError):
            while True:
                fillers.append(os.dup(0))
        for _ in range(3):
            loop.turn(0.05)
        assert not got and not closed
    finally:
        for fd in fillers:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    while not got:
        loop.turn(1)
    message, (fd,) = got[0]
    assert message == m.BodyFile(7, 1)
    os.close(fd)
    other.close()
    raw.close()


def test_blocking_channel_reads_no_further() -> None:
    """What follows Go in the same bytes, descriptors and all, is left for the Channel that takes over."""
    left, right = socket.socketpair()
    inside, outside = os.pipe()
    parent = Channel(
        Loop(), left, Process.PARENT, Process.QUEUE, {m.Ready: print, m.Drained: print}, lambda _why: None, Phase.SETUP
    )
    parent.send(m.Go())
    parent.flush()
    parent.phase = Phase.RUN
    parent.send(m.NewPeer(Process.SMTP, 1), inside)
    parent.flush()
    blocking = BlockingChannel(right, Process.QUEUE, Process.PARENT, Phase.SETUP, 5)
    assert blocking.receive() == (m.Go(), ())
    assert blocking.settled
    got: list[tuple[m.Message, int]] = []
    loop = Loop()
    handlers = {route.message: print for route in incoming(Process.PARENT, Process.QUEUE).values()}
    handlers[m.NewPeer] = lambda message, fd: got.append((message, fd))
    queue = Channel(loop, right, Process.QUEUE, Process.PARENT, handlers, lambda _why: None)
    loop.turn(1)
    assert [message for message, _fd in got] == [m.NewPeer(Process.SMTP, 1)]
    for fd in (got[0][1], outside):
        os.close(fd)
    parent.close()
    queue.close()


def test_spare_descriptors_are_kept(ends: Ends) -> None:
    """A channel that is told to leave some free reads no descriptor while fewer are left, and goes on afterwards."""
    smtp = ends.smtp()
    smtp.spare_fds = 4
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    reader, writer = os.pipe()
    ends.queue.send(m.BodyFile(1, 1), writer)
    ends.queue.flush()  # closes its writer
    slots = [os.dup(0) for _ in range(4)]
    for fd in slots:
        os.close(fd)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(slots), before[1]))
        ends.turns(3)
        assert not ends.got
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    ends.turns(30)
    assert [type(message) for message, _fds in ends.got] == [m.BodyFile]
    os.close(ends.got[0][1][0])
    os.close(reader)
