"""The resolver against a name server that answers, fails and lies."""

from collections.abc import Iterator

import dns.message
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.dns_server import DnsServer, run_until

from smtpd_ps.lookup import dns_exchange, dns_wire
from smtpd_ps.lookup.dns_exchange import Servers
from smtpd_ps.lookup.dns_wire import Mx, Type
from smtpd_ps.lookup.resolver import Answer, Resolver, Status
from smtpd_ps.pure.hosts_file import ResolverSettings
from smtpd_ps.runtime.loop import Loop


class Asker:
    def __init__(self, loop: Loop, settings: ResolverSettings) -> None:
        self.loop = loop
        self.servers = Servers(loop, settings)
        self.resolver = Resolver(loop, self.servers)

    def ask(self, name: str, kind: Type = Type.A) -> Answer:
        answers: list[Answer] = []
        self.resolver.ask(name, kind, answers.append)
        run_until(self.loop, lambda: bool(answers))
        assert len(answers) == 1
        return answers[0]


@pytest.fixture
def asker(loop: Loop, dns_server: DnsServer) -> Iterator[Asker]:
    made = Asker(loop, dns_server.settings)
    yield made
    made.servers.close()


def test_records_of_each_type(asker: Asker, dns_server: DnsServer) -> None:
    """A, AAAA, MX and PTR come as text, in lower case and without the final dot."""
    dns_server.zone = {
        ("a.test", "A"): ["192.0.2.1", "192.0.2.2"],
        ("a.test", "AAAA"): ["2001:db8::1"],
        ("a.test", "MX"): ["10 MX1.test.", "5 mx2.test."],
        ("1.2.0.192.in-addr.arpa", "PTR"): ["Host.Test."],
    }
    assert sorted(asker.ask("A.test.").texts) == ["192.0.2.1", "192.0.2.2"]
    assert asker.ask("a.test", Type.AAAA).texts == ("2001:db8::1",)
    assert set(asker.ask("a.test", Type.MX).values) == {Mx(10, "mx1.test"), Mx(5, "mx2.test")}
    assert asker.ask("1.2.0.192.in-addr.arpa", Type.PTR).texts == ("host.test",)


def test_positive_answers_are_cached_for_their_ttl(
    asker: Asker, dns_server: DnsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the TTL nobody is asked again; after it, somebody is."""
    dns_server.zone = {("a.test", "A"): ["192.0.2.1"]}
    dns_server.ttl = 100
    asker.ask("a.test")
    asker.ask("A.TEST")
    assert dns_server.count("a.test") == 1
    real = asker.loop.now
    monkeypatch.setattr(asker.loop, "now", lambda: real() + 101)
    answers: list[Answer] = []
    asker.resolver.ask("a.test", Type.A, answers.append)
    assert answers == []


def test_ttl_is_capped(asker: Asker, dns_server: DnsServer) -> None:
    """A year is not believed."""
    dns_server.zone = {("a.test", "A"): ["192.0.2.1"]}
    dns_server.ttl = 365 * 86400
    assert asker.ask("a.test").expires <= asker.loop.now() + 86_400


def test_negative_answers_are_cached(asker: Asker, dns_server: DnsServer) -> None:
    """NXDOMAIN and no data are kept as long as the SOA says (RFC 2308)."""
    dns_server.zone = {("a.test", "A"): ["192.0.2.1"]}
    dns_server.soa_minimum = 50
    for name, status in (("gone.test", Status.NO_NAME), ("a.test", Status.NO_DATA)):
        first = asker.ask(name, Type.MX)
        assert first.status is status
        assert 40 < first.expires - asker.loop.now() <= 50
        assert asker.ask(name, Type.MX) is first
        assert dns_server.count(name) == 1


def test_equal_questions_are_asked_once(asker: Asker, dns_server: DnsServer) -> None:
    """Many ask at once, the server hears one question."""
    dns_server.zone = {("a.test", "A"): ["192.0.2.1"]}
    answers: list[Answer] = []
    for _ in range(20):
        asker.resolver.ask("a.test", Type.A, answers.append)
    run_until(asker.loop, lambda: len(answers) == 20)
    assert dns_server.count("a.test") == 1


def test_cname(asker: Asker, dns_server: DnsServer) -> None:
    """An alias is followed, in one answer or over several."""
    dns_server.zone = {("www.test", "CNAME"): ["a.test."], ("a.test", "A"): ["192.0.2.1"]}
    assert asker.ask("www.test").texts == ("192.0.2.1",)
    assert asker.ask("www.test", Type.MX).status is Status.NO_DATA

    def only_alias(query: dns.message.Message) -> list[bytes]:
        reply = dns.message.make_response(query)
        reply.answer.append(dns.rrset.from_text("far.test.", 60, "IN", "CNAME", "a.test."))
        return [reply.to_wire()]

    dns_server.special["far.test"] = only_alias
    assert asker.ask("far.test").texts == ("192.0.2.1",)


def test_cname_loops_and_long_chains_end(asker: Asker, dns_server: DnsServer) -> None:
    """A chain of aliases without an end is a temporary failure."""
    dns_server.zone = {("l.test", "CNAME"): ["m.test."], ("m.test", "CNAME"): ["l.test."]}
    assert asker.ask("l.test").status is Status.TEMPORARY
    dns_server.zone = {(f"c{n}.test", "CNAME"): [f"c{n + 1}.test."] for n in range(12)}
    dns_server.zone["c12.test", "A"] = ["192.0.2.1"]
    assert asker.ask("c0.test").status is Status.TEMPORARY
    assert asker.ask("c5.test").status is Status.FOUND


def test_records_of_other_names_are_left_out(asker: Asker, dns_server: DnsServer) -> None:
    """An answer cannot bring in records for names that were not asked for."""

    def poison(query: dns.message.Message) -> list[bytes]:
        reply = dns.message.make_response(query)
        reply.answer.append(dns.rrset.from_text("bank.test.", 60, "IN", "A", "192.0.2.66"))
        reply.answer.append(dns.rrset.from_text("a.test.", 60, "IN", "A", "192.0.2.1"))
        reply.additional.append(dns.rrset.from_text("bank.test.", 60, "IN", "A", "192.0.2.66"))
        return [reply.to_wire()]

    dns_server.special["a.test"] = poison
    dns_server.zone["bank.test", "A"] = ["192.0.2.2"]
    assert asker.ask("a.test").texts == ("192.0.2.1",)
    assert asker.ask("bank.test").texts == ("192.0.2.2",)


@pytest.mark.parametrize("rcode", [1, 2, 4, 5])
def test_failures_of_servers_are_temporary(asker: Asker, dns_server: DnsServer, rcode: int) -> None:
    """FORMERR, SERVFAIL, NOTIMP, REFUSED: tried again, then temporary, and not cached (QUIRKS 38)."""
    dns_server.rcodes["bad.test"] = rcode
    dns_server.zone["bad.test", "A"] = ["192.0.2.1"]
    assert asker.ask("bad.test").status is Status.TEMPORARY
    assert dns_server.count("bad.test") == 2
    dns_server.rcodes.clear()
    assert asker.ask("bad.test").texts == ("192.0.2.1",)


def test_silence_is_temporary(asker: Asker, dns_server: DnsServer) -> None:
    """A server that never answers is asked as often as configured."""
    dns_server.silent.add("slow.test")
    assert asker.ask("slow.test").status is Status.TEMPORARY
    assert dns_server.count("slow.test") == 2


def test_deadline(asker: Asker, dns_server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many servers and rounds there are, there is an end."""
    monkeypatch.setattr(dns_exchange, "DEADLINE_SECS", 0.05)
    dns_server.silent.add("slow.test")
    assert asker.ask("slow.test").status is Status.TEMPORARY
    assert dns_server.count("slow.test") == 1


def test_second_server(loop: Loop, dns_server: DnsServer) -> None:
    """A dead server is passed over."""
    dns_server.zone = {("a.test", "A"): ["192.0.2.1"]}
    dead = DnsServer(loop)
    port = dead.port
    dead.close()
    settings = ResolverSettings((("127.0.0.1", port), ("127.0.0.1", dns_server.port)), 0.1, 2)
    assert Asker(loop, settings).ask("a.test").texts == ("192.0.2.1",)


def test_wrong_answers_then_the_right_one(asker: Asker, dns_server: DnsServer) -> None:
    """Another id, another question or rubbish is dropped; the right answer behind it counts."""

    def liar(query: dns.message.Message) -> list[bytes]:
        right = dns.message.make_response(query)
        right.answer.append(dns.rrset.from_text("a.test.", 60, "IN", "A", "192.0.2.1"))
        wrong_id = dns.message.make_response(query)
        wrong_id.answer.append(dns.rrset.from_text("a.test.", 60, "IN", "A", "192.0.2.66"))
        wrong_id.id = query.id ^ 1
        other = dns.message.make_response(dns.message.make_query("b.test.", "A", id=query.id))
        other.answer.append(dns.rrset.from_text("b.test.", 60, "IN", "A", "192.0.2.66"))
        return [b"", b"x", b"\0" * 12, query.to_wire(), wrong_id.to_wire(), other.to_wire(), right.to_wire()]

    dns_server.special["a.test"] = liar
    assert asker.ask("a.test").texts == ("192.0.2.1",)
    assert dns_server.count("a.test") == 1


def test_endless_wrong_answers_end(asker: Asker, dns_server: DnsServer) -> None:
    """A guesser does not keep a question open."""
    dns_server.special["a.test"] = lambda _query: [b"guess"] * 100
    assert asker.ask("a.test").status is Status.TEMPORARY


def test_truncated_is_asked_again_over_tcp(asker: Asker, dns_server: DnsServer) -> None:
    """TC leads to TCP, and there to all of a large answer."""
    addresses = [f"10.0.{n // 250}.{n % 250 + 1}" for n in range(300)]
    dns_server.zone = {("big.test", "A"): addresses}
    dns_server.truncated.add("big.test")
    assert set(asker.ask("big.test").texts) == set(addresses)
    assert [transport for transport, _name, _kind in dns_server.asked] == ["udp", "tcp"]


def test_tcp_that_breaks_is_temporary(asker: Asker, dns_server: DnsServer) -> None:
    """A server that truncates and then closes TCP cannot be used."""
    dns_server.truncated.add("big.test")
    dns_server.zone = {("big.test", "A"): ["192.0.2.1"]}
    dns_server.loop.forget(dns_server.tcp.fileno())
    dns_server.loop.read_on(dns_server.tcp.fileno(), lambda: dns_server.tcp.accept()[0].close())
    assert asker.ask("big.test").status is Status.TEMPORARY


def test_ports_and_ids_vary(asker: Asker, dns_server: DnsServer) -> None:
    """Each question has a port and an id of its own."""
    dns_server.zone = {(f"a{n}.test", "A"): ["192.0.2.1"] for n in range(30)}
    for n in range(30):
        asker.ask(f"a{n}.test")
    assert len(dns_server.ports) > 10
    assert len(dns_server.ids) > 20


def test_names_that_are_none(asker: Asker, dns_server: DnsServer) -> None:
    """What DNS cannot hold does not exist, and nobody is asked."""
    for name in ("", ".", "a..b", "x" * 64 + ".test", ".".join(["abc"] * 80)):
        assert asker.ask(name).status is Status.NO_NAME
    assert dns_server.asked == []


def test_questions_wait_for_their_turn(asker: Asker, dns_server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets are bounded; what is over the bound waits, what is over that fails."""
    monkeypatch.setattr(dns_exchange, "MAX_UNDER_WAY", 2)
    monkeypatch.setattr(dns_exchange, "MAX_WAITING", 3)
    dns_server.zone = {(f"a{n}.test", "A"): ["192.0.2.1"] for n in range(7)}
    answers: list[Answer] = []
    for n in range(7):
        asker.resolver.ask(f"a{n}.test", Type.A, answers.append)
    run_until(asker.loop, lambda: len(answers) == 7)
    assert sorted(answer.status.value for answer in answers) == ["found"] * 5 + ["temporary"] * 2


ASKED = dns_wire.question("a.test", Type.A)


def _valid_reply() -> bytes:
    query = dns.message.make_query("a.test.", "A", id=7)
    reply = dns.message.make_response(query)
    for rdtype, data in (("CNAME", "b.test."), ("A", "192.0.2.1"), ("TXT", '"x"'), ("MX", "1 b.test.")):
        reply.answer.append(dns.rrset.from_text("a.test.", 60, "IN", rdtype, data))
    return reply.to_wire()


@given(st.binary(max_size=80), st.integers(0, 60), st.integers(0, 255))
def test_any_reply_bytes(tail: bytes, at: int, value: int) -> None:
    """Any bytes behind the right header, and any changed byte, give a reply or None, never an error."""
    header = dns_wire.HEADER.pack(7, 0x8180, 1, 2, 1, 0)
    dns_wire.parse_reply(header + tail, 7, ASKED)
    dns_wire.parse_reply(header + ASKED.wire + tail, 7, ASKED)
    reply = bytearray(_valid_reply())
    reply[at % len(reply)] = value
    dns_wire.parse_reply(bytes(reply), 7, ASKED)


def test_compression_loop() -> None:
    """A name that points to itself is no reply."""
    data = dns_wire.HEADER.pack(7, 0x8180, 1, 1, 0, 0) + ASKED.wire + b"\xc0\x18" + b"\0\1\0\1\0\0\0\0\0\4abcd"
    assert dns_wire.parse_reply(data, 7, ASKED) is None


def test_unknown_types_import_nothing() -> None:
    """Records of other types are skipped without dnspython loading a class for them."""
    import sys

    reply = dns.message.make_response(dns.message.make_query("a.test.", "A", id=7))
    reply.answer.append(dns.rrset.from_text("a.test.", 60, "IN", "LOC", "42 21 54 N 71 06 18 W -24m 30m"))
    reply.answer.append(dns.rrset.from_text("a.test.", 60, "IN", "A", "192.0.2.1"))
    wire = reply.to_wire()
    before = set(sys.modules)
    parsed = dns_wire.parse_reply(wire, 7, ASKED)
    assert parsed is not None
    assert [record.data for record in parsed.records] == ["192.0.2.1"]
    assert set(sys.modules) == before


@pytest.mark.parametrize(("rcode", "believed"), [(0, False), (1, True), (2, True), (3, False), (5, True)])
def test_a_reply_without_its_question(rcode: int, believed: bool) -> None:
    """Some servers do not repeat what they refuse; but that a name does not exist must be about that name."""
    reply = dns_wire.parse_reply(dns_wire.HEADER.pack(7, 0x8180 | rcode, 0, 0, 0, 0), 7, ASKED)
    assert (reply is not None) is believed
