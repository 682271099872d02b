"""What the targets share: bytes cut in pieces, and a session that has come to a certain point."""

from collections.abc import Iterator
from typing import Any

from smtp_dialogue import FakeWorld, make_service


def pieces(data: bytes) -> Iterator[bytes]:
    """The same bytes, cut where their own values say."""
    at = 0
    while at < len(data):
        size = 1 + data[at] % 7
        yield data[at : at + size]
        at += size


def session(said: bytes = b"", **changes: Any) -> FakeWorld:
    """A session in which the client has said that already, and has read the answers."""
    world = FakeWorld(make_service(**changes))
    world.start()
    if said:
        world.say(said)
        world.lines()
    return world


def clean_lines(received: bytes) -> list[str]:
    """The lines of the server's replies, each checked."""
    assert not received or received.endswith(b"\r\n")
    lines = received.split(b"\r\n")[:-1]
    for line in lines:
        assert line[:3].isdigit() and line.isascii() and all(byte >= 32 for byte in line) and len(line) <= 510, line
    return [line.decode() for line in lines]
