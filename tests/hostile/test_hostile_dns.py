"""Hostile name servers: what they answer decides where mail goes, and nothing else.

Mail comes back only where the name authoritatively does not exist or wants no mail; else it waits.
"""

import dns.message
import dns.rcode
import dns.rrset
import pytest
from hostile_servers import Outgoing, misbehaving
from support.daemon import wait_until


def test_a_name_that_does_not_exist_comes_back(outgoing: Outgoing) -> None:
    """NXDOMAIN for the domain is permanent."""
    outgoing.submit("b@nowhere.evil.test")
    assert "Domain does not exist" in outgoing.bounce().as_string()


def test_null_mx_comes_back(outgoing: Outgoing) -> None:
    """RFC 7505."""
    outgoing.world.dns.zone["null.evil.test", "MX"] = ["0 ."]
    outgoing.submit("b@null.evil.test")
    assert "does not accept mail" in outgoing.bounce().as_string()


@pytest.mark.parametrize("rcode", ["SERVFAIL", "REFUSED", "FORMERR", "NOTIMP", "YXDOMAIN"])
def test_other_failures_keep_the_mail(outgoing: Outgoing, rcode: str) -> None:
    """Only what is authoritative is permanent."""
    name = f"{rcode.lower()}.evil.test"
    outgoing.world.dns.rcodes[name] = dns.rcode.from_text(rcode)
    outgoing.submit(f"b@{name}")
    outgoing.kept()
    assert outgoing.sink.mails == []


def loop_of_compression(query: "dns.message.Message") -> list[bytes]:
    """An answer whose name is a pointer to itself."""
    wire = query.to_wire()
    head = wire[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + wire[12:]
    return [head + (0xC000 | len(head)).to_bytes(2, "big") + b"\0\x0f\0\1\0\0\0\x3c\0\4\0\1\xc0\x0c"]


REPLIES = {
    "rubbish": lambda _query: [b"\xff" * 400],
    "short": lambda query: [query.to_wire()[:12]],
    "question": lambda query: [query.to_wire()],
    "loop": loop_of_compression,
    "flood": lambda _query: [b"\0" * 50] * 1000,
    "other-id": lambda query: [
        bytes([query.to_wire()[0] ^ 1]) + query.to_wire()[1:2] + b"\x81\x83" + query.to_wire()[4:]
    ],
}


def test_rubbish_keeps_the_mail(outgoing: Outgoing) -> None:
    """What is no answer is no answer: the mail waits when patience is over, and other mail passes meanwhile."""
    for name, reply in REPLIES.items():
        outgoing.world.dns.special[f"{name}.rubbish.test"] = reply  # type: ignore[assignment]
    outgoing.submit(*(f"b@{name}.rubbish.test" for name in REPLIES))
    outgoing.submit("someone@client.test")
    wait_until("other mail passes", lambda: len(outgoing.sink.mails) == 1)
    assert not all(row.tries for row in outgoing.rows()), "it passed when patience was over"
    assert len(outgoing.kept(40)) == len(REPLIES)


def test_aliases_in_a_circle_keep_the_mail(outgoing: Outgoing) -> None:
    """A CNAME loop ends."""
    zone = outgoing.world.dns.zone
    zone["one.loop.test", "CNAME"], zone["two.loop.test", "CNAME"] = ["two.loop.test."], ["one.loop.test."]
    outgoing.submit("b@one.loop.test")
    outgoing.kept()


def test_a_thousand_mx(outgoing: Outgoing) -> None:
    """A bounded number is tried, and the rest of the world is served."""
    zone = outgoing.world.dns.zone
    zone["many.evil.test", "MX"] = [f"{at} m{at}.many.evil.test." for at in range(1000)]
    outgoing.world.dns.truncated.add("many.evil.test")
    dead = outgoing.world.address()
    for at in range(1000):
        zone[f"m{at}.many.evil.test", "A"] = [dead]
    before = len(outgoing.world.dns.asked)
    outgoing.submit("b@many.evil.test")
    outgoing.kept()
    assert len(outgoing.world.dns.asked) - before < 300


def test_a_thousand_addresses(outgoing: Outgoing) -> None:
    """The same for the addresses of one MX; the good one among the first is found."""
    zone = outgoing.world.dns.zone
    with outgoing.world.server(misbehaving("never", b"")) as (domain, server):
        name = zone[domain, "MX"][0].split()[1].rstrip(".")
        zone[name, "A"] = [*zone[name, "A"], *(f"127.67.{at // 250}.{at % 250 + 1}" for at in range(1000))]
        outgoing.world.dns.truncated.add(name)
        outgoing.submit(f"b@{domain}")
        wait_until("it was tried", lambda: server.connections > 0 or any(row.tries for row in outgoing.rows()))
        outgoing.watch.remove_all()
    assert outgoing.watch.rss_bytes("lookup") - outgoing.watch.memory["lookup"] < 30 << 20


@pytest.mark.parametrize("address", ["0.0.0.0", "255.255.255.255", "224.0.0.1"])
def test_addresses_that_are_none(outgoing: Outgoing, address: str) -> None:
    """A server there is a server that cannot be reached."""
    outgoing.submit(f"b@{outgoing.world.domain(address)}")
    outgoing.kept()


@pytest.mark.parametrize(
    "exchange",
    ["127\\.0\\.0\\.1.", "a\\013\\010b.evil.test.", "-x.evil.test.", "a\\032b.test.", "a\\000.test.", "*.evil.test."],
)
def test_names_that_are_none(outgoing: Outgoing, exchange: str) -> None:
    """An MX that is no host name is passed over; nothing of it gets into a log or a command."""
    number = len(outgoing.world.dns.zone)
    outgoing.world.dns.zone[f"n{number}.evil.test", "MX"] = [f"10 {exchange}"]
    outgoing.submit(f"b@n{number}.evil.test")
    outgoing.kept()


def test_answers_about_other_names(outgoing: Outgoing) -> None:
    """What is said of another name beside the answer is not believed (cache poisoning)."""
    poison = outgoing.world.address()

    def lie(query: "dns.message.Message") -> list[bytes]:
        reply = outgoing.world.dns.reply(query)
        reply.answer.append(dns.rrset.from_text("victim.evil.test.", 3600, "IN", "A", poison))
        reply.additional.append(dns.rrset.from_text("victim.evil.test.", 3600, "IN", "A", poison))
        return [reply.to_wire()]

    with outgoing.world.server(misbehaving("never", b"")) as (domain, server):
        outgoing.world.dns.special[domain] = lie
        outgoing.submit(f"b@{domain}")
        wait_until("it arrives", lambda: server.connections == 1 and outgoing.watch.queued() == 0)
    outgoing.submit("b@victim.evil.test")
    outgoing.bounce()
