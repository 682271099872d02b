"""Hostile servers: whatever a remote server says, the mail is delivered once, kept, or comes back once.

CVE-2020-8794 (OpenSMTPD): a multi-line reply put lines into the envelope's file.
"""

import os
import re
import socket
import threading
import time
from pathlib import Path

import pytest
from hostile_servers import Line, Outgoing, Script, Server, misbehaving
from support.daemon import wait_until

NO_REPLY = {
    "rubbish": (os.urandom(3000).replace(b"\n", b"x") + b"\r\n", "close"),
    "text": (b"hello, I am no mail server\r\n", "close"),
    "HTTP": (b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "close"),
    "NULs": (b"\0" * 5000 + b"\r\n", "close"),
    "TLS": (b"\x16\x03\x03\x00\x7a\x02\x00\x00\x76" + bytes(118) + b"\r\n", "close"),
    "100,000 lines": (b"".join([b"250-and so on\r\n"] * 100_000) + b"250 end\r\n", "close"),
    "100,000 lines of 553": (b"553-no\r\n" * 100_000 + b"553 no\r\n", "close"),
    "a line of a MiB": (b"250 " + b"x" * (1 << 20), "close"),
    "a line for ever": (b"250" + b"x" * 65_536, "for ever"),
    "lines for ever": (b"250-x\r\n" * 1000, "for ever"),
    "two codes": (b"250-one\r\n550 two\r\n", "close"),
    "code 000": (b"000 nothing\r\n", "close"),
    "code 199": (b"199 nothing\r\n", "close"),
    "code 600": (b"600 nothing\r\n", "close"),
    "code 25": (b"25\r\n", "close"),
    "code 2500": (b"2500 x\r\n", "close"),
    "a negative code": (b"-50 x\r\n", "close"),
    "a code in other digits": ("\u0662\u0665\u0660 x\r\n".encode(), "close"),
    "an empty line": (b"\r\n", "close"),
    "half a reply": (b"250-one\r\n", "close"),
    "half a line": (b"25", "close"),
    "nothing": (b"", "close"),
    "a reset": (b"", "reset"),
}


@pytest.mark.parametrize("stage", ["banner", "hello", "mail", "rcpt", "data", "end"])
@pytest.mark.parametrize("what", NO_REPLY)
def test_what_is_no_reply(outgoing: Outgoing, what: str, stage: str) -> None:
    """The mail waits in the queue, with one printable line about it; nothing grows."""
    payload, then = NO_REPLY[what]
    with outgoing.world.server(misbehaving(stage, payload, then)) as (domain, _server):
        outgoing.submit(f"b@{domain}")
        (row,) = outgoing.kept()
    assert row.error
    assert row.error.isprintable()
    assert len(row.error) <= 1100
    assert outgoing.sink.mails == []


@pytest.mark.parametrize("stage", ["banner", "hello"])
@pytest.mark.parametrize("code", [b"554 5.7.1 go away\r\n", b"421 4.3.2 later\r\n", b"451 x\r\n", b"354 what?\r\n"])
def test_refusals_before_mail_are_no_bounce(outgoing: Outgoing, stage: str, code: bytes) -> None:
    """A server that wants to talk to nobody says nothing about this message."""
    with outgoing.world.server(misbehaving(stage, code, "go on")) as (domain, _server):
        outgoing.submit(f"b@{domain}")
        outgoing.kept()
    assert outgoing.sink.mails == []


WRONG_REPLIES = [("mail", b"354 go\r\n"), ("rcpt", b"354 go\r\n"), ("data", b"250 ok\r\n"), ("end", b"354 go\r\n")]
TIRED = [(stage, b"421 bye\r\n") for stage in ("mail", "rcpt", "data", "end")]


@pytest.mark.parametrize(("stage", "reply"), [*WRONG_REPLIES, *TIRED])
def test_replies_of_another_command(outgoing: Outgoing, stage: str, reply: bytes) -> None:
    """A good reply at the wrong place is none: the mail waits."""
    with outgoing.world.server(misbehaving(stage, reply, "go on")) as (domain, _server):
        outgoing.submit(f"b@{domain}")
        outgoing.kept()
    assert outgoing.sink.mails == []


@pytest.mark.parametrize("stage", ["banner", "hello", "mail", "rcpt"])
def test_replies_before_their_commands(outgoing: Outgoing, stage: str) -> None:
    """Fifty replies at once do not make a message delivered that the server has not seen."""
    with outgoing.world.server(misbehaving(stage, b"250 2.0.0 ok\r\n" * 50, "close")) as (domain, _server):
        outgoing.submit(f"b@{domain}")
        outgoing.kept()


REFUSALS_CVE_2020_8794 = {
    "no blank": b"553\r\n",
    "no text": b"553-\r\n553\r\n",
    "lines of an envelope": b"553-\r\n553-version: 3\r\n553-type: mda\r\n553-mda-exec: id\r\n553 dispatcher: x\r\n",
    "escape sequences": b"550 5.1.1 \x1b[2J\x1b]0;owned\x07 no\r\n",
    "bare CR": b"550 5.1.1 no\rReceived: forged\r\n",
    "NUL": b"550 5.1.1 n\0o\r\n",
    "bad UTF-8": b"550 5.1.1 \xff\xfe\xed\xa0\x80 no\r\n",
    "UTF-8": "550 5.1.1 \u202egnp.exe\u2028 \u00e9\r\n".encode(),
    "headers": b"550-5.1.1 no\r\n550-5.1.1 Subject: forged\r\n550-5.1.1\r\n550 5.1.1 --boundary--\r\n",
    "long": b"550 5.1.1 " + b"n" * 4000 + b"\r\n",
    "many lines": b"550-5.1.1 no\r\n" * 100 + b"550 5.1.1 no\r\n",
    "bare LF": b"550-5.1.1 no\n550 5.1.1 no\n",
    "format characters": b"550 5.1.1 %s%n%{sender:raw} $(id) `id` {0}\r\n",
}  # fmt: skip


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "end"])
def test_refusals_come_back_clean_cve_2020_8794(outgoing: Outgoing, stage: str) -> None:
    """Permanent refusals of every form make one bounce: printable, folded, as many fields as it should have."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        domains = [
            stack.enter_context(outgoing.world.server(misbehaving(stage, payload, "go on")))[0]
            for payload in REFUSALS_CVE_2020_8794.values()
        ]
        outgoing.submit(*(f"b@{domain}" for domain in domains))
        report = outgoing.bounce()
    status = report.get_payload(1)
    groups = [dict(part.items()) for part in status.get_payload()][1:]  # type: ignore[union-attr]
    assert sorted(group["Final-Recipient"] for group in groups) == sorted(f"rfc822; b@{domain}" for domain in domains)
    names = {"Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code", "Last-Attempt-Date"}
    assert all(set(group) <= names for group in groups)
    assert all(re.fullmatch(r"5\.\d+\.\d+", group["Status"]) for group in groups)
    assert "Subject: forged" not in report.as_string().split("\n")


def test_no_bounce_to_the_null_sender(outgoing: Outgoing) -> None:
    """Refused mail of the null sender is gone, and nobody hears of it."""
    with outgoing.world.server(misbehaving("rcpt", b"550 no\r\n", "go on")) as (domain, server):
        outgoing.submit(f"b@{domain}", sender="")
        wait_until("it was tried", lambda: server.connections > 0)
        wait_until("the queue is empty", lambda: outgoing.watch.queued() == 0)
        time.sleep(1.2)  # how long bounces are collected
    assert outgoing.sink.mails == []


def test_no_bounce_of_a_bounce(outgoing: Outgoing) -> None:
    """A forged sender whose server refuses the bounce ends it: one bounce is tried, and no other follows."""
    with outgoing.world.server(misbehaving("rcpt", b"550 no\r\n", "go on")) as (domain, server):
        outgoing.submit(f"b@{domain}", sender=f"forged@{domain}")
        wait_until("both were tried", lambda: server.connections >= 2 or outgoing.watch.queued() == 0)
        wait_until("the queue is empty", lambda: outgoing.watch.queued() == 0)
        time.sleep(1.2)
        assert outgoing.watch.queued() == 0
        assert server.connections <= 3
    assert outgoing.sink.mails == []


def test_a_server_that_never_answers(outgoing: Outgoing) -> None:
    """It holds up its own mail, and no other; removing the mail ends it."""
    over = threading.Event()

    def script(_line: Line) -> None:
        over.wait(100)

    with outgoing.world.server(script) as (domain, server):
        outgoing.submit(f"b@{domain}")
        wait_until("it was tried", lambda: server.connections > 0)
        outgoing.submit("someone@client.test")
        wait_until("other mail passes", lambda: len(outgoing.sink.mails) == 1)
        over.set()
        server.close()
        outgoing.kept()


def test_a_server_that_reads_slowly(outgoing: Outgoing) -> None:
    """A body it does not take is not kept in memory a second time."""
    before = outgoing.watch.rss_bytes("delivery")

    def script(line: Line) -> None:
        line.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        line.send(b"220 x\r\n")
        for reply in (b"250 x\r\n", b"250 ok\r\n", b"250 ok\r\n", b"354 go\r\n"):
            line.command()
            line.send(reply)
        time.sleep(1.5)

    with outgoing.world.server(script) as (domain, server):
        outgoing.submit(f"b@{domain}", body=b"Subject: x\r\n\r\n" + (b"y" * 998 + b"\r\n") * 20_000)
        wait_until("it was tried", lambda: server.connections > 0)
        time.sleep(0.5)
        assert outgoing.watch.rss_bytes("delivery") - before < 16 << 20
        outgoing.kept()


# STARTTLS of the other side.

TLS = b"250-STARTTLS\r\n250 8BITMIME\r\n"


def starttls(after_220: bytes, then: str = "close", plain: bool = False) -> Script:
    """A server that says `after_220` instead of a handshake, or behind the 220; later connections are plain."""
    first: list[int] = []

    def script(line: Line) -> None:
        if first and plain:
            misbehaving("never", b"")(line)
            return
        first.append(1)
        line.send(b"220 x\r\n")
        line.command()
        line.send(b"250-x\r\n" + TLS)
        assert line.command() == b"STARTTLS\r\n"
        if then == "behind":
            line.send(b"220 go\r\n" + after_220)
            time.sleep(0.2)
            return
        line.send(b"220 go\r\n")
        line.sock.recv(10)
        line.send(after_220)

    return script


@pytest.mark.parametrize("injected", [b"250 ok\r\n", b"250-x\r\n250 AUTH PLAIN\r\n" * 3, b"\x16\x03\x03"])
def test_starttls_injection_by_a_server(outgoing: Outgoing, injected: bytes) -> None:
    """Replies behind the 220 in the same segment end the session; the mail waits (CVE-2021-38371's kin)."""
    with outgoing.world.server(starttls(injected, "behind")) as (domain, _server):
        outgoing.submit(f"b@{domain}")
        outgoing.kept()


@pytest.mark.parametrize("rubbish", [b"", b"hello\r\n", bytes(5000), b"\x15\x03\x03\x00\x02\x02\x28"])
def test_a_broken_handshake_goes_on_in_plain_text(outgoing: Outgoing, rubbish: bytes) -> None:
    """TLS is opportunistic here: the next connection does without, and the mail arrives once."""
    with outgoing.world.server(starttls(rubbish, plain=True)) as (domain, server):
        outgoing.submit(f"b@{domain}")
        wait_until("the queue is empty", lambda: outgoing.watch.queued() == 0)
        assert server.connections == 2


# LMTP.


def lmtp(after_dot: bytes, then: str = "close") -> Script:
    """An LMTP server with this answer to a message."""

    def script(line: Line) -> None:
        line.send(b"220 x LMTP\r\n")
        while True:
            verb = line.command()[:4].upper()
            if verb == b"LHLO":
                line.send(b"250-x\r\n250 PIPELINING\r\n")
            elif verb == b"DATA":
                line.send(b"354 go\r\n")
                line.message()
                line.send(after_dot)
                if then == "close":
                    return
            else:
                line.send(b"250 ok\r\n")

    return script


@pytest.mark.parametrize("then", ["close", "go on"])
@pytest.mark.parametrize(
    ("answer", "taken"),
    [
        (b"", False),
        (b"250 ok\r\n", True),
        (b"250 ok\r\n" * 50, True),
        (b"250 ok\r\nrubbish\r\n", True),
        (b"451 later\r\n" * 50, False),
        (b"354 go\r\n", False),
        (b"rubbish\r\n", False),
        (b"250-" + b"x" * 5000, False),
    ],
)
def test_lmtp_replies_too_few_or_too_many(outgoing: Outgoing, answer: bytes, taken: bool, then: str) -> None:
    """Each recipient has the answer that was for it; those without one wait, and only those."""
    Path(outgoing.lmtp).unlink(missing_ok=True)
    server = Server(outgoing.lmtp, lmtp(answer, then))
    Path(outgoing.lmtp).chmod(0o666)
    names = {"one@lmtp.test", "two@lmtp.test", "three@lmtp.test"}
    try:
        outgoing.submit(*names)
        wait_until("it was tried", lambda: server.connections > 0)
        if not answer and then == "go on":
            time.sleep(0.1)
            server.close()  # it would be waited for until the timeout
        if not taken:
            assert {row.rcpt for row in outgoing.kept()} == names

        def done() -> bool:
            outgoing.watch.schedule_all()  # one that met a closing connection would wait for ten seconds
            return outgoing.watch.queued() == 0

        wait_until("the queue is empty", done)
    finally:
        server.close()
    assert outgoing.sink.mails == []


def test_lmtp_socket_that_is_gone(outgoing: Outgoing) -> None:
    """No socket, or nobody behind it: the mail waits."""
    Path(outgoing.lmtp).unlink(missing_ok=True)
    outgoing.submit("one@lmtp.test")
    assert "No such file" in outgoing.kept()[0].error
