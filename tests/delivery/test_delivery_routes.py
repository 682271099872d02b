"""Sources, names, failover and fallback of relays, against small servers on loopback."""

import socket
from contextlib import closing

import delivery_bench
import pytest
from delivery_bench import SEND, Bench
from support.daemon import free_port

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ActionSettings, MtaLimits
from smtpd_ps.contract.values import RouteHost, RouteSource, Status
from smtpd_ps.runtime.loop import Loop


def routed(bench: Bench, *hosts: RouteHost, **more) -> None:
    """Answer every question with these hosts."""
    bench.until(lambda: bench.queries)
    bench.route(*hosts, **more)


def test_sources_take_turns_and_say_their_names(sinks):
    """Connections leave from the addresses given, each with the name of its own."""
    sink = sinks(end_before_close=1)
    bench = Bench(ActionSettings("send", "relay", relay_helo="unused.test"), mta=MtaLimits(max_mails_per_connection=1))
    sources = (RouteSource("127.0.0.2", "two.test"), RouteSource("127.0.0.3", "three.test"))
    for number in (1, 2):
        bench.delivery.deliver(m.Deliver((bench.job("x@d.test", number=number),)))
        if number == 1:
            routed(bench, RouteHost("sink.test", ("127.0.0.1",), sink.port), sources=sources)
        bench.until(lambda count=number: len(bench.results) == count)
    assert [c for c in sink.commands if c.startswith(b"EHLO")] == [b"EHLO two.test", b"EHLO three.test"]


def test_the_source_is_what_the_peer_sees(sinks, capsys):
    """The address is bound before connecting, and is in the log line."""
    sink = sinks()
    bench = Bench(SEND)
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
    routed(bench, RouteHost("sink.test", ("127.0.0.1",), sink.port), sources=(RouteSource("127.0.0.9"),))
    bench.until(lambda: bench.results)
    assert bench.results[0].status is Status.OK
    assert 'source="127.0.0.9"' in capsys.readouterr().err


def test_a_source_that_is_not_ours_defers(sinks):
    """The kernel refuses it; the mail waits and says why."""
    sink = sinks()
    bench = Bench(SEND)
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
    routed(bench, RouteHost("sink.test", ("127.0.0.1",), sink.port), sources=(RouteSource("192.0.2.77"),))
    bench.until(lambda: bench.results)
    assert bench.results[0].status is Status.TEMPFAIL
    assert "assign requested address" in bench.results[0].text


@pytest.mark.parametrize(("names", "status"), [({"127.0.0.1": "me.test"}, Status.OK), ({}, Status.TEMPFAIL)])
def test_helo_of_the_kernels_choice(sinks, names, status):
    """Where no source is given the name is looked up by the one the kernel chose; none in the table defers."""
    sink = sinks()
    bench = Bench(SEND)
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
    helo_names = tuple(RouteSource(*pair) for pair in names.items())
    routed(bench, RouteHost("sink.test", ("127.0.0.1",), sink.port), helo_names=helo_names)
    bench.until(lambda: bench.results)
    assert bench.results[0].status is status
    assert sink.commands[:1] == ([b"EHLO me.test"] if names else [])
    if not names:
        assert "no name for the source address 127.0.0.1" in bench.results[0].text


def test_no_source_of_the_family_defers(sinks):
    """Address family mismatch, in OpenSMTPD's words."""
    sink = sinks()
    bench = Bench(SEND)
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
    routed(bench, RouteHost("sink.test", ("127.0.0.1",), sink.port), sources=(RouteSource("::1"),))
    bench.until(lambda: bench.results)
    assert bench.results[0].text == "Address family mismatch on destination MXs"


def test_backup_hosts_in_order(sinks):
    """Of hosts in an order the first that works is used, and the others are not."""
    second, third = sinks(), sinks()
    bench = Bench(ActionSettings("send", "relay", relay_hosts=("a",), relay_backup_hosts=("b", "c")))
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
    routed(
        bench,
        RouteHost("a", ("127.0.0.1",), free_port(), 0),
        RouteHost("b", ("127.0.0.1",), second.port, 1),
        RouteHost("c", ("127.0.0.1",), third.port, 2),
    )
    bench.until(lambda: bench.results)
    assert bench.results[0].status is Status.OK
    assert (second.sessions, third.sessions) == (1, 0)


def test_another_address_is_tried_beside_a_silent_one(sinks):
    """An address of the host that does not answer holds the mail up for a moment only (RFC 8305 5)."""
    sink = sinks()
    with closing(socket.socket()) as full:
        full.bind(("127.0.0.7", sink.port))
        full.listen(0)
        fillers = [socket.socket() for _ in range(8)]  # the backlog is full: connections hang
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.7", sink.port))
        bench = Bench(SEND, connect_timeout_secs=20)
        bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
        routed(bench, RouteHost("sink.test", ("127.0.0.7", "127.0.0.1"), sink.port))
        bench.until(lambda: bench.results)
        assert bench.results[0].status is Status.OK
        assert bench.results[0].relay == "127.0.0.1 (sink.test)"
        for filler in fillers:
            filler.close()


def test_limits_of_a_domain(sinks):
    """A domain with limits of its own has its connections counted by those."""
    sink = sinks()
    own = MtaLimits(domain="slow.test", max_connections_per_domain=1)
    bench = Bench(SEND, domain_limits=(own,))
    jobs = tuple(bench.job("x@slow.test", number=number) for number in range(1, 21))
    bench.delivery.deliver(m.Deliver(jobs))
    routed(bench, RouteHost("sink.test", ("127.0.0.1",), sink.port))
    bench.until(lambda: len(bench.results) == 20)
    assert sink.sessions == 1


def test_a_session_ends_after_its_failures(sinks):
    """A server that refuses message after message gets a new connection after so many."""
    sink = sinks(rcpt={b"no@d.test": b"550 5.1.1 no\r\n"})
    limits = MtaLimits(max_failures_per_connection=3, max_connections_per_route=1)
    bench = Bench(SEND, mta=limits)
    bench.delivery.deliver(m.Deliver(tuple(bench.job("no@d.test", number=number) for number in range(1, 10))))
    routed(bench, RouteHost("sink.test", ("127.0.0.1",), sink.port))
    bench.until(lambda: len(bench.results) == 9)
    assert sink.sessions >= 3


def test_mail_follows_the_route(sinks):
    """A kept connection to a host that is no longer named gets no mail, unless there may be no other."""
    one, two = sinks(), sinks()
    first, second = (RouteHost("sink.test", ("127.0.0.1",), sink.port) for sink in (one, two))
    bench = Bench(SEND, mta=MtaLimits(max_connections_per_relay=2))
    for number, host in enumerate((first, second, first), 1):
        for pool in bench.delivery._pools.values():
            pool.expires = 0.0
        bench.delivery.deliver(m.Deliver((bench.job("x@d.test", number=2 * number - 1),)))
        routed(bench, host)
        bench.until(lambda number=number: len(bench.results) == 2 * number - 1)
        bench.delivery.deliver(m.Deliver((bench.job("x@d.test", number=2 * number),)))
        bench.until(lambda number=number: len(bench.results) == 2 * number)
    # Each answer counts from the mail behind the one that asked for it.
    assert (len(one.messages), len(two.messages)) == (4, 2)
    assert (one.sessions, two.sessions) == (1, 1)
    full = sinks()
    (pool,) = bench.delivery._pools.values()
    pool.expires = 0.0
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test", number=7),)))
    routed(bench, RouteHost("sink.test", ("127.0.0.1",), full.port))
    bench.until(lambda: len(bench.results) == 7)
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test", number=8),)))
    bench.until(lambda: len(bench.results) == 8)
    assert full.sessions == 0
    assert {result.status for result in bench.results} == {Status.OK}


class Hurried(Loop):
    """Its clock can be put forward."""

    ahead_secs = 0.0

    def now(self) -> float:
        return super().now() + self.ahead_secs


def test_a_rate_spreads_messages(sinks, monkeypatch):
    """One message when it is due, on whatever connection, also of another action; until then nothing is done at all."""
    monkeypatch.setattr(delivery_bench, "Loop", Hurried)
    sink = sinks()
    own = MtaLimits(domain="slow.test", max_mails_per_minute=2)
    other = ActionSettings("other", "relay")
    bench = Bench(SEND, other, domain_limits=(own,))
    host = RouteHost("sink.test", ("127.0.0.1",), sink.port)
    for number in range(1, 5):
        job = bench.job("x@slow.test", number=number, action="send" if number % 2 else "other")
        bench.delivery.deliver(m.Deliver((job,)))
    bench.delivery.deliver(m.Deliver((bench.job("x@fast.test", number=9),)))
    routed(bench, host)
    bench.until(lambda: len(bench.results) == 2)  # one of each domain
    for sent in range(2, 5):
        bench.loop.turn(0)
        bench.loop.turn(0)
        assert bench.loop._patience(None) > 0
        bench.loop.ahead_secs += 15
        bench.loop.turn(0.05)
        assert len(sink.messages) == sent  # half the time is not enough
        bench.loop.ahead_secs += 15
        bench.until(lambda sent=sent: len(bench.results) == sent + 1)
    assert {result.status for result in bench.results} == {Status.OK}
    assert sorted(result.evpid >> 32 for result in bench.results) == [1, 2, 3, 4, 9]


def test_mail_that_waits_for_its_rate_opens_no_connection(sinks):
    """One connection for the message that is due, none for the others."""
    sink = sinks()
    bench = Bench(SEND, mta=MtaLimits(max_mails_per_minute=1))
    bench.delivery.deliver(m.Deliver(tuple(bench.job("x@d.test", number=number) for number in range(1, 11))))
    routed(bench, RouteHost("sink.test", ("127.0.0.1",), sink.port))
    bench.until(lambda: len(bench.results) == 1)
    bench.loop.turn(0)
    (pool,) = bench.delivery._pools.values()
    assert (sink.sessions, len(pool.connections), len(pool.waiting)) == (1, 1, 9)
    assert pool.limits_hit == {"RATE"}
