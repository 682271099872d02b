"""Delivery to this host: over LMTP to a small server in a thread, and by agents, which are fakes."""

import socket

from delivery_bench import BODY, MAILDIR, Bench, FakeAgent

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ActionSettings
from smtpd_ps.contract.values import Dsn, Job, Recipient, RouteHost, Status

LMTP = ActionSettings("receive", "lmtp", lmtp_destination="/run/lmtp", lmtp_rcpt_to=True)


def unix_lmtp(sinks, tmp_path, action=LMTP, **script):
    path = str(tmp_path / "lmtp")
    sink = sinks(path, lmtp=True, **script)
    bench = Bench(action)

    def answer(message) -> None:
        assert message == m.LmtpConnect(message.request, "receive")
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        bench.loop.call_soon(lambda: bench.delivery.dials.connected(m.LmtpConnected(message.request), sock.detach()))

    bench.delivery.dials.ask = answer
    return bench, sink


def test_lmtp_over_the_parents_socket(sinks, tmp_path):
    """LHLO, the address with rcpt-to, and the local headers first; each destination its own copy."""
    bench, sink = unix_lmtp(sinks, tmp_path)
    results = bench.run(bench.job("John@d.test", "b@d.test", action="receive", user="cyrus"))
    assert {r.status for r in results.values()} == {Status.OK}
    assert sink.commands[0] == b"LHLO client.test"
    assert sorted((rcpts, body) for _s, rcpts, body in sink.messages) == [
        ([name], b"Return-Path: <a@sender.test>\r\nDelivered-To: " + name + b"\r\n" + BODY)
        for name in (b"John@d.test", b"b@d.test")
    ]


def test_lmtp_without_rcpt_to_names_the_user(sinks, tmp_path):
    """RCPT is the user, two users behind one address share a transaction and are answered one by one."""
    action = ActionSettings("receive", "lmtp", lmtp_destination="/run/lmtp")
    bench, sink = unix_lmtp(sinks, tmp_path, action, end=b"250 2.0.0 in\r\n")
    rcpts = tuple(Recipient(5 << 32 | n, "list@d.test", "list@d.test", f"user{n}", Dsn()) for n in (1, 2))
    bench.run(Job(5, "receive", "", rcpts, 1000, len(BODY), False, BODY))
    assert [(r, b) for _s, r, b in sink.messages] == [([b"user1", b"user2"], b"Delivered-To: list@d.test\r\n" + BODY)]
    assert [r.status for r in bench.results] == [Status.OK, Status.OK]


def test_lmtp_over_tcp(sinks):
    """An address is connected to at once; a host name is asked of lookup, with no domain."""
    sink = sinks(lmtp=True)
    for destination in (f"127.0.0.1:{sink.port}", f"localhost:{sink.port}"):
        bench = Bench(ActionSettings("receive", "lmtp", lmtp_destination=destination, lmtp_rcpt_to=True))
        bench.delivery.deliver(m.Deliver((bench.job("x@d.test", action="receive"),)))
        assert [(q.action, q.domain) for q in bench.queries] == ([("receive", "")] if "l" in destination else [])
        bench.route(RouteHost("localhost", ("127.0.0.1",), sink.port, 0, "never", True))
        bench.until(lambda bench=bench: bench.results)
        assert bench.results[0].status is Status.OK
    assert {command for command in sink.commands if b"LHLO" in command} == {b"LHLO client.test"}


def test_lmtp_socket_refused_by_the_parent():
    """No socket: the mail waits, with the parent's words."""
    bench = Bench(LMTP)
    bench.delivery.dials.ask = lambda message: bench.loop.call_soon(
        lambda: bench.delivery.agent_refused(m.AgentRefused(message.request, True, "No such file or directory"))
    )
    bench.run(bench.job("x@d.test", action="receive"))
    assert bench.results[0].status is Status.TEMPFAIL
    assert "No such file" in bench.results[0].text


def test_a_delivered_to_of_the_same_address_is_a_loop(sinks, tmp_path):
    """Compared without case, for local delivery only."""
    bench, sink = unix_lmtp(sinks, tmp_path)
    body = b"delivered-TO:  X@D.test\r\n" + BODY
    results = bench.run(bench.job("x@d.test", "y@d.test", action="receive", body=body))
    assert [results[1 << 32 | n].status for n in (1, 2)] == [Status.LOOP, Status.OK]
    assert len(sink.messages) == 1


def test_an_agent_serves_all_mail_of_its_user(sinks):
    """One AgentStart for a user and action; results come back as the agent gives them."""
    bench = Bench(MAILDIR)
    jobs = tuple(bench.job("ann@d.test", action="box", number=n) for n in range(1, 40))
    bench.delivery.deliver(m.Deliver(jobs))
    bench.until(lambda: bench.asked)
    assert bench.asked == [m.AgentStart(bench.asked[0].request, "ann", "box")]
    agent = FakeAgent(bench)
    bench.delivery.agents.ready(m.AgentReady(bench.asked[0].request), agent.fd)
    bench.until(lambda: len(bench.results) == 39)
    assert {r.text for r in bench.results} == {"Delivered"}
    assert agent.jobs[0].dest == "ann@d.test"
    agent.channel.close()


def test_a_refused_agent_fails_its_mail():
    """Unknown users are permanent, troubles of this host temporary."""
    bench = Bench(MAILDIR)
    for number, temporary in ((1, False), (2, True)):
        bench.delivery.deliver(m.Deliver((bench.job("ann@d.test", action="box", number=number),)))
        bench.until(lambda number=number: len(bench.asked) == number)
        bench.delivery.agent_refused(m.AgentRefused(bench.asked[-1].request, temporary, "unknown user"))
    bench.until(lambda: len(bench.results) == 2)
    assert [r.status for r in bench.results] == [Status.PERMFAIL, Status.TEMPFAIL]


def test_a_lost_agent_leaves_its_mail_for_later():
    """What an agent had and did not answer is TEMPFAIL; the rest goes to a new agent."""
    bench = Bench(MAILDIR)
    jobs = tuple(bench.job("ann@d.test", action="box", number=n) for n in range(1, 101))
    bench.delivery.deliver(m.Deliver(jobs[:50]))
    bench.delivery.deliver(m.Deliver(jobs[50:]))
    bench.until(lambda: bench.asked)
    agent = FakeAgent(bench)
    agent.answer = False
    bench.delivery.agents.ready(m.AgentReady(bench.asked[0].request), agent.fd)
    bench.until(lambda: len(agent.jobs) == 64)
    agent.channel.send(m.AgentResult(agent.jobs[0].job, Status.OK, "Delivered"))
    bench.until(lambda: len(agent.jobs) == 65)
    agent.channel.close()
    bench.until(lambda: len(bench.asked) == 2)
    second = FakeAgent(bench)
    bench.delivery.agents.ready(m.AgentReady(bench.asked[1].request), second.fd)
    bench.until(lambda: len(bench.results) == 100)
    assert sum(r.status is Status.TEMPFAIL for r in bench.results) == 64
    assert sum(r.status is Status.OK for r in bench.results) == 36
    second.channel.close()


def test_agents_are_bounded():
    """With one agent allowed, the second user waits until the first has nothing to do."""
    bench = Bench(MAILDIR, max_agents=1)
    bench.delivery.deliver(
        m.Deliver(
            tuple(bench.job(f"{u}@d.test", action="box", number=n, user=u) for n, u in enumerate(("ann", "bob"), 1))
        )
    )
    bench.until(lambda: bench.asked)
    assert [q.user for q in bench.asked] == ["ann"]
    first = FakeAgent(bench)
    bench.delivery.agents.ready(m.AgentReady(bench.asked[0].request), first.fd)
    bench.until(lambda: len(bench.asked) == 2)
    assert bench.asked[1].user == "bob"
    bench.until(lambda: first.closed)
    second = FakeAgent(bench)
    bench.delivery.agents.ready(m.AgentReady(bench.asked[1].request), second.fd)
    bench.until(lambda: len(bench.results) == 2)
    second.channel.close()
