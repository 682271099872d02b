"""Which exchanger gets the mail, and what becomes of it where none takes it: real servers, names from dnsmasq."""

import re
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path

import pytest
from support.mail_network import SENDER, Network, mail_network

from bench.packages import Packages

pytestmark = pytest.mark.timeout(120)

CONFIG = """
listen on 127.0.0.1 port {port} hostname ours.test
listen on 127.0.0.59 port 25 hostname ours.test
mta limit max-conn-per-host 100
action out relay
match from any for any action out
"""
EXCHANGERS = {
    "sender.test": ("postfix.test",),
    "prefers-postfix.test": ("postfix.test", "exim.test"),
    "prefers-exim.test": ("exim.test", "postfix.test"),
    "first-refuses.test": ("dead.test", "exim.test"),
    "first-is-busy.test": ("busy.test", "exim.test"),
    "first-says-554.test": ("closed.test", "exim.test"),
    "first-has-no-address.test": ("nowhere.test", "exim.test"),
    "first-defers.test": ("later.test", "exim.test"),
    "first-rejects.test": ("never.test", "exim.test"),
    "all-refuse.test": ("dead.test", "closed.test"),
    "no-address.test": ("nowhere.test",),
    "over-six.test": ("six.test",),
    "both-families.test": ("both.test",),
    "half-dead.test": ("half.test",),
    "loop.test": ("ours.test",),
    "without-dsn.test": ("login.test",),
}
RECORDS = (
    *(
        f"--mx-host={domain},{host},{10 * at}"
        for domain, hosts in EXCHANGERS.items()
        for at, host in enumerate(hosts, 1)
    ),
    "--host-record=only-an-address.test,127.0.0.51",
    "--host-record=both.test,127.0.0.51,::1",
    "--host-record=half.test,127.0.0.58",
    "--host-record=half.test,127.0.0.52",
    "--cname=alias.test,only-an-address.test",
    "--dns-rr=null.test,15,000000",
)


@pytest.fixture(scope="module")
def network(module_scratch: Path, packages: Packages) -> Iterator[Network]:
    """Our daemon, which sends everything by MX."""
    with mail_network(packages, module_scratch, CONFIG, *RECORDS) as made:
        yield made


def bounce(network: Network, recipient: str) -> tuple[EmailMessage, str]:
    """Send a mail that cannot be delivered; its recipient's part of the notice that its sender gets, and all text."""
    sender = f"{recipient.replace('@', '-at-')}@sender.test"
    network.send(recipient, sender=sender)
    ((server, notice),) = network.arrived(sender)
    assert server == "postfix"
    assert notice["Return-Path"] == "<>"
    assert notice.get_content_type() == "multipart/report"
    (status,) = (part for part in notice.walk() if part.get_content_type() == "message/delivery-status")
    about = status.get_payload()
    assert isinstance(about, list)
    assert str(about[1]["Final-Recipient"]).lower() == f"rfc822; {recipient}".lower()
    assert about[1]["Action"] == "failed"
    return about[1], str(notice)


@pytest.mark.parametrize("first", ["postfix", "exim"])
def test_the_preferred_exchanger_gets_it(network: Network, first: str) -> None:
    """Three mails go to the exchanger of the lowest number, none to the other."""
    for number in (1, 2, 3):
        network.send(f"x@prefers-{first}.test")
        network.arrived(f"x@prefers-{first}.test", number)
    assert {server for server, _message in network.stored(f"x@prefers-{first}.test")} == {first}


@pytest.mark.parametrize("what", ["refuses", "is-busy", "says-554", "has-no-address"])
def test_the_next_exchanger_gets_it(network: Network, what: str) -> None:
    """Where the first one cannot be connected to, or greets with 421 or 554, the second has the mail at once."""
    network.delivered(f"x@first-{what}.test", "exim")
    network.daemon.wait_empty()


def test_a_recipient_that_is_deferred_waits(network: Network) -> None:
    """450 to a RCPT is an answer of the domain: the mail waits, as with OpenSMTPD, and tries no other exchanger."""
    network.waits("x@first-defers.test", "450 4.2.0")
    network.daemon.ctl("remove", queued(network, "x@first-defers.test"))


def queued(network: Network, recipient: str) -> str:
    """The envelope of a recipient that waits."""
    line = next(line for line in network.daemon.ctl("show", "queue").splitlines() if f"|{recipient}|" in line)
    return line.split("|")[0]


def test_a_recipient_that_is_rejected_bounces(network: Network) -> None:
    """550 to a RCPT: the notice has what Postfix said, and from which host."""
    about, text = bounce(network, "x@first-rejects.test")
    assert about["Status"] == "5.1.1", text
    assert "550 5.1.1" in about["Diagnostic-Code"] and "no such user" in text
    assert network.stored("x@first-rejects.test") == []


def test_when_all_refuse_it_waits(network: Network) -> None:
    """No exchanger answers: the mail waits, and the route comes back by the operator's command."""
    network.waits("x@all-refuse.test", "554 5.7.1")
    assert re.search(r"127\.0\.0\.58 \(dead\.test\) ND", network.daemon.ctl("show", "routes"))
    network.daemon.ctl("remove", queued(network, "x@all-refuse.test"))


def test_exchangers_without_address(network: Network) -> None:
    """Exchangers that have no address: the mail waits."""
    network.waits("x@no-address.test", "No MX found for domain")
    network.daemon.ctl("remove", queued(network, "x@no-address.test"))


def test_null_mx_bounces(network: Network) -> None:
    """A domain that says it takes no mail (RFC 7505): the sender has it back at once."""
    about, text = bounce(network, "x@null.test")
    assert about["Status"] == "5.1.10", text
    assert "does not accept mail" in text


def test_a_domain_that_does_not_exist_bounces(network: Network) -> None:
    """NXDOMAIN is for good."""
    about, text = bounce(network, "x@nowhere.test")
    assert about["Status"] == "5.1.2", text


def test_a_domain_without_exchanger(network: Network) -> None:
    """Its own address is used, behind an alias too."""
    network.delivered("x@only-an-address.test")
    network.delivered("x@alias.test")


def test_an_address_literal(network: Network) -> None:
    """user@[address] goes to that host, which sees the literal."""
    network.delivered("x@[127.0.0.52]", "exim")


def test_ipv6(network: Network) -> None:
    """An exchanger with an IPv6 address alone, and one with both: Postfix sees ::1."""
    for domain in ("over-six.test", "both-families.test"):
        assert re.match(r"from \S+ \(\S+ \[(IPv6:)?::1\]\)", network.received(f"x@{domain}"))


def test_the_other_address_of_a_host(network: Network) -> None:
    """Where one address of a host refuses, the other is tried."""
    network.delivered("x@half-dead.test", "exim")


def test_a_loop_ends(network: Network) -> None:
    """An exchanger that is we ourselves: the mail goes around until it has too many hops, and bounces once."""
    about, _text = bounce(network, "x@loop.test")
    assert about["Status"] == "5.4.6"
    network.daemon.wait_empty()
    assert len(network.stored("x-at-loop.test@sender.test")) == 1


def test_a_notice_of_success_comes_from_where_the_mail_ends(network: Network) -> None:
    """NOTIFY, ORCPT and ENVID are passed on: it is Postfix that says so, with what the client gave."""
    network.send(
        "x@prefers-postfix.test", sender="asks@sender.test", mail="ENVID=of+20the+20client",
        rcpt="NOTIFY=SUCCESS ORCPT=rfc822;old@name.test",
    )  # fmt: skip
    ((_server, notice),) = network.arrived("asks@sender.test")
    (status,) = (part for part in notice.walk() if part.get_content_type() == "message/delivery-status")
    whole, one = status.get_payload()
    assert whole["Reporting-MTA"] == "dns; postfix.test"
    assert whole["Original-Envelope-Id"] == "of the client"
    assert str(one["Original-Recipient"]).replace(" ", "") == "rfc822;old@name.test"
    assert one["Action"] == "delivered"


def test_a_notice_of_success_from_us(network: Network) -> None:
    """A host that does not know DSN: we say that the mail was relayed to it."""
    network.send("x@without-dsn.test", sender="asks-us@sender.test", rcpt="NOTIFY=SUCCESS")
    network.arrived("x@without-dsn.test")
    ((_server, notice),) = network.arrived("asks-us@sender.test")
    (status,) = (part for part in notice.walk() if part.get_content_type() == "message/delivery-status")
    assert status.get_payload()[1]["Action"] == "relayed"


def test_addresses_outside_ascii(network: Network) -> None:
    """SMTPUTF8 end to end: Postfix takes the address as it is."""
    with network.daemon.smtp() as client:
        client.ehlo()
        client.command_encoding = "utf-8"
        client.mail(SENDER, ["SMTPUTF8", "BODY=8BITMIME"])
        assert client.rcpt("jörg@prefers-postfix.test")[0] == 250
        assert client.data("Subject: grüße\r\n\r\nbody\r\n".encode())[0] == 250
    ((_server, message),) = network.arrived("jörg@prefers-postfix.test")
    assert " with UTF8SMTPS id " in " ".join(str(message["Received"]).split())


def test_a_message_too_large_for_the_host_is_not_sent(network: Network) -> None:
    """The host says its SIZE: what is larger bounces without being sent."""
    size = 11_000_000  # Postfix takes 10,240,000
    network.send("x@prefers-postfix.test", sender="large@sender.test", body=("x" * 78 + "\r\n") * (size // 80))
    ((_server, notice),) = network.arrived("large@sender.test")
    (status,) = (part for part in notice.walk() if part.get_content_type() == "message/delivery-status")
    assert status.get_payload()[1]["Status"] == "5.3.4", str(notice)[:3000]
    assert "message file too big" not in network.postfix_log
