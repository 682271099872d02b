"""What clients ask of SMTP's extensions, through the real daemon to the next server: DSN, SMTPUTF8, CHUNKING."""

import contextlib
import email
from collections.abc import Iterator
from email.message import Message

import pytest
from support.daemon import Daemon, running, wait_until
from support.hostile import Wire
from support.sink import Behaviour, Sink, sinking

pytestmark = pytest.mark.timeout(60)

CONFIG = """
bounce warn-interval 1s
listen on 127.0.0.1 port {port} hostname mx.test
action back relay host "smtp+notls://127.0.0.1:BACK"
action out relay host "smtp+notls://127.0.0.1:SINK"
match from any for domain "client.test" action back
match from any for any action out
"""
PLAIN = ("PIPELINING", "8BITMIME", "SIZE 36700160")
REFUSALS = {"gone@x.test": "550 5.1.1 no such user", "later@x.test": "451 4.2.0 not now"}


class Route:
    """A daemon, the server it relays to, and the one where senders get their notices."""

    def __init__(self, daemon: Daemon, sink: Sink, back: Sink) -> None:
        self.daemon, self.sink, self.back = daemon, sink, back

    def notices(self, count: int) -> list[Message]:
        """The notices that came, once there are so many."""
        wait_until(f"{count} notices", lambda: len(self.back.mails) >= count)
        assert [mail.sender for mail in self.back.mails] == [""] * count
        return [email.message_from_bytes(mail.data) for mail in self.back.mails]


@contextlib.contextmanager
def route(*extensions: str) -> Iterator[Route]:
    """The next server offers these extensions."""
    offered = Behaviour(rcpt=REFUSALS, extensions=(*PLAIN, *extensions))
    told = Behaviour(extensions=(*PLAIN, "SMTPUTF8"))
    with sinking(behaviour=offered) as sink, sinking(behaviour=told) as back:
        config = CONFIG.replace("BACK", str(back.port)).replace("SINK", str(sink.port))
        with running(config) as daemon:
            yield Route(daemon, sink, back)


def send(daemon: Daemon, mail: str, *recipients: str, body: str = "Subject: x\r\n\r\nthe body\r\n") -> None:
    """One message, its commands as they are."""
    with Wire(("127.0.0.1", daemon.port)) as wire:
        wire.hello()
        for command in (mail, *recipients):
            assert wire.say(command.encode()).startswith(b"250 "), command
        assert wire.say("DATA").startswith(b"354 ")
        wire.send(body.encode())
        assert wire.say(".").startswith(b"250 ")
        assert wire.say("QUIT").startswith(b"221 ")


def status_of(notice: Message) -> str:
    """The machine's part of a notice, as text."""
    assert notice.get_content_type() == "multipart/report"
    (part,) = [part for part in notice.walk() if part.get_content_type() == "message/delivery-status"]
    return part.as_string()


def test_parameters_reach_a_server_that_has_dsn() -> None:
    """RET, ENVID, NOTIFY and ORCPT as they came; who passes them on says nothing itself."""
    with route("DSN") as way:
        send(
            way.daemon,
            "MAIL FROM:<a@client.test> RET=HDRS ENVID=QQ+2B1",
            "RCPT TO:<b@x.test> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;first+40a.test@x.test",
            "RCPT TO:<c@x.test> NOTIFY=NEVER",
            "RCPT TO:<d@x.test>",
        )
        way.daemon.wait_empty()
        mail, *recipients = way.sink.commands
        assert mail.startswith("MAIL FROM:<a@client.test>")
        assert {"RET=HDRS", "ENVID=QQ+2B1"} <= set(mail.split())
        asked = {words[1]: set(words[2:]) for words in map(str.split, sorted(recipients))}
        assert asked["TO:<b@x.test>"] == {"NOTIFY=SUCCESS,DELAY", "ORCPT=rfc822;first+40a.test@x.test"}
        assert "NOTIFY=NEVER" in asked["TO:<c@x.test>"]
        assert not any(word.startswith("NOTIFY") for word in asked["TO:<d@x.test>"])
        assert way.back.mails == []


def test_notices_where_the_next_server_has_no_dsn() -> None:
    """SUCCESS is answered `relayed`, a refusal `failed` with the header alone for RET=HDRS, and NEVER not at all."""
    with route() as way:
        send(
            way.daemon, "MAIL FROM:<a@client.test> ENVID=one", "RCPT TO:<b@x.test> NOTIFY=SUCCESS ORCPT=rfc822;o@x.test"
        )
        (relayed,) = way.notices(1)
        assert "Action: relayed" in status_of(relayed)
        assert "Original-Envelope-Id: one" in status_of(relayed)
        assert "Original-Recipient: rfc822;o@x.test" in status_of(relayed)
        assert all("=" not in command for command in way.sink.commands if command.startswith("RCPT"))
        send(way.daemon, "MAIL FROM:<a@client.test> RET=HDRS", "RCPT TO:<gone@x.test>")
        failed = way.notices(2)[1]
        assert "Action: failed" in status_of(failed) and "Status: 5.1.1" in status_of(failed)
        assert "the body" not in failed.as_string()
        send(way.daemon, "MAIL FROM:<a@client.test> RET=FULL", "RCPT TO:<gone@x.test>")
        assert "the body" in way.notices(3)[2].as_string()
        send(way.daemon, "MAIL FROM:<a@client.test>", "RCPT TO:<gone@x.test> NOTIFY=NEVER")
        send(way.daemon, "MAIL FROM:<>", "RCPT TO:<gone@x.test> NOTIFY=FAILURE")
        way.daemon.wait_empty()
        assert len(way.back.mails) == 3
        send(way.daemon, "MAIL FROM:<a@client.test>", "RCPT TO:<gone@x.test> NOTIFY=SUCCESS")  # as OpenSMTPD does
        assert "Action: failed" in status_of(way.notices(4)[3])


def test_a_delay_is_told_to_whom_it_concerns() -> None:
    """With DELAY or without NOTIFY; not with FAILURE alone."""
    with route() as way:
        send(way.daemon, "MAIL FROM:<a@client.test> ENVID=no", "RCPT TO:<later@x.test> NOTIFY=FAILURE")
        send(way.daemon, "MAIL FROM:<a@client.test> ENVID=yes", "RCPT TO:<later@x.test> NOTIFY=DELAY")
        wait_until("both were tried", lambda: sum("later@x.test" in command for command in way.sink.commands) >= 2)

        def told() -> bool:
            way.daemon.ctl("schedule", "all")
            return bool(way.back.mails)

        wait_until("the delay is told", told)
        (delayed,) = way.notices(1)
        assert "Action: delayed" in status_of(delayed) and "Original-Envelope-Id: yes" in status_of(delayed)
        way.daemon.ctl("remove", "all")
        way.daemon.wait_empty()


def test_addresses_in_utf_8_reach_a_server_that_takes_them() -> None:
    """Sender, recipient and header as they came, under SMTPUTF8 again."""
    with route("SMTPUTF8") as way:
        body = "Subject: grüße\r\n\r\nü\r\n"
        send(way.daemon, "MAIL FROM:<jürgen@client.test> SMTPUTF8 BODY=8BITMIME", "RCPT TO:<rémi@x.test>", body=body)
        way.daemon.wait_empty()
        (mail,) = way.sink.mails
        assert (mail.sender, mail.recipients) == ("jürgen@client.test", ["rémi@x.test"])
        assert "\r\nSubject: grüße\r\n".encode() in mail.data
        assert b"with UTF8SMTP id" in mail.data
        assert "SMTPUTF8" in way.sink.commands[0].split()


def test_addresses_in_utf_8_bounce_where_they_are_not_taken() -> None:
    """Nothing is passed on in another form; the sender is told, in UTF-8 since that is the sender's address."""
    with route() as way:
        send(way.daemon, "MAIL FROM:<jürgen@client.test> SMTPUTF8", "RCPT TO:<rémi@x.test>")
        (notice,) = way.notices(1)
        assert way.sink.mails == []
        assert "Status: 5.6.7" in status_of(notice)
        assert way.back.mails[0].recipients == ["jürgen@client.test"]


@pytest.mark.parametrize("lines", [1, 9000])
def test_chunks_become_one_message(lines: int) -> None:
    """BDAT in, small and through a spool file, DATA out: the same bytes, dots and all."""
    body = b"Subject: chunks\r\nDate: x\r\nMessage-ID: <x@y>\r\n\r\n" + b".\r\n..dots\r\n" * lines
    with route() as way:
        with Wire(("127.0.0.1", way.daemon.port)) as wire:
            wire.hello()
            wire.send(b"MAIL FROM:<a@client.test>\r\nRCPT TO:<b@x.test>\r\n")
            assert wire.reply().startswith(b"250 ") and wire.reply().startswith(b"250 ")
            third = len(body) // 3
            for piece in (body[:third], body[third : 2 * third]):
                wire.send(b"BDAT %d\r\n" % len(piece) + piece)
                assert wire.reply() == b"250 2.0.0 %d bytes taken" % len(piece)
            last = body[2 * third :]
            wire.send(b"BDAT %d LAST\r\n" % len(last) + last)
            assert wire.reply().endswith(b"Message accepted for delivery")
        way.daemon.wait_empty()
        (mail,) = way.sink.mails
        assert mail.data.endswith(b"\r\n" + body)
