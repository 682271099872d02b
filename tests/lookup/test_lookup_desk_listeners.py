"""What lookup says for listeners: who may send as whom, and names to greet with."""

import pytest
from desk_world import SETTINGS, World, refused
from msgspec import structs
from support.dns_server import DnsServer

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import (
    ListenerTables,
    TableSettings,
)  # fmt: skip
from smtpd_ps.contract.values import Process
from smtpd_ps.pure.table import Table
from smtpd_ps.runtime.loop import Loop

OWNERS = TableSettings(
    "owners", "inline", "map",
    (("bob@far.org", "bob@far.org, @sales.org ,info"), ("root", "@")),
)  # fmt: skip
NAMES = TableSettings("names", "inline", "map", (("192.0.2.1", "a.example"), ("[::1]", "b.example")))


def listening(loop: Loop, dns_server: DnsServer, *listeners: ListenerTables) -> World:
    """A lookup whose listeners have tables."""
    tables = (*SETTINGS.tables, OWNERS, NAMES)
    return World(loop, dns_server, structs.replace(SETTINGS, tables=tables, listeners=listeners))


@pytest.mark.parametrize(
    ("user", "sender", "allowed"),
    [
        ("bob@far.org", "bob@far.org", True),
        ("BOB@FAR.ORG", "Bob@Far.org", True),
        ("bob@far.org", "bob+tag@far.org", True),
        ("bob@far.org", "anyone@sales.org", True),
        ("bob@far.org", "info@anywhere.org", True),
        ("bob@far.org", "ann@far.org", False),
        ("bob@far.org", "bob@far.org.evil.org", False),
        ("bob@far.org", "", False),
        ("root", "anyone@far.org", True),
        ("root", "", True),
        ("nobody", "nobody@far.org", False),
    ],
)
def test_senders(loop: Loop, dns_server: DnsServer, user: str, sender: str, allowed: bool) -> None:
    """A user sends as the addresses of its entry, as nobody else's, and as the null sender only by `@` (QUIRKS 11).

    Lookup holds recipients to it by itself, whatever smtp asked before.
    """
    world = listening(loop, dns_server, ListenerTables(0, "192.0.2.1", senders="owners"))
    world.connect()
    world.smtp.take()
    session = world.desk.sessions.get(1)
    assert session is not None
    world.desk.sessions.authenticated(session, user)
    world.give(Process.SMTP, m.SenderQuery(1, 7, sender))
    assert world.smtp.take() == m.SenderReply(1, 7, "ok" if allowed else "no")
    world.rcpt("x@here.org", sender)
    if allowed:
        assert isinstance(world.queue.take(), m.RcptAccept)
    else:
        assert refused(world.smtp.take()) == (530, "Sender rejected")
    world.checking.stop()


def test_senders_of_strangers_and_of_other_listeners(loop: Loop, dns_server: DnsServer) -> None:
    """Who is not authenticated is not checked, nor who came to a listener without `senders`."""
    world = listening(loop, dns_server, ListenerTables(3, "192.0.2.1", senders="owners"))
    world.connect()
    world.smtp.take()
    session = world.desk.sessions.get(1)
    assert session is not None
    world.desk.sessions.authenticated(session, "nobody")
    assert not session.senders
    world.give(Process.SMTP, m.PeerQuery(2, 3, "127.0.0.1"))
    world.smtp.take()
    stranger = world.desk.sessions.get(2)
    assert stranger is not None
    assert stranger.senders == "owners"
    world.give(Process.SMTP, m.SenderQuery(2, 1, "x@far.org"))
    assert world.smtp.take() == m.SenderReply(2, 1, "ok")
    world.give(Process.SMTP, m.SenderQuery(9, 1, "x@far.org"))
    assert world.smtp.take() == m.SenderReply(9, 1, "error")
    world.give(Process.SMTP, m.SenderQuery(2, 1, "x\ny@far.org"))
    assert world.smtp.take() == m.SenderReply(2, 1, "error")
    assert len(world.warnings) == 2
    world.checking.stop()


def test_a_sender_that_the_table_allows_no_more(loop: Loop, dns_server: DnsServer) -> None:
    """An update of the table holds for the sessions that are open."""
    world = listening(loop, dns_server, ListenerTables(0, "192.0.2.1", senders="owners"))
    world.connect()
    world.smtp.take()
    session = world.desk.sessions.get(1)
    assert session is not None
    world.desk.sessions.authenticated(session, "root")
    world.give(Process.SMTP, m.SenderQuery(1, 1, "x@far.org"))
    assert world.smtp.take() == m.SenderReply(1, 1, "ok")
    world.desk._swap(Table("owners", "map", {}))
    world.rcpt("x@here.org", "x@far.org")
    assert refused(world.smtp.take()) == (530, "Sender rejected")
    world.checking.stop()


def test_names_to_greet_with(loop: Loop, dns_server: DnsServer) -> None:
    """By the listener's address, bare or in brackets; said before DNS is asked; "" where there is none that will do."""
    addresses = ("192.0.2.1", "::1", "192.0.2.9")
    world = listening(
        loop, dns_server, *(ListenerTables(index, address, "names") for index, address in enumerate(addresses))
    )
    for index, name in enumerate(("a.example", "b.example", "")):
        world.give(Process.SMTP, m.PeerQuery(10 + index, index, "127.0.0.1"))
        greet, info = world.smtp.messages
        assert greet == m.Greet(10 + index, name)
        assert isinstance(info, m.PeerInfo)
        world.smtp.messages.clear()
    world.checking.stop()
