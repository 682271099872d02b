"""Smuggling against the real daemon: only CRLF.CRLF ends a message, in and out.

CVE-2023-51764 (Postfix), -51765 (Sendmail), -51766 (Exim), CVE-2024-27305 (aiosmtpd).
"""

import time

import pytest
from support.hostile import END, Target

SMUGGLED = b"MAIL FROM:<forged@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\nSubject: smuggled\r\n\r\nx"
FALSE_ENDS = {
    "LF.LF": b"\n.\n",
    "LF.CRLF": b"\n.\r\n",
    "CRLF.LF": b"\r\n.\n",
    "CR.CR": b"\r.\r",
    "CR.CRLF": b"\r.\r\n",
    "CRLF.CR": b"\r\n.\r",
    "CRCRLF.CRCRLF": b"\r\r\n.\r\r\n",
    "CRLF.CRCRLF": b"\r\n.\r\r\n",
    "CRLF.NUL.CRLF": b"\r\n.\0\r\n",
    "CRLF.NULCRLF": b"\r\n\0.\r\n",
    "NUL.CRLF": b"\0.\r\n",
    "LF.NUL.LF": b"\n\0.\n",
    "CRLF.SPACECRLF": b"\r\n. \r\n",
}
REFUSED_ENDS = {name for name in FALSE_ENDS if name != "CRLF.SPACECRLF"}


@pytest.mark.parametrize("pieces", ["at once", "in segments", "a byte at a time", "TLS records"])
@pytest.mark.parametrize("form", FALSE_ENDS)
def test_smuggling_cve_2023_51764(target: Target, form: str, pieces: str) -> None:
    """Only CRLF.CRLF ends a message: each form is refused once, or taken whole as one message."""
    head = b"Subject: one\r\n\r\nbody"
    attack = [head, FALSE_ENDS[form], SMUGGLED, END]
    if pieces == "at once":
        attack = [b"".join(attack)]
    elif pieces == "a byte at a time":
        attack = [bytes([byte]) for byte in head[-2:] + FALSE_ENDS[form] + b"MA"]
        attack = [head[:-2], *attack, SMUGGLED[2:], END]
    with target.wire() as wire:
        if pieces == "TLS records":
            wire.tls()
            assert wire.say("EHLO client.test").startswith(b"250 ")
        wire.to_data()
        for piece in attack:
            wire.send(piece)
            if pieces in ("in segments", "TLS records"):
                time.sleep(0.005)
        answer = wire.reply()
        assert wire.say("NOOP") == b"250 2.0.0 Ok", "there was a second reply"
        wire.say("QUIT")
    if form in REFUSED_ENDS:
        assert answer.startswith((b"550 5.6.11 ", b"550 5.6.0 "))
        target.taken(0)
    else:
        assert answer.startswith(b"250 ")
        (data,) = target.taken(1)
        assert b"Subject: smuggled" in data


@pytest.mark.parametrize("split", range(1, 5))
def test_the_true_end_in_two_segments(target: Target, split: int) -> None:
    """CRLF.CRLF ends the message wherever TCP cuts it, and what follows is the next command."""
    with target.wire() as wire:
        wire.to_data()
        wire.send(b"Subject: split\r\n\r\n..dot" + END[:split])
        time.sleep(0.01)
        wire.send(END[split:] + b"NOOP\r\n")
        assert wire.reply().startswith(b"250 2.0.0 ")
        assert wire.reply() == b"250 2.0.0 Ok"
        wire.say("QUIT")
    (data,) = target.taken(1)
    assert data.endswith(b"\r\n\r\n.dot\r\n") or data.endswith(b"\r\n\r\n..dot\r\n")


def test_nothing_is_smuggled_out(target: Target) -> None:
    """Lines of dots, command words and almost-ends arrive as they were sent, in one message."""
    body = b"Date: x\r\nMessage-ID: <x@y>\r\n\r\n.\x20\r\n..\r\n.MAIL FROM:<x@x.test>\r\n...\r\nDATA\r\n. .\r\nQUIT\r\n"
    stuffed = body.replace(b"\r\n.", b"\r\n..")
    with target.wire() as wire:
        wire.to_data()
        assert wire.say(stuffed + b".").startswith(b"250 ")
        wire.say("QUIT")
    (data,) = target.taken(1)
    assert data.endswith(body)
