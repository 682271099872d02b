"""smtp/proxied: connections that begin with a PROXY header, over real sockets."""

import os
from collections.abc import Callable
from typing import Any

import pytest
from smtp_glue import Client, World

from smtpd_ps.contract import messages as m
from smtpd_ps.smtp import proxied

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FROM_7 = SIGNATURE + b"\x21\x11\0\x0c" + bytes((192, 0, 2, 7)) + bytes(8)
LOCAL = SIGNATURE + b"\x20\0\0\0"


@pytest.fixture
def make_world(make_world: Callable[..., World]) -> Callable[..., World]:
    """Servers with a listener that takes PROXY headers."""

    def make(proxies: tuple[str, ...] = (), **more: Any) -> World:
        return make_world(proxy="listed" if proxies else "any", proxies=proxies, **more)

    return make


def gone(world: World, client: Client) -> None:
    """The connection is closed, not a byte was said, and nothing is left of it."""
    assert client.closed()
    world.spin(lambda: not world.server._open and not world.server._at_doors())
    assert world.lookup.sent == []


def test_the_header_says_who_the_client_is(make_world: Callable[..., World]) -> None:
    """The greeting comes after the header, in whatever pieces it arrives; the session is the client's."""
    world = make_world()
    client = world.connect()
    for byte in FROM_7:
        client.send(bytes((byte,)))
        world.settle()
    assert client.reply().startswith("220")
    client.send(b"HELO x\r\n")
    assert "[192.0.2.7]" in client.reply()
    query = next(one for one in world.lookup.sent if isinstance(one, m.PeerQuery))
    assert query.address == "192.0.2.7"
    assert world.server._sources.count("192.0.2.7") == 1


def test_what_follows_the_header_is_the_clients(make_world: Callable[..., World]) -> None:
    """Commands in the same segment are not lost."""
    world = make_world()
    client = world.connect()
    client.send(FROM_7 + b"NOOP\r\nQUIT\r\n")
    assert [client.reply()[:3] for _ in range(3)] == ["220", "250", "221"]


def test_local_is_the_proxy_itself(make_world: Callable[..., World]) -> None:
    """A health check of the proxy is a session of its own address."""
    world = make_world()
    client = world.connect()
    client.send(LOCAL)
    assert client.reply().startswith("220")
    assert next(one for one in world.lookup.sent if isinstance(one, m.PeerQuery)).address == "127.0.0.1"


@pytest.mark.parametrize("data", [b"EHLO proxy.example\r\n", b"\0" * 16, SIGNATURE + b"\x21\x11\xff\xff", b"\r\n" * 8])
def test_garbage_closes_silently(make_world: Callable[..., World], data: bytes) -> None:
    """No reply, no session (QUIRKS 14)."""
    world = make_world()
    client = world.connect()
    client.send(data)
    gone(world, client)


def test_a_header_that_breaks_off(make_world: Callable[..., World]) -> None:
    """A connection that ends within its header leaves nothing behind."""
    world = make_world()
    client = world.connect()
    client.send(FROM_7[:20])
    client.sock.close()
    world.clients.clear()
    world.spin(lambda: not world.server._at_doors())
    assert world.lookup.sent == []


def test_a_slow_header(make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch) -> None:
    """The header has a deadline, whatever arrives meanwhile."""
    monkeypatch.setattr(proxied, "HEADER_SECS", 0.05)
    world = make_world()
    client = world.connect()
    client.send(SIGNATURE)
    gone(world, client)


def test_only_listed_proxies(make_world: Callable[..., World]) -> None:
    """With a list, a header of anybody else is not even read."""
    world = make_world(("192.0.2.0/24", "2001:db8::1"))
    client = world.connect()
    gone(world, client)
    world = make_world(("127.0.0.0/8",))
    client = world.connect()
    client.send(FROM_7)
    assert client.reply().startswith("220")


def test_headers_count_as_sessions(make_world: Callable[..., World]) -> None:
    """Connections that send no header cannot take more room than sessions."""
    world = make_world(max_sessions=2)
    waiting = [world.connect(), world.connect()]
    world.spin(lambda: world.server._at_doors() == len(waiting))
    assert world.connect().closed()
    waiting[0].send(FROM_7)
    assert waiting[0].reply().startswith("220")


def test_draining_ends_them(make_world: Callable[..., World]) -> None:
    """When the daemon stops nobody waits for headers, and no descriptor stays."""
    world = make_world()
    before = len(os.listdir("/proc/self/fd"))
    client = world.connect()
    world.spin(lambda: world.server._at_doors() > 0)
    drained: list[bool] = []
    world.server.drain(lambda: drained.append(True))
    world.spin(lambda: bool(drained))
    assert client.closed()
    client.sock.close()
    assert len(os.listdir("/proc/self/fd")) <= before
