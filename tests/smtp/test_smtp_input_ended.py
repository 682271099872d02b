"""Clients that close their sending side before they have all replies, as Exim does behind a pipelined QUIT."""

import socket
from collections.abc import Callable

import pytest
from smtp_glue import Client, World

from smtpd_ps.contract import messages as m

ENVELOPE = b"EHLO client.example\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<b@example.com>\r\n"
LETTER = b"Subject: x\r\n\r\nhello\r\n"


def sent_and_ended(world: World, data: bytes) -> Client:
    """A client that has said all it will ever say before the server has read a byte."""
    client = world.connect()
    client.sock.setblocking(True)
    client.sock.sendall(data)
    client.sock.shutdown(socket.SHUT_WR)
    client.sock.setblocking(False)
    return client


def codes(client: Client) -> list[str]:
    """The codes of all replies up to the end."""
    assert client.closed()
    lines = client.buffer.decode().split("\r\n")
    return [line[:3] for line in lines if line[3:4] == " "]


@pytest.mark.parametrize(
    "letter", [b"DATA\r\n" + LETTER + b".\r\n", b"BDAT 21 LAST\r\n" + LETTER], ids=["data", "bdat"]
)
@pytest.mark.parametrize("last", [b"QUIT\r\n", b"", b"NOO"])
def test_all_commands_are_answered(make_world: Callable[..., World], letter: bytes, last: bytes) -> None:
    """What came before the end of input is carried out and answered, though lookup and queue take their time."""
    world = make_world()
    client = sent_and_ended(world, ENVELOPE + letter + last)
    expected = ["220", "250", "250", "250", *(["354"] if letter.startswith(b"DATA") else []), "250"]
    assert codes(client) == [*expected, *(["221"] if last == b"QUIT\r\n" else [])]
    (body,) = world.bodies.values()
    assert body.endswith(LETTER)
    world.spin(lambda: not world.server._open and not world.server._sessions)
    assert type(world.lookup.sent[-1]) is m.SessionEnd


@pytest.mark.parametrize("size_bytes", [70_000, 1_000_000])
def test_a_body_that_goes_to_a_file(make_world: Callable[..., World], size_bytes: int) -> None:
    """Reading pauses while queue opens the file; the end is seen after that."""
    world = make_world()
    client = world.connect()
    client.send(ENVELOPE + b"DATA\r\n" + LETTER + b"0123456789012345678901234567\r\n" * (size_bytes // 30) + b".\r\n")
    client.sock.shutdown(socket.SHUT_WR)
    assert codes(client) == ["220", "250", "250", "250", "354", "250"]
    assert len(world.bodies) == 1


@pytest.mark.parametrize("said", [b"", b"EHLO x\r\n", ENVELOPE, ENVELOPE + b"DATA\r\n" + LETTER, b"NOOP"])
def test_an_end_in_the_middle_is_the_end(make_world: Callable[..., World], said: bytes) -> None:
    """Nothing is stored of a message that is not whole, and nothing is left of the session."""
    world = make_world()
    client = sent_and_ended(world, said)
    assert client.closed()
    world.spin(lambda: not world.server._open and not world.server._sessions)
    assert world.bodies == {}
    assert world.failures == []


def test_a_client_that_is_quite_gone(make_world: Callable[..., World]) -> None:
    """Replies to who reads no more end the session, and queue's answer finds nobody."""
    world = make_world()
    client = sent_and_ended(world, ENVELOPE + b"DATA\r\n" + LETTER + b".\r\n")
    client.sock.close()
    world.spin(lambda: bool(world.lookup.sent) and not world.server._open and not world.server._sessions)
    assert world.failures == []
