"""Too long, too big and too many, against the real daemon: the limit's code, linear time, bounded memory."""

import threading
import time

import pytest
from support.hostile import END, Target, peak_memory


def test_command_line_limits(target: Target) -> None:
    """2047 bytes are a command line; one more ends the session, with its reply and before its CRLF."""
    with target.wire() as wire:
        assert wire.say(b"NOOP " + b"x" * 2042) == b"250 2.0.0 Ok"
        assert wire.say(b"NOOP " + b"x" * 2043).startswith(b"500 5.0.0 ")
        assert wire.closed()
    with target.wire() as wire:
        wire.send(b"x" * 5000)
        assert wire.reply().startswith(b"500 5.0.0 ")
        assert wire.closed()


def test_command_line_of_16_mib(target: Target) -> None:
    """It is refused at its beginning; the rest is swallowed or cut off, and not kept."""
    with target.wire() as wire, peak_memory(target.watch):
        wire.send(b"MAIL FROM:<" + b"a" * (16 << 20) + b"@client.test>\r\n")
        assert wire.reply().startswith((b"500 5.0.0 ", b""))


def test_message_line_of_16_mib(target: Target) -> None:
    """A message with such a line is refused once, at its end, in linear time."""
    with target.wire() as wire, peak_memory(target.watch):
        wire.to_data()
        started = time.monotonic()
        wire.send(b"Subject: x\r\n\r\n")
        for _ in range(256):
            wire.send(b"y" * 65_536)
        wire.send(END)
        assert wire.reply().startswith(b"500 5.0.0 ")
        assert time.monotonic() - started < 10
        assert wire.say("NOOP") == b"250 2.0.0 Ok"
    target.taken(0)


@pytest.mark.parametrize("line", [b"X-Filler: " + b"z" * 60 + b"\r\n", b"\tfolded " + b"z" * 60 + b"\r\n", b"a:\r\n"])
def test_header_of_10_mib(target: Target, line: bytes) -> None:
    """A header that never ends is refused, in linear time (prescan, 21Nails)."""
    with target.wire() as wire, peak_memory(target.watch):
        wire.to_data()
        started = time.monotonic()
        wire.send(b"Subject: x\r\n")
        block = line * (65_536 // len(line))
        for _ in range(160):
            wire.send(block)
        wire.send(b"\r\nbody" + END)
        assert wire.reply().startswith(b"554 5.3.4 ")
        assert time.monotonic() - started < 10
    target.taken(0)


def test_message_too_big(target: Target) -> None:
    """36 MiB are refused at the end, and nothing of them stays in the spool."""
    with target.wire() as wire, peak_memory(target.watch):
        wire.to_data()
        block = b"Subject: x\r\n\r\n" + (b"y" * 998 + b"\r\n") * 65
        for _ in range(36 * 17):
            wire.send(block)
        wire.send(END)
        assert wire.reply().startswith(b"554 5.3.4 ")
        assert wire.say("NOOP") == b"250 2.0.0 Ok"
    target.taken(0)


@pytest.mark.parametrize(
    ("size", "code"),
    [("18446744073709551616", b"552"), ("99999999999999999999", b"552"), ("1" + "0" * 40, b"501"), ("-1", b"501"),
     ("0x10", b"501"), ("", b"501"), ("1e9", b"501"), ("36700161", b"552"), ("36700160", b"250")],
)  # fmt: skip
def test_size_2_to_the_64(target: Target, size: str, code: bytes) -> None:
    """SIZE is a number of at most 20 digits, and compared as a number of any size."""
    with target.wire() as wire:
        assert wire.say(f"MAIL FROM:<a@client.test> SIZE={size}").startswith(code)


def test_100000_recipients(target: Target) -> None:
    """Beyond a thousand each is refused with 451 4.5.3; the message goes to the thousand."""
    number, batch = 100_000, 1000
    with target.wire(timeout_secs=60) as wire, peak_memory(target.watch), peak_memory(target.watch, "lookup"):
        assert wire.say("MAIL FROM:<a@client.test>").startswith(b"250 ")
        codes: dict[bytes, int] = {}
        for start in range(0, number, batch):
            wire.send(b"".join(b"RCPT TO:<u%d@example.com>\r\n" % at for at in range(start, start + batch)))
            for _ in range(batch):
                code = wire.reply()[:9]
                codes[code] = codes.get(code, 0) + 1
                if not code:
                    break
            if b"" in codes:
                break
        codes.pop(b"", None)
        codes.pop(b"421 4.7.0", None)
        assert codes[b"250 2.1.5"] == 1000
        assert set(codes) == {b"250 2.1.5", b"451 4.5.3"}


ADDRESSES = [
    "<" + "a" * 256 + "@example.com>",
    "<a@" + "b" * 64 + ".example.com>",
    "<a@" + "b." * 130 + "example.com>",
    "<" + "a" * 1900 + "@example.com>",
    "<" + "@" * 500 + ">",
    "<" + "<" * 500 + ">" * 500,
    "<" + "(" * 900 + ">",
    "<" + '"' * 900 + ">",
    "<" + "." * 900 + "@example.com>",
    "<" + "@a," * 300 + ":" + "b" * 256 + "@example.com>",
]


@pytest.mark.parametrize("address", range(len(ADDRESSES)))
@pytest.mark.parametrize("verb", ["MAIL FROM:", "RCPT TO:"])
def test_overlong_addresses_prescan(target: Target, verb: str, address: int) -> None:
    """CVE-2003-0161 and its kin: an address that is too long or nested is refused, whole."""
    with target.wire() as wire:
        if verb.startswith("RCPT"):
            assert wire.say("MAIL FROM:<a@client.test>").startswith(b"250 ")
        assert wire.say(verb + ADDRESSES[address]).startswith((b"553 ", b"501 ", b"550 "))


def test_2000_bad_commands(target: Target) -> None:
    """The session ends after its budget of errors."""
    with target.wire() as wire:
        wire.send(b"".join(b"XYZZY%d\r\n" % at for at in range(2000)))
        lines = wire.rest()
    assert lines[-1].startswith(b"421 ")
    assert 10 <= len(lines) <= 50


@pytest.mark.parametrize(
    "command", ["RCPT TO:<nobody@elsewhere.test>", "VRFY root", "EXPN root", "HELO", "AUTH PLAIN x", "ETRN x", "DEBUG"]
)
def test_harvesting_ends_the_session(target: Target, command: str) -> None:
    """Refusals of every kind count."""
    with target.wire() as wire:
        wire.send(b"MAIL FROM:<a@client.test>\r\n" + command.encode() * 1 + b"\r\n")
        for _ in range(200):
            if not wire.say(command):
                break
        else:
            raise AssertionError("the session never ended")


def test_many_commands_of_no_use(target: Target) -> None:
    """Of twenty thousand NOOPs, RSETs and EHLOs in one write a thousand are answered in order (the client has said
    EHLO once before); memory stays.
    """
    with target.wire() as wire, peak_memory(target.watch):
        data = b"NOOP\r\nRSET\r\nEHLO a\r\n" * 7000
        sender = threading.Thread(target=wire.send, args=(data,))
        sender.start()
        for _ in range(333):
            assert wire.reply() == b"250 2.0.0 Ok"
            assert wire.reply() == b"250 2.0.0 Reset state"
            assert wire.reply() == b"250 HELP"
        assert wire.reply() == b"421 4.7.0 Too many commands without a message"
        sender.join()
