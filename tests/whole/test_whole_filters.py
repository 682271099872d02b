"""Filters in the real daemon: builtin ones."""

import smtplib

from support.daemon import Daemon, running, wait_until
from support.sink import sinking

MESSAGE = "From: a@client.test\r\nSubject: filtered\r\nX-Spam: no\r\n\r\nbody\r\n"

BUILTIN = """
table networks { "127.0.0.0/8" }
filter named phase connect match !rdns disconnect "550 no name"
filter confirmed phase connect match !fcrdns disconnect "550 name not confirmed"
filter hello phase ehlo match helo "liar.test" reject "550 5.7.1 liar"
filter told phase mail-from match src <networks> report "from here"
filter spam phase mail-from match mail-from regex "^spam" junk
filter friend phase rcpt-to match mail-from "friend@client.test" bypass
filter other phase rcpt-to match rcpt-to "moved@ours.test" rewrite "<box@ours.test>"
filter nobody phase rcpt-to match rcpt-to "nobody@ours.test" reject "550 5.1.1 nobody is not here"
filter late phase data match mail-from "late@client.test" disconnect "421 4.7.0 later"
filter last phase commit match !auth reject "550 5.7.1 never"
filter "most of them" chain { named, confirmed, hello, told, spam, friend, other, nobody, late }
listen on 127.0.0.1 port {port} filter "most of them"
listen on 127.0.0.1 port {port2} filter {
    last
    named
}
action out relay host "smtp://127.0.0.1:SINK"
match from any for any action out
"""


def test_builtin_filters() -> None:
    """Every decision, over the wire, on a chain with a name and on one in place; another listener is not touched."""
    with sinking() as sink, running(BUILTIN.replace("SINK", str(sink.port))) as daemon:
        with daemon.smtp() as client:
            assert client.ehlo("liar.test") == (550, b"5.7.1 liar")
            assert client.ehlo("Client.test")[0] == 250
            assert client.mail("spammer@client.test")[0] == 250
            assert client.rcpt("nobody@ours.test") == (550, b"5.1.1 nobody is not here")
            assert client.rcpt("moved@ours.test")[0] == 250
            assert client.data(MESSAGE)[0] == 250
            client.mail("friend@client.test")
            assert client.rcpt("nobody@ours.test")[0] == 250
            assert client.data(MESSAGE)[0] == 250
            client.mail("late@client.test")
            client.rcpt("box@ours.test")
            assert client.docmd("DATA") == (421, b"4.7.0 later")
        wait_until("both arrive", lambda: len(sink.mails) == 2)
        mails = {mail.sender: mail for mail in sink.mails}
        spam, plain = mails["spammer@client.test"], mails["friend@client.test"]
        assert spam.recipients == ["box@ours.test"]
        assert spam.data.startswith(b"X-Spam: Yes\r\nReceived: ")
        assert plain.recipients == ["nobody@ours.test"]
        assert plain.data.startswith(b"Received: ")
        daemon.wait_logged('filter report filter="told" phase=mail-from text="from here"')
        daemon.wait_logged('filter decided filter="spam" phase=mail-from result=junk')
        with daemon.smtp(daemon.port2) as client:
            client.ehlo("liar.test")
            client.mail("a@client.test")
            client.rcpt("b@ours.test")
            assert client.data(MESSAGE) == (550, b"5.7.1 never")
            assert client.noop()[0] == 250
        daemon.wait_empty()
        assert len(sink.mails) == 2


def test_a_client_refused_at_connect_and_a_new_table() -> None:
    """A refusal in place of the greeting; a table that is read again is looked at by sessions from then on."""
    config = """
table refused file:{dir}/refused
filter f phase connect match src <refused> reject "554 5.7.1 not you"
listen on 127.0.0.1 port {port} filter f
listen on 127.0.0.1 port {port2}
match from any for any reject
"""
    daemon = Daemon(config)
    (daemon.dir / "refused").write_text("192.0.2.1\n")
    try:
        daemon.start()
        with daemon.smtp() as client:
            assert client.noop()[0] == 250
        (daemon.dir / "refused").write_text("127.0.0.0/8\n")
        daemon.ctl("update", "table", "refused")
        client = smtplib.SMTP()
        assert client.connect("127.0.0.1", daemon.port) == (554, b"5.7.1 not you")
        assert client.docmd("EHLO", "x.test")[0] == 503
        assert client.quit()[0] == 221
        with daemon.smtp(daemon.port2) as client:
            assert client.ehlo()[0] == 250
        assert daemon.stop() == 0
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()
        daemon.remove()
