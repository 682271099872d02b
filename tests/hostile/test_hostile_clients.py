"""Clients that leave in every phase, that are slow, that do not read: the daemon serves the others."""

import base64
import contextlib
import socket
import ssl
import time

import pytest
from support.daemon import wait_until
from support.hostile import END, Target, Wire, peak_memory

STEPS = [
    b"", b"EHLO client.test\r\n", b"MAIL FROM:<a@client.test>\r\n", b"RCPT TO:<b@example.com>\r\n", b"DATA\r\n",
    b"Subject: x\r\n\r\nhalf a", b"x" * 200_000, b"\r\n.\r",
]  # fmt: skip


@pytest.mark.parametrize("how", ["FIN", "RST"])
@pytest.mark.parametrize("steps", range(1, len(STEPS) + 1))
@pytest.mark.parametrize("waits", [True, False])
def test_aborts_in_every_phase(target: Target, steps: int, how: str, waits: bool) -> None:
    """A connection that drops after any command leaves nothing behind, and no message."""
    with Wire(("127.0.0.1", target.daemon.port)) as wire:
        if waits:
            assert wire.reply().startswith(b"220 ")
        for at in range(steps):
            wire.send(STEPS[at])
            if waits and 0 < at < 5:
                assert wire.reply()[:1] in (b"2", b"3")
        if how == "RST":
            wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    target.taken(0)


def test_abort_right_behind_the_end_of_data(target: Target) -> None:
    """Dot sent, connection gone: the message is delivered or not, once at most, and the session ends."""
    for _ in range(10):
        with target.wire() as wire:
            wire.to_data()
            wire.send(b"Subject: x\r\n\r\nx" + END)
            wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    target.watch.settled()
    wait_until("the queue is empty", lambda: target.watch.queued() == 0)
    assert len(target.sink.mails) <= 10


@pytest.mark.parametrize("phase", ["hello", "handshake", "auth line", "auth login", "auth wait", "under TLS"])
def test_aborts_in_tls_and_auth(target: Target, phase: str) -> None:
    """The same in the middle of STARTTLS and of AUTH."""
    for _ in range(5):
        wire = Wire(("127.0.0.1", target.daemon.port2))
        with wire:
            wire.hello()
            if phase in ("hello", "handshake"):
                wire.send(b"STARTTLS\r\n")
                if phase == "handshake":
                    assert wire.reply().startswith(b"220 ")
                    wire.send(b"\x16\x03\x01\x02\x00\x01")
                continue
            wire.tls()
            if phase == "under TLS":
                continue
            wire.say("EHLO client.test")
            if phase == "auth line":
                wire.send(b"AUTH PLAIN AGFsa")
            elif phase == "auth login":
                assert wire.say("AUTH LOGIN").startswith(b"334 ")
            else:
                wire.send(b"AUTH PLAIN " + base64.b64encode(b"\0alice\0wrong") + b"\r\n")


def test_slowloris(target: Target) -> None:
    """Five hundred clients in the middle of a command or a message: a normal one is served at once."""
    with contextlib.ExitStack() as stack, peak_memory(target.watch):
        for at in range(500):
            wire = stack.enter_context(Wire(("127.0.0.1", target.daemon.port)))
            if at % 4 == 1:
                wire.send(b"EHL")
            elif at % 4 == 2:
                wire.send(b"EHLO a\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<b@exa")
            elif at % 4 == 3:
                wire.send(b"EHLO a\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<b@example.com>\r\nDATA\r\nSubj")
        wait_until("all are there", lambda: target.watch.sessions() >= 500)
        for _ in range(3):
            target.watch.serves()
        assert target.watch.sessions() >= 500, "it was served before any of them was given up"
        with target.wire() as wire:
            wire.to_data()
            assert wire.say(b"Subject: x\r\n\r\nx\r\n.").startswith(b"250 ")
            wire.say("QUIT")
        wait_until("it arrives", lambda: len(target.sink.mails) == 1)


@pytest.mark.parametrize("tls", [False, True])
def test_clients_that_never_read(target: Target, tls: bool) -> None:
    """A hundred that send commands and read no reply: memory is bounded, others are served."""
    flood = b"EHLO a\r\n" * 8192
    with contextlib.ExitStack() as stack, peak_memory(target.watch):
        for _ in range(30 if tls else 100):
            wire = stack.enter_context(target.wire(receive_bytes=4096))
            if tls:
                wire.tls()
            wire.sock.setblocking(False)
            with contextlib.suppress(BlockingIOError, ssl.SSLWantWriteError, ssl.SSLWantReadError):
                for _ in range(8):
                    wire.sock.send(flood)
        time.sleep(0.3)
        target.watch.serves()


def test_ipv6_peer_cve_2023_29323(target: Target) -> None:
    """Sessions over IPv6 are as those over IPv4."""
    with Wire(("::1", target.daemon.port)) as wire:
        wire.hello()
        wire.to_data()
        assert wire.say(b"Subject: six\r\n\r\nx\r\n.").startswith(b"250 ")
        wire.say("QUIT")
    (data,) = target.taken(1)
    assert b"[::1]" in data


def test_thousand_sessions_leave_no_memory_cve_2020_35679(target: Target) -> None:
    """A thousand sessions of every ending leave memory flat (regex leak)."""
    before = target.watch.rss_bytes("smtp"), target.watch.rss_bytes("lookup"), target.watch.rss_bytes("queue")
    for at in range(1000):
        with Wire(("127.0.0.1", target.daemon.port)) as wire:
            wire.send(b"EHLO a\r\nMAIL FROM:<a%d@client.test>\r\nRCPT TO:<b%d@example.com>\r\n" % (at, at))
            if at % 3:
                wire.send(b"QUIT\r\n")
                wire.rest()
    after = target.watch.rss_bytes("smtp"), target.watch.rss_bytes("lookup"), target.watch.rss_bytes("queue")
    assert all(late - early < 8 << 20 for early, late in zip(before, after, strict=True)), (before, after)
