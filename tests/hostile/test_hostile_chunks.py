"""BDAT as an attacker sends it: no size of a chunk makes its bytes commands, or commands its bytes."""

import contextlib
import socket

import pytest
from support.hostile import Target, Wire, peak_memory
from test_hostile_ends import FALSE_ENDS, SMUGGLED

HEADER = b"Subject: chunk\r\n\r\n"
BODY_COMMANDS = b"MAIL FROM:<forged@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\nx\r\n.\r\n"


def recipients(wire: Wire) -> None:
    """A transaction that only lacks its message."""
    assert wire.say("MAIL FROM:<a@client.test>").startswith(b"250 ")
    assert wire.say("RCPT TO:<b@example.com>").startswith(b"250 ")


BAD_SIZES = [
    "-1", "+70", "0x46", "7e1", "70,", "70.0", "70 LAST LAST", "70 FIRST", "70 LASTLY", "LAST", "", "LAST 70", "70LAST",
    "18446744073709551616", "18446744073709551686", "9" * 19, "9" * 400, "4294967366 70", "7 0", "%d", "70;LAST", "''",
]  # fmt: skip


@pytest.mark.parametrize("size", BAD_SIZES)
@pytest.mark.parametrize("waits", [True, False])
def test_a_size_that_is_none(target: Target, size: str, waits: bool) -> None:
    """Where the chunk ends cannot be known: one refusal, and not a byte behind it is looked at."""
    with target.wire() as wire:
        recipients(wire)
        command = f"BDAT {size}".rstrip(" ").encode() + b"\r\n"
        if waits:
            wire.send(command)
            assert wire.reply().startswith(b"501 5.5.4 ")
            wire.send(BODY_COMMANDS)
        else:
            wire.send(command + BODY_COMMANDS)
            assert wire.reply().startswith(b"501 5.5.4 ")
        assert wire.closed()
    target.taken(0)


@pytest.mark.parametrize("size", ["70", "070", "0" * 16 + "70", "70 LAST", "70 last", "70  LAST"])
@pytest.mark.parametrize("before", ["", "EHLO x", "MAIL FROM:<>", "MAIL FROM:<>\r\nRCPT TO:<x@elsewhere.test>"])
def test_a_chunk_out_of_place_is_swallowed(target: Target, size: str, before: str) -> None:
    """Without a recipient it is refused, and its bytes, commands by their looks, are still no commands."""
    payload = (BODY_COMMANDS + b"y" * 70)[:70]
    with Wire(("127.0.0.1", target.daemon.port)) as wire:
        assert wire.reply().startswith(b"220 ")
        if before.startswith("MAIL"):
            assert wire.say("EHLO x").startswith(b"250 ")
        for line in before.split("\r\n") if before else ():
            wire.say(line)
        wire.send(b"BDAT " + size.encode() + b"\r\n" + payload + b"NOOP\r\n")
        assert wire.reply().startswith(b"503 ")
        assert wire.reply() == b"250 2.0.0 Ok"
        assert wire.say("QUIT").startswith(b"221 ")
        assert wire.closed()
    target.taken(0)


def test_a_size_above_the_bytes(target: Target) -> None:
    """The commands behind are part of the chunk; when the client leaves there is no message."""
    with target.wire() as wire:
        recipients(wire)
        wire.send(b"BDAT 1000 LAST\r\n" + HEADER + b"QUIT\r\n")
        wire.sock.shutdown(socket.SHUT_WR)
        assert wire.closed()
    target.taken(0)


@pytest.mark.parametrize("missing", range(1, 6))
def test_a_size_below_the_bytes(target: Target, missing: int) -> None:
    """The message ends where the size says; the rest are bad commands, not a part of it, and not another message."""
    message = HEADER + b"hello"
    with target.wire() as wire:
        recipients(wire)
        wire.send(b"BDAT %d LAST\r\n%b\r\nNOOP\r\n" % (len(message) - missing, message))
        assert wire.reply().startswith(b"250 2.0.0 ")
        assert wire.reply().startswith(b"500 5.5.1 ")
        assert wire.reply() == b"250 2.0.0 Ok"
        wire.say("QUIT")
    (data,) = target.taken(1)
    assert data.endswith(b"\r\n\r\n" + b"hello"[: 5 - missing] + b"\r\n" * (missing < 5))


def test_chunks_and_data_do_not_mix(target: Target) -> None:
    """DATA behind a chunk is out of order, and what would be its message is commands; BDAT within DATA is text."""
    with target.wire() as wire:
        recipients(wire)
        wire.send(b"BDAT %d\r\n%b" % (len(HEADER), HEADER))
        assert wire.reply().startswith(b"250 ")
        assert wire.say("DATA").startswith(b"503 ")
        assert wire.say("RCPT TO:<c@example.com>").startswith(b"503 ")
        assert wire.say("MAIL FROM:<c@example.com>").startswith(b"503 ")
        assert wire.say("BDAT 0 LAST").startswith(b"250 2.0.0 ")
        wire.to_data()
        wire.send(HEADER + b"BDAT 5 LAST\r\nhello\r\n.\r\n")
        assert wire.reply().startswith(b"250 2.0.0 ")
        wire.say("QUIT")
    first, second = target.taken(2)
    assert b"Subject: chunk\r\n" in first and first.endswith(b"\r\n\r\n")
    assert second.endswith(b"\r\n\r\nBDAT 5 LAST\r\nhello\r\n")


def test_rubbish_behind_the_last_chunk(target: Target) -> None:
    """It is so many bad commands: the session ends after its budget, and the message was taken once."""
    with target.wire() as wire:
        recipients(wire)
        wire.send(b"BDAT %d LAST\r\n%b" % (len(HEADER), HEADER) + b"rubbish %s%n\xff\r\n" * 5000)
        assert wire.reply().startswith(b"250 2.0.0 ")
        lines = wire.rest()
    assert 10 <= len(lines) <= 50 and lines[-1].startswith(b"421 ")
    target.taken(1)


@pytest.mark.parametrize("size", ["36700161", "73400320 LAST"])
def test_a_chunk_too_big_for_any_message(target: Target, size: str) -> None:
    """It is refused without being kept."""
    wanted = int(size.split()[0])
    with target.wire(timeout_secs=60) as wire, peak_memory(target.watch):
        recipients(wire)
        wire.send(b"BDAT " + size.encode() + b"\r\n" + HEADER)
        block = b"x" * 998 + b"\r\n"
        left = wanted - len(HEADER)
        while left > 0:
            wire.send((block * 64)[: min(left, 64_000)])
            left -= 64_000
        assert wire.reply().startswith(b"554 5.3.4 ")
        assert wire.say("NOOP") == b"250 2.0.0 Ok"
    target.taken(0)


@pytest.mark.parametrize("size", ["99999999999", "999999999999999999 LAST"])
def test_a_chunk_not_worth_swallowing(target: Target, size: str) -> None:
    """Beyond twice the limit and 64 MiB the session ends at once."""
    with target.wire() as wire:
        recipients(wire)
        assert wire.say("BDAT " + size).startswith(b"554 5.3.4 ")
        assert wire.closed()
    target.taken(0)


def test_ten_thousand_chunks(target: Target) -> None:
    """A message of chunks of a byte, with empty ones between: one message, and bounded memory."""
    message = HEADER + b"z" * 5000 + b"\r\n"
    with target.wire() as wire, peak_memory(target.watch), peak_memory(target.watch, "queue"):
        recipients(wire)
        for at in range(0, len(message), 500):
            part = message[at : at + 500]
            wire.send(b"".join(b"BDAT 1\r\n%cBDAT 0\r\n" % byte for byte in part))
            for _ in range(2 * len(part)):
                assert wire.reply().startswith(b"250 2.0.0 ")
        assert wire.say("BDAT 0 LAST").startswith(b"250 2.0.0 ")
        wire.say("QUIT")
    (data,) = target.taken(1)
    assert data.endswith(b"\r\n\r\n" + b"z" * 5000 + b"\r\n")


@pytest.mark.parametrize("form", [*FALSE_ENDS, "CRLF.CRLF"])
def test_nothing_is_smuggled_in_chunks(target: Target, form: str) -> None:
    """Dots mean nothing in a chunk: what another server might take for the end is refused, or goes out stuffed."""
    end = FALSE_ENDS.get(form, b"\r\n.\r\n")
    message = HEADER + b"body" + end + SMUGGLED + b"\r\n"
    with target.wire() as wire:
        recipients(wire)
        wire.send(b"BDAT %d LAST\r\n%bNOOP\r\n" % (len(message), message))
        answer = wire.reply()
        assert wire.reply() == b"250 2.0.0 Ok"
        wire.say("QUIT")
    if form in ("CRLF.CRLF", "CRLF.SPACECRLF"):
        assert answer.startswith(b"250 ")
        (data,) = target.taken(1)
        assert data.endswith(b"body" + end + SMUGGLED + b"\r\n")
    else:
        assert answer.startswith((b"550 5.6.11 ", b"550 5.6.0 "))
        target.taken(0)


@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("sent", [0, 1, 17, 100_000])
def test_aborts_within_a_chunk(target: Target, sent: int, secure: bool) -> None:
    """A connection that drops within a chunk leaves nothing behind."""
    for _ in range(5):
        with target.wire() as wire:
            if secure:
                wire.tls()
                assert wire.say("EHLO x").startswith(b"250 ")
            recipients(wire)
            wire.send(b"BDAT 200000 LAST\r\n" + (HEADER + b"y\r\n" * 40_000)[:sent])
            with contextlib.suppress(OSError):
                wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    target.taken(0)
