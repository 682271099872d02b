"""Bytes that do not belong: control characters, NULs and bad UTF-8 forge no reply and no log line."""

import base64

import pytest
from support.hostile import Target

CONTROL = {
    "NUL": b"\0", "escape": b"\x1b[2J\x1b]0;owned\x07", "newline": b"\n", "CR": b"\r", "DEL": b"\x7f", "tab": b"\t",
    "latin-1": b"\xe9", "UTF-8": "\u00e9\u202e\u2028".encode(), "bad UTF-8": b"\xc3\x28\xff\xfe\xed\xa0\x80",
    "fake log": b"\nqueue: 0000000000000000 mta delivery result=\"Ok\"",
}  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [
        b"EHLO a%sb.test",
        b"HELO %s",
        b"MAIL FROM:<a%sb@client.test>",
        b"MAIL FROM:<a@client.test> X=%s",
        b"RCPT TO:<x%sy@example.com>",
        b"NOOP %s",
        b"%s",
        b"AUTH PLAIN %s",
        b"STARTTLS %s",
        b"VRFY %s",
    ],
)
@pytest.mark.parametrize("what", CONTROL)
def test_control_characters_forge_nothing(target: Target, command: bytes, what: str) -> None:
    """A command with such bytes is refused with one clean reply; the log line of it is one, and escaped."""
    with target.wire() as wire:
        if command.startswith(b"RCPT"):
            assert wire.say("MAIL FROM:<a@client.test>").startswith(b"250 ")
        wire.send(command % CONTROL[what] + b"\r\n")
        assert wire.reply().startswith((b"500 ", b"501 ", b"503 ", b"504 "))
        assert wire.say("NOOP") == b"250 2.0.0 Ok", "there was a second reply"


@pytest.mark.parametrize("what", CONTROL)
@pytest.mark.parametrize("mechanism", ["PLAIN", "PLAIN later", "LOGIN"])
def test_control_characters_in_credentials(target: Target, mechanism: str, what: str) -> None:
    """A user name cannot forge a log line or split a request (table program fault of 7.8.0p1)."""
    user = b"ali" + CONTROL[what] + b"ce"
    plain = base64.b64encode(b"\0" + user + b"\0pw").decode()
    with target.submission() as wire:
        if mechanism == "PLAIN":
            answer = wire.say(f"AUTH PLAIN {plain}")
        elif mechanism == "PLAIN later":
            assert wire.say("AUTH PLAIN").startswith(b"334")
            answer = wire.say(plain)
        else:
            assert wire.say("AUTH LOGIN").startswith(b"334")
            answer = wire.say(base64.b64encode(user).decode())
            if answer.startswith(b"334"):
                answer = wire.say(base64.b64encode(b"pw").decode())
        assert answer.startswith((b"501 ", b"535 "))
        wire.say("QUIT")


@pytest.mark.parametrize(
    "response",
    ["=", "*", "!!!!", "A", "AAAA" * 400, base64.b64encode(b"\0" * 900).decode(), base64.b64encode(b"\0a\0").decode(),
     base64.b64encode(b"\0\0b").decode(), base64.b64encode(b"alice").decode(),
     base64.b64encode(b"\0" + b"u" * 256 + b"\0p").decode(),
     base64.b64encode(b"\0alice\0" + b"p" * 1025).decode()],
)  # fmt: skip
def test_auth_blobs(target: Target, response: str) -> None:
    """What is no PLAIN response is 501, once, and the session goes on."""
    with target.submission() as wire:
        assert wire.say(f"AUTH PLAIN {response}").startswith(b"501 ")
        assert wire.say("MAIL FROM:<a@client.test>").startswith(b"530 ")
        wire.say("QUIT")


def test_auth_guessing_is_cut_off(target: Target) -> None:
    """Three wrong passwords end the session, whoever the user is, each logged."""
    for user in (b"alice", b"nobody"):
        plain = base64.b64encode(b"\0" + user + b"\0wrong").decode()
        with target.submission() as wire:
            for _ in range(3):
                assert wire.say(f"AUTH PLAIN {plain}").startswith(b"535 ")
            assert wire.reply().startswith(b"421 ")
            assert wire.closed()
    target.watch.settled()
    failed = [line for line in target.watch.new_log() if "authentication user=" in line]
    assert len(failed) == 6
    assert all("permfail" in line for line in failed)


def test_auth_pipelined_behind_auth(target: Target) -> None:
    """Commands behind AUTH in one segment wait for its answer, and none runs as if it had been good."""
    plain = base64.b64encode(b"\0alice\0wrong").decode()
    with target.submission() as wire:
        wire.send(f"AUTH PLAIN {plain}\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<b@elsewhere.test>\r\n".encode())
        assert wire.reply().startswith(b"535 ")
        assert wire.reply().startswith(b"530 ")
        assert wire.reply().startswith(b"503 ")


@pytest.mark.parametrize("what", ["\\x1b[31m", "null byte", "high"])
def test_bodies_of_any_bytes(target: Target, what: str) -> None:
    """8-bit and control bytes pass in a body; a NUL is refused."""
    body = {"\\x1b[31m": b"\x1b[31m\x07\x08", "null byte": b"a\0b", "high": bytes(range(128, 256))}[what]
    with target.wire() as wire:
        wire.to_data()
        answer = wire.say(b"Subject: x\r\n\r\n" + body + b"\r\n.")
        wire.say("QUIT")
    if what == "null byte":
        assert answer.startswith(b"550 5.6.0 ")
        target.taken(0)
    else:
        assert answer.startswith(b"250 ")
        assert body in target.taken(1)[0]


@pytest.mark.parametrize(
    "header",
    [b"no colon here\r\n", b" leading blank\r\n", b": no name\r\n", b"\xff\xfe\xfd\r\n", b"Received: x\r\n" * 100],
)
def test_bad_headers(target: Target, header: bytes) -> None:
    """What is no header is refused; a hundred Received headers are a loop."""
    with target.wire() as wire:
        wire.to_data()
        assert wire.say(header + b"\r\nbody\r\n.")[:3] in (b"550", b"500")
    target.taken(0)


def test_1000_mime_parts(target: Target) -> None:
    """A message of nested parts is carried, and looked at by nobody."""
    body = b"".join(b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (at, at) for at in range(1000))
    with target.wire() as wire:
        wire.to_data()
        assert wire.say(b"Date: x\r\nMessage-ID: <x@y>\r\nSubject: parts\r\n" + body + b"\r\n.").startswith(b"250 ")
        wire.say("QUIT")
    assert target.taken(1)[0].endswith(body + b"\r\n") or target.taken(1)[0].endswith(body)
