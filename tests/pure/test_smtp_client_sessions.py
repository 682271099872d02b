"""The SMTP client machine's sessions: how they are set up, and how they end."""

from base64 import b64encode

import pytest
from client_dialogue import PLAIN, TEMP, answers, greeted, mail, say

from smtpd_ps.pure.smtp_client import SmtpClient
from smtpd_ps.pure.smtp_client_events import ClientOptions, Ready, Refused, Stage, StartTls


@pytest.mark.parametrize("reply", [b"554 no", b"421 busy", b"450 later", b"250 what"])
def test_a_banner_other_than_220_is_of_no_use(reply):
    """The session is refused with the server's words; nothing is sent."""
    machine = SmtpClient(PLAIN)
    assert say(machine, reply) == [Refused(Stage.BANNER, reply.decode())]
    assert machine.take_output() == b""


def test_helo_follows_a_refused_ehlo():
    """RFC 5321 3.2: a server that does not know EHLO is asked with HELO."""
    machine = SmtpClient(PLAIN)
    say(machine, b"220 old")
    machine.take_output()
    assert say(machine, b"502 what") == []
    assert machine.take_output() == b"HELO me.test\r\n"
    assert say(machine, b"250 hello") == [Ready()]


@pytest.mark.parametrize(
    ("options", "reply"),
    [
        (PLAIN, b"450 later"),
        (ClientOptions("me.test", lmtp=True), b"500 no LHLO"),
        (ClientOptions("me.test", tls="require"), b"500 no EHLO, so no TLS"),
    ],
)
def test_a_refused_hello_ends_the_session(options, reply):
    """4xx, LHLO, or TLS that must be: no HELO instead."""
    machine = SmtpClient(options)
    say(machine, b"220 x")
    machine.take_output()
    assert say(machine, reply) == [Refused(Stage.HELO, reply.decode())]
    assert machine.take_output() == b"QUIT\r\n"


def test_keywords_are_taken_in_any_case():
    """RFC 5321 2.4."""
    machine = greeted(PLAIN, b"pipelining", b"Size 1000", b"8bitmime", b"dsn", b"aUTH=plain", b"auth LOGIN")
    offers = machine.offers
    assert (offers.pipelining, offers.max_size_bytes, offers.eight_bit, offers.dsn) == (True, 1000, True, True)
    assert offers.auth == {"PLAIN", "LOGIN"}


def test_starttls_then_ehlo_again():
    """What was offered in plain text is forgotten."""
    machine = greeted(ClientOptions("me.test", tls="opportunistic"), b"PIPELINING", b"STARTTLS")
    assert machine.take_output() == b"STARTTLS\r\n"
    assert say(machine, b"220 go") == [StartTls()]
    machine.tls_started()
    assert machine.take_output() == b"EHLO me.test\r\n"
    assert say(machine, b"250-them", b"250 STARTTLS") == [Ready()]
    assert not machine.offers.pipelining


@pytest.mark.parametrize("tls", ["opportunistic", "require"])
def test_text_after_the_220_of_starttls_is_an_injection(tls):
    """CVE-2011-0411: bytes that came with the 220 end the session, in one segment or half a line."""
    for extra in (b"250 evil\r\n", b"2"):
        machine = greeted(ClientOptions("me.test", tls=tls), b"STARTTLS")
        events = machine.receive(b"220 go\r\n" + extra)
        assert [type(event) for event in events] == [Refused]
        assert events[0].stage is Stage.TLS


def test_starttls_refused():
    """Optional: on in plain text. Required: the end."""
    machine = greeted(ClientOptions("me.test", tls="opportunistic"), b"STARTTLS")
    assert say(machine, b"454 not now") == [Ready()]
    machine = greeted(ClientOptions("me.test", tls="require"), b"STARTTLS")
    assert say(machine, b"454 not now") == [Refused(Stage.TLS, "454 not now")]


def test_required_tls_that_is_not_offered():
    """No mail in plain text."""
    machine = SmtpClient(ClientOptions("me.test", tls="require-verify"))
    say(machine, b"220 x")
    (refused,) = say(machine, b"250 them")
    assert refused == Refused(Stage.TLS, "TLS required but not supported by remote host")


def auth(*offers: bytes) -> tuple[SmtpClient, list]:
    machine = SmtpClient(ClientOptions("me.test", tls="implicit", user="u", password="pä"))
    say(machine, b"220 x")
    machine.take_output()
    return machine, say(machine, b"250-them", b"250 " + b" ".join(offers))


def test_auth_plain():
    """RFC 4616, in one line; also where PLAIN is not the first mechanism."""
    machine, _ = auth(b"AUTH", b"LOGIN", b"PLAIN")
    assert machine.take_output() == b"AUTH PLAIN " + b64encode("\0u\0pä".encode()) + b"\r\n"
    assert say(machine, b"235 welcome") == [Ready()]


def test_auth_login():
    """User and password are each answers to a 334."""
    machine, _ = auth(b"AUTH", b"LOGIN")
    assert machine.take_output() == b"AUTH LOGIN\r\n"
    for want in ("u", "pä"):
        say(machine, b"334 VXNlcg==")
        assert machine.take_output() == b64encode(want.encode()) + b"\r\n"
    assert say(machine, b"235 welcome") == [Ready()]


def test_auth_that_fails_or_is_not_offered():
    """A wrong password, no mechanism, or no TLS: an error of the route at once."""
    machine, _ = auth(b"AUTH", b"PLAIN")
    assert say(machine, b"535 wrong") == [Refused(Stage.AUTH, "535 wrong")]
    assert auth(b"SIZE")[1][0].stage is Stage.AUTH
    machine = SmtpClient(ClientOptions("me.test", tls="opportunistic", user="u", password="p"))
    say(machine, b"220 x")
    (refused,) = say(machine, b"250-them", b"250 AUTH PLAIN")
    assert refused.stage is Stage.AUTH
    assert b"AUTH" not in machine.take_output()


def test_421_of_a_fresh_connection_is_the_answer():
    """RFC 5321 3.8: the message waits; the next MX is not tried."""
    machine = greeted(PLAIN, b"PIPELINING")
    machine.send(mail())
    events = say(machine, b"421 4.3.2 shutting down")
    assert answers(events) == [(TEMP, "421 4.3.2 shutting down")]
    assert events[-1] == Refused(Stage.SESSION, "421 4.3.2 shutting down")


def test_421_of_a_kept_connection_decides_nothing():
    """It grew tired before it saw our MAIL: the message may go over another connection at once."""
    machine = greeted(PLAIN, b"PIPELINING")
    machine.send(mail())
    say(machine, b"250 ok", b"250 ok", b"354 go", b"250 ok")
    machine.send(mail())
    assert answers(say(machine, b"421 4.4.2 idle")) == [None]


def test_421_while_idle():
    """The session is over, no message is concerned."""
    machine = greeted()
    assert say(machine, b"421 bye") == [Refused(Stage.SESSION, "421 bye")]


@pytest.mark.parametrize(("replies", "expected"), [(0, None), (2, None), (3, (TEMP, "gone"))])
def test_a_lost_connection(replies, expected):
    """Before the final dot nothing is decided; after it the message must not be sent twice at once."""
    machine = greeted(PLAIN, b"PIPELINING")
    machine.send(mail())
    say(machine, *[b"250 ok", b"250 ok", b"354 go"][:replies])
    assert answers(machine.lost("gone")) == [expected]


def test_a_lost_connection_frees_the_message_behind():
    """The one after the dot is undecided, the one before it is temporary."""
    machine = greeted(PLAIN, b"PIPELINING")
    machine.send(mail())
    say(machine, b"250 ok", b"250 ok", b"354 go", b"250 ok")
    machine.send(mail())
    machine.send(mail())
    say(machine, b"250 ok", b"250 ok", b"354 go")
    events = machine.lost("gone")
    assert [event.answers for event in events] == [[(TEMP, "gone")], [None]]


def test_rubbish_ends_the_session():
    """What is no reply cannot be followed."""
    machine = greeted(PLAIN, b"PIPELINING")
    machine.send(mail())
    events = say(machine, b"HTTP/1.1 400 Bad Request")
    assert answers(events) == [None]
    assert machine.dead
