"""Relaying that no rule allows, and addresses that other servers expanded or gave to a shell."""

import base64

import pytest
from support.hostile import Target, Wire

RELAY_FORMS = [
    "user%elsewhere.test@example.com!", "elsewhere.test!user", "user%elsewhere.test", "user%elsewhere.test@mx.test",
    "user%elsewhere.test@[127.0.0.1]", "elsewhere.test!user@mx.test", "elsewhere.test!user@[127.0.0.1]",
    "@example.com:user@elsewhere.test", "@example.com,@mx.test:user@elsewhere.test", '"user@elsewhere.test"',
    '"user@elsewhere.test"@example.com', '"user%elsewhere.test"@mx.test',
    "user@elsewhere.test@example.com@elsewhere.test",
    "user@[192.0.2.1]", "user@[IPv6:2001:db8::1]", "user@[127.0.0.1]", "user@[::1]", "user@localhost", "user@mx.test",
    "user@example.com.", "user@.example.com", "user@example.com.elsewhere.test", "user@xexample.com",
    "user@sub.example.com",
    "SRS0=abcd=XY=elsewhere.test=user@mx.test", "SRS1=abcd=example.com==abcd=XY=elsewhere.test=user@mx.test",
    "prvs=1234abcdef=user@elsewhere.test", "user+tag@elsewhere.test", "user@elsewhere.test ", "<user@elsewhere.test>",
    "user@elsewhere.test>@example.com", "", "@", "postmaster", "user@", "user@127.0.0.1", "user@2130706433",
]  # fmt: skip


@pytest.mark.parametrize("form", RELAY_FORMS)
def test_open_relay(target: Target, form: str) -> None:
    """No rule allows it: refused, and nothing is taken."""
    with target.wire() as wire:
        assert wire.say("MAIL FROM:<a@client.test>").startswith(b"250 ")
        assert wire.say(f"RCPT TO:<{form}>").startswith((b"550 ", b"501 "))
        assert wire.say("DATA").startswith(b"503 ")
    target.taken(0)


@pytest.mark.parametrize(
    "form",
    ["user%elsewhere.test@example.com", "elsewhere.test!user@example.com", "SRS0=a=b=elsewhere.test=user@example.com"],
)
def test_relay_forms_within_our_domain(target: Target, form: str) -> None:
    """A local part of our domain is a name: it is passed on as it is, and never taken apart."""
    with target.wire() as wire:
        wire.to_data(form)
        assert wire.say(b"Subject: x\r\n\r\nx\r\n.").startswith(b"250 ")
        wire.say("QUIT")
    target.taken(1)
    assert target.sink.mails[0].recipients == [form]


def test_submission_relays_only_after_auth(target: Target) -> None:
    """The submission port refuses mail before TLS, before AUTH, and AUTH before TLS."""
    plain = base64.b64encode(b"\0alice\0correct horse").decode()
    with Wire(("127.0.0.1", target.daemon.port2)) as wire:
        wire.hello()
        assert wire.say(f"AUTH PLAIN {plain}").startswith(b"503 ")
        assert wire.say("MAIL FROM:<a@client.test>").startswith(b"530 ")
        wire.tls()
        assert wire.say(f"AUTH PLAIN {plain}").startswith(b"503 "), "before EHLO"
        assert wire.say("EHLO client.test").startswith(b"250 ")
        assert wire.say("MAIL FROM:<a@client.test>").startswith(b"530 ")
        assert wire.say(f"AUTH PLAIN {plain}").startswith(b"235 ")
        assert wire.say(f"AUTH PLAIN {plain}").startswith(b"503 ")
        assert wire.say("MAIL FROM:<a@client.test>").startswith(b"250 ")
        assert wire.say("RCPT TO:<b@elsewhere.test>").startswith(b"250 ")
        wire.say("QUIT")


SHELL = [
    "`id`",
    "$(id)",
    "$HOME",
    "a|b",
    "a&b",
    "${run{x}}",
    "%{sender:raw}",
    "{a,b}",
    "*",
    "?",
    "~root",
    "-oQ/tmp",
    "|id",
    "/etc/passwd",
    "#",
    "'a'",
    "!",
    "^a^b",
]
SHELL_INVALID = {"$(id)", "%{sender:raw}", "{a,b}"}


@pytest.mark.parametrize("place", ["sender", "recipient"])
@pytest.mark.parametrize("text", SHELL)
def test_shell_characters_cve_2020_7247_cve_2019_10149(target: Target, text: str, place: str) -> None:
    """A valid address with such characters arrives unchanged; others are refused. None runs or is expanded."""
    with target.wire() as wire:
        sender, recipient = "a@client.test", "b@example.com"
        if place == "sender":
            sender = f"{text}@client.test"
        else:
            recipient = f"{text}@example.com"
        first = wire.say(f"MAIL FROM:<{sender}>")
        if text in SHELL_INVALID and place == "sender":
            assert first.startswith(b"553 ")
            return
        second = wire.say(f"RCPT TO:<{recipient}>")
        if text in SHELL_INVALID:
            assert second.startswith(b"501 ")
            return
        assert second.startswith(b"250 ")
        assert wire.say("DATA").startswith(b"354 ")
        assert wire.say(b"Subject: x\r\n\r\nx\r\n.").startswith(b"250 ")
        wire.say("QUIT")
    target.taken(1)
    assert (target.sink.mails[0].sender, target.sink.mails[0].recipients) == (sender, [recipient])


def test_sender_of_cve_2020_7247(target: Target) -> None:
    """The address of the bulletin: shell syntax, no domain."""
    with target.wire() as wire:
        assert wire.say("MAIL FROM:<;for i in 0 1 2;do read r;done;sh;exit 0;>").startswith(b"553 ")
        assert wire.say("MAIL FROM:<;sleep 66;>").startswith(b"553 ")
        assert wire.say("MAIL FROM:<;id;@>").startswith(b"553 ")
