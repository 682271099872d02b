"""Delivery as a whole, against a small server in a thread; the other processes are fakes.

LMTP and agents are in test_delivery_local.
"""

import os

import pytest
from delivery_bench import BODY, SEND, Bench, host, relay
from support.daemon import free_port

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ActionSettings, MtaLimits
from smtpd_ps.contract.values import Dsn, Job, Recipient, RouteHost, Status


def test_a_message_is_relayed_and_its_outcome_told(sinks):
    """Route is asked once, the body arrives unchanged, the server's reply is the outcome's text."""
    sink = sinks()
    bench = Bench(SEND)
    bench.delivery.deliver(m.Deliver((bench.job("x@dest.test", "y@dest.test"),)))
    assert [(q.action, q.domain) for q in bench.queries] == [("send", "dest.test")]
    bench.route(host(sink))
    bench.until(lambda: len(bench.results) == 2)
    assert {r.status for r in bench.results} == {Status.OK}
    assert bench.results[0].text == "250 2.0.0 stored"
    assert bench.results[0].relay == "127.0.0.1 (sink.test)"
    assert sink.messages == [(b"MAIL FROM:<a@sender.test> SIZE=%d" % len(BODY), [b"x@dest.test", b"y@dest.test"], BODY)]


def test_commands_leave_in_one_write_and_body_with_dot_in_one(sinks):
    """With PIPELINING: MAIL, RCPT, DATA are one segment; the body and the final dot one more."""
    sink = sinks()
    bench = relay(sink)
    bench.delivery.deliver(m.Deliver((bench.job("x@dest.test"),)))
    bench.route(*bench.hosts)
    bench.until(lambda: bench.results)
    head, body = sink.chunks[1:3]
    assert head.startswith(b"MAIL") and head.endswith(b"DATA\r\n")
    assert body.endswith(b"..dot\r\n.\r\n")


@pytest.mark.parametrize("offers", [(b"PIPELINING", b"SIZE"), ()])
def test_many_messages_share_connections(sinks, offers):
    """200 messages over at most five connections, every one delivered once, each to its recipient."""
    sink = sinks(offers=offers)
    bench = relay(sink)
    bench.delivery.deliver(m.Deliver(tuple(bench.job(f"r{n}@dest.test", number=n) for n in range(1, 51))))
    bench.route(*bench.hosts)
    for start in (51, 101, 151):
        bench.delivery.deliver(m.Deliver(tuple(bench.job(f"r{n}@d.test", number=n) for n in range(start, start + 50))))
    bench.until(lambda: len(bench.results) >= 200)
    assert len({r.evpid for r in bench.results}) == 200
    assert sorted(m_[1][0].split(b"@")[0] for m_ in sink.messages) == sorted(b"r%d" % n for n in range(1, 201))
    assert sink.sessions <= 5


def test_recipients_are_answered_one_by_one(sinks):
    """A refused recipient gets its own status; the others are delivered."""
    sink = sinks(rcpt={b"no@d.test": b"550 5.1.1 no such user\r\n", b"wait@d.test": b"450 4.2.1 busy\r\n"})
    bench = relay(sink)
    bench.delivery.deliver(m.Deliver((bench.job("yes@d.test", "no@d.test", "wait@d.test"),)))
    bench.route(*bench.hosts)
    bench.until(lambda: len(bench.results) == 3)
    told = {r.evpid & 0xFF: (r.status, r.text) for r in bench.results}
    assert told == {
        1: (Status.OK, "250 2.0.0 stored"),
        2: (Status.PERMFAIL, "550 5.1.1 no such user"),
        3: (Status.TEMPFAIL, "450 4.2.1 busy"),
    }


def test_the_next_host_is_tried_after_a_refused_connection(sinks):
    """Hosts are tried in their order; one that is down or greets with 554 does not hold up the mail."""
    sink, sulky = sinks(), sinks(banner=b"554 go away\r\n")
    bench = Bench(SEND)
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
    bench.route(RouteHost("down", ("127.0.0.1",), free_port(), 1), host(sulky, preference=5), host(sink, preference=10))
    bench.until(lambda: bench.results)
    assert bench.results[0].status is Status.OK
    assert len(sink.messages) == 1


def test_when_all_hosts_fail_the_mail_waits_in_queue(sinks):
    """Every host refused: TEMPFAIL with the reason, never a bounce; also for mail that comes right afterwards."""
    sulky = sinks(banner=b"554 5.3.2 go away\r\n")
    bench = Bench(SEND)
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
    bench.route(host(sulky))
    bench.until(lambda: bench.results)
    bench.run(bench.job("y@d.test", number=2), count=2)
    assert [r.status for r in bench.results] == [Status.TEMPFAIL] * 2
    assert bench.results[0].text == "554 5.3.2 go away (127.0.0.1)"
    assert sulky.sessions == 1


def test_no_route_says_why(sinks):
    """A Route without hosts ends the waiting mail as lookup says: for good or for now."""
    bench = Bench(SEND)
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
    bench.route(text="550 5.1.2 no such domain")
    bench.until(lambda: bench.results)
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test", number=2),)))
    bench.route(text="451 4.4.3 no answer", temporary=True)
    bench.until(lambda: len(bench.results) == 2)
    assert [(r.status, r.text) for r in bench.results] == [
        (Status.PERMFAIL, "550 5.1.2 no such domain"),
        (Status.TEMPFAIL, "451 4.4.3 no answer"),
    ]


def test_a_kept_connection_that_was_closed_costs_nothing(sinks):
    """A server that closes after each message: the next one goes out over a new connection at once."""
    sink = sinks(end_before_close=1)
    bench = relay(sink)
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
    bench.route(*bench.hosts)
    bench.until(lambda: bench.results)
    for number in (2, 3, 4):
        bench.run(bench.job("x@d.test", number=number), count=number)
    assert [r.status for r in bench.results] == [Status.OK] * 4


def test_a_connection_lost_after_the_dot_is_temporary(sinks):
    """Nobody knows whether the message was taken: it is tried again later, once."""
    sink = sinks(end=None)
    bench = relay(sink)
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
    bench.route(*bench.hosts)
    bench.until(lambda: bench.results)
    assert bench.results[0].status is Status.TEMPFAIL
    assert sink.sessions == 1


def test_a_server_that_always_hangs_up_at_mail_ends_the_attempt(sinks):
    """A connection lost before the dot is tried again, three times at most."""
    sink = sinks(mail=None)
    bench = relay(sink)
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
    bench.route(*bench.hosts)
    bench.until(lambda: bench.results)
    assert (bench.results[0].status, sink.sessions) == (Status.TEMPFAIL, 3)
    assert bench.results[0].text == "Connection closed unexpectedly"


def test_a_server_that_answers_rubbish_is_named_in_the_result(sinks):
    """The operator sees what it said."""
    sink = sinks(mail=b"\x1b[2J rubbish\r\n")
    bench = relay(sink)
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
    bench.route(*bench.hosts)
    bench.until(lambda: bench.results)
    assert bench.results[0].text == "not an SMTP reply: \\x1b[2J rubbish"


def test_sessions_that_end_before_their_first_message_are_a_failure_of_the_server(sinks):
    """A server that greets and then says more than was asked is left alone for a while, not dialled for ever."""
    sink = sinks(banner=b"220 x\r\n250 hello\r\n250 more\r\n")
    bench = relay(sink)
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
    bench.route(*bench.hosts)
    bench.until(lambda: bench.results)
    assert (bench.results[0].status, sink.sessions) == (Status.TEMPFAIL, 1)


def test_broken_opportunistic_tls_falls_back_to_plain_text(sinks):
    """STARTTLS offered but broken: a new connection without TLS delivers."""
    sink = sinks(break_tls=True)
    bench = relay(sink)
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
    bench.route(*bench.hosts)
    bench.until(lambda: bench.results)
    assert (bench.results[0].status, sink.sessions) == (Status.OK, 2)


def test_required_tls_never_falls_back(sinks):
    """With `tls` the mail waits rather than go out in plain text: not offered, or broken."""
    for script in ({}, {"break_tls": True}):
        sink = sinks(**script)
        bench = relay(sink, relay_tls="require")
        bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
        bench.route(*bench.hosts)
        bench.until(lambda bench=bench: bench.results)
        assert bench.results[0].status is Status.TEMPFAIL
        assert not any(c.startswith(b"MAIL") for c in sink.commands)


def test_a_large_body_is_streamed_from_its_descriptor(sinks, tmp_path):
    """A body in a file arrives whole, and its descriptor is closed afterwards."""
    sink = sinks()
    bench = relay(sink)
    body = b"Subject: big\r\n\r\n" + b".line of text\r\n" * 50_000
    path = tmp_path / "body"
    path.write_bytes(body)
    fd = os.open(path, os.O_RDONLY)
    job = Job(7, "send", "a@b.c", (Recipient(7 << 32, "x@d.test", "x@d.test", "", Dsn()),), 1000, len(body), False)
    bench.delivery.deliver_file(m.DeliverFile(job), fd)
    bench.route(*bench.hosts)
    bench.until(lambda: bench.results)
    assert bench.results[0].status is Status.OK
    assert sink.messages[0][2] == body
    with pytest.raises(OSError):
        os.fstat(fd)


def test_a_body_with_a_bare_line_feed_is_never_sent(sinks):
    """A spool entry changed by someone else is refused for good, and no dot ends it at the server."""
    sink = sinks()
    bench = relay(sink)
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test", body=b"Subject: x\r\n\r\na\n.\nMAIL FROM:<evil@x>\r\n"),)))
    bench.route(*bench.hosts)
    bench.until(lambda: bench.results)
    assert bench.results[0].status is Status.PERMFAIL
    assert sink.messages == []


def test_drain_begins_nothing_and_reports(sinks):
    """While draining, new jobs are left unanswered, and Drained follows when nothing is under way."""
    sink = sinks()
    bench = relay(sink)
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
    bench.route(*bench.hosts)
    bench.until(lambda: bench.results)
    bench.delivery.drain()
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test", number=2),)))
    bench.until(lambda: bench.drained)
    assert len(bench.results) == 1


def test_retired_it_ends_what_it_was_given(sinks):
    """Mail that waits for its route, and mail still on its way from queue, is delivered before Drained."""
    sink = sinks()
    bench = relay(sink)
    bench.delivery.start()
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
    bench.delivery.retire()
    bench.delivery._sweep()
    bench.delivery._sweep()
    assert not bench.drained
    bench.route(*bench.hosts)
    bench.until(lambda: bench.results)
    bench.delivery._sweep()
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test", number=2),)))
    bench.until(lambda: len(bench.results) == 2)
    assert not bench.drained
    bench.until(lambda: bench.drained)
    assert [result.status for result in bench.results] == [Status.OK] * 2


def test_retirement_ends(sinks):
    """What takes too long is left to queue, unanswered."""
    bench = Bench(SEND)
    bench.delivery.start()
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
    bench.delivery.retire()
    bench.delivery._retired_until = bench.loop.now()
    bench.until(lambda: bench.drained)
    assert bench.results == []


def test_stats_have_opensmtpds_names():
    """Counters, then Done, both with the client's number."""
    bench = Bench(SEND)
    bench.delivery.show_stats(m.ShowStats(9))
    counters, done = bench.answers
    assert {"mta.session", "mda.running", "mta.task.running"} <= dict(counters.values).keys()
    assert (counters.client, done.client, done.ok) == (9, 9, True)


def test_the_log_line_is_opensmtpds(sinks, capsys):
    """One line a recipient, in the form that log readers know."""
    sink = sinks()
    bench = relay(sink)
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
    bench.route(*bench.hosts)
    bench.until(lambda: bench.results)
    line = next(each for each in capsys.readouterr().err.splitlines() if " mta delivery " in each)
    assert line.split(" mta delivery ")[1] == (
        'evpid=0000000100000001 from=<a@sender.test> to=<x@d.test> rcpt=<-> source="127.0.0.1" '
        'relay="127.0.0.1 (sink.test)" delay=5s result="Ok" stat="250 2.0.0 stored"'
    )


def test_too_many_recipients_go_in_the_next_transaction(sinks):
    """RFC 5321 4.5.3.1.10: 452 after others were taken is about this transaction only."""
    sink = sinks(max_rcpts=2)
    bench = relay(sink)
    bench.delivery.deliver(m.Deliver((bench.job(*(f"r{n}@d.test" for n in range(5))),)))
    bench.route(*bench.hosts)
    bench.until(lambda: len(bench.results) == 5)
    assert {r.status for r in bench.results} == {Status.OK}
    assert [len(rcpts) for _s, rcpts, _b in sink.messages] == [2, 2, 1]


def test_a_silent_server_is_given_up(sinks):
    """Nothing within the I/O timeout: the mail waits in queue, the connection is gone."""
    sink = sinks(banner=b"")
    bench = relay(sink)
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
    bench.route(*bench.hosts)
    (pool,) = bench.delivery._pools.values()
    bench.until(lambda: pool.connections and pool.connections[0].connected)  # as delivery sees it, not the sink
    pool.sweep(bench.loop.now() + 400)
    bench.until(lambda: bench.results)
    assert bench.results[0].status is Status.TEMPFAIL
    assert "Connection timeout" in bench.results[0].text
    assert pool.connections == []


def test_idle_connections_and_agents_end(sinks):
    """After keepalive_secs and agent_idle_secs without work; QUIT is said."""
    sink = sinks()
    bench = relay(sink)
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
    bench.route(*bench.hosts)
    bench.until(lambda: bench.results)
    (pool,) = bench.delivery._pools.values()
    pool.sweep(bench.loop.now() + 5)
    assert len(pool.connections) == 1
    pool.sweep(bench.loop.now() + 11)
    bench.until(lambda: not pool.connections and b"QUIT" in sink.commands)


def test_connections_end_after_their_number_of_mails(sinks):
    """max_mails_per_connection, then a new connection for the rest."""
    sink = sinks()
    bench = Bench(
        ActionSettings("send", "relay", relay_hosts=("x",)),
        mta=MtaLimits(max_mails_per_connection=10, max_connections_per_route=1),
    )
    bench.delivery.deliver(m.Deliver(tuple(bench.job("x@d.test", number=n) for n in range(1, 36))))
    bench.route(host(sink))
    bench.until(lambda: len(bench.results) == 35)
    assert {r.status for r in bench.results} == {Status.OK}
    assert sink.sessions == 4


def test_a_route_that_cannot_be_refreshed_stays(sinks):
    """A temporary DNS failure when the TTL has passed does not stop mail to hosts that were right."""
    sink = sinks()
    bench = Bench(SEND)
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
    bench.route(host(sink))
    bench.until(lambda: bench.results)
    (pool,) = bench.delivery._pools.values()
    pool.expires = 0.0
    bench.delivery.deliver(m.Deliver((bench.job("y@d.test", number=2),)))
    assert len(bench.queries) == 1
    bench.route(text="451 no answer", temporary=True)
    bench.until(lambda: len(bench.results) == 2)
    assert bench.results[1].status is Status.OK


def test_an_unknown_action_keeps_the_mail(sinks):
    """Queue and configuration disagree: TEMPFAIL, nothing is lost."""
    bench = Bench(SEND)
    results = bench.run(bench.job("x@d.test", action="gone"))
    assert {r.status for r in results.values()} == {Status.TEMPFAIL}


def test_no_descriptors_left_is_temporary(sinks, monkeypatch):
    """Without a socket the mail waits; the process lives."""
    sink = sinks()
    bench = relay(sink)

    def none_left(*_args, **_kwargs):
        raise OSError(24, "Too many open files")

    bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
    monkeypatch.setattr("smtpd_ps.delivery.dialer.socket.socket", none_left)
    bench.route(*bench.hosts)
    bench.until(lambda: bench.results)
    assert bench.results[0].status is Status.TEMPFAIL
    assert "Too many open files" in bench.results[0].text
