"""What the operator is shown of routes and hosts, and what can be done about them."""

import socket

from delivery_bench import SEND, Bench, host

from smtpd_ps.cli.network_shows import lines
from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ActionSettings
from smtpd_ps.contract.values import RouteHost, RouteSource, Status


def shown(bench: Bench, part: str) -> list[str]:
    """What smtpctl_ps would print."""
    answers: list[m.Message] = []
    bench.delivery.network_desk.answer = answers.append
    bench.delivery.network_desk.show(m.ShowNetwork(5, part))
    assert isinstance(answers[-1], m.Done) and answers[-1].ok
    assert all(row.client == 5 for row in answers)
    return [line for row in answers[:-1] for line in lines(row)]


def down() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


def fail_one(bench: Bench, port: int, number: int = 1) -> None:
    before = len(bench.results)
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test", number=number),)))
    if bench.queries:
        bench.route(RouteHost("sink.test", ("127.0.0.1",), port))
    bench.until(lambda: len(bench.results) > before)


def test_a_failing_route_is_shown_and_resumed(capsys):
    """OpenSMTPD's line, D for disabled; resume route enables it, by its number alone; the log says so."""
    bench = Bench(SEND)
    fail_one(bench, down())
    (line,) = shown(bench, "routes")
    assert line.startswith("1. [] <-> 127.0.0.1 (sink.test) NDQ- nconn=0 nerror=1 penalty=1 timeout=1")
    answers: list[m.Message] = []
    bench.delivery.network_desk.answer = answers.append
    bench.delivery.network_desk.resume(m.ResumeRoute(5, 2))
    bench.delivery.network_desk.resume(m.ResumeRoute(5, 1))
    assert [answer.count for answer in answers] == [0, 1]
    assert shown(bench, "routes") == ["1. [] <-> 127.0.0.1 (sink.test) N--- nconn=0 nerror=0 penalty=0 timeout=-"]
    log = capsys.readouterr().err
    assert "smtp-out: Disabling route [] <-> 127.0.0.1 (sink.test) for 15s" in log or "for 14s" in log
    assert "smtp-out: Enabling route [] <-> 127.0.0.1 (sink.test) per admin request" in log


def test_routes_of_several_processes_have_different_numbers():
    """So that resume route means one."""
    bench = Bench(SEND, instance=1)
    fail_one(bench, down())
    assert shown(bench, "routes")[0].startswith("1000001. ")


def test_hosts_relays_and_their_last_words(sinks):
    """Connections, ages, the relay in OpenSMTPD's words, and the last reply of the domain."""
    sink = sinks()
    action = ActionSettings("send", "relay", relay_hosts=("x",), relay_helo="me.test", relay_tls="never")
    bench = Bench(action)
    bench.delivery.deliver(m.Deliver((bench.job("x@D.test"),)))
    bench.route(host(sink), sources=(RouteSource("127.0.0.1"),))
    bench.until(lambda: bench.results)
    assert shown(bench, "hosts") == ["127.0.0.1 sink.test refcount=1 nconn=1 lastconn=0s"]
    assert shown(bench, "relays") == [
        f"[relay:sink.test,port={sink.port},smtp+notls,mx,heloname=me.test] refcount=1 ntask=0 nconn=1 lastconn=0s "
        "timeout=- wait=",
        "  connector 127.0.0.1 refcount=1 nconn=1 lastconn=0s timeout=- flags=",
    ]
    assert shown(bench, "hoststats") == ["d.test|1005|250 2.0.0 stored"]
    assert shown(bench, "routes")[0].startswith(
        "1. 127.0.0.1 <-> 127.0.0.1 (sink.test) ---- nconn=1 nerror=0 penalty=0"
    )


def test_a_secret_is_in_no_row(sinks):
    """A relay with credentials shows the user at most."""
    bench = Bench(ActionSettings("send", "relay", relay_hosts=("x",), relay_auth_table="t"))
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
    bench.route(RouteHost("sink.test", ("127.0.0.1",), down(), 0, "require", False, "me", "hidden"))
    bench.until(lambda: bench.results)
    text = "\n".join(line for part in ("hosts", "hoststats", "relays", "routes") for line in shown(bench, part))
    assert "auth=t:me" in text and "hidden" not in text


def test_a_blocked_source_is_not_used(sinks):
    """For that domain alone, whether the source was chosen or is the kernel's; resumed it is used again."""
    sink = sinks()
    bench = Bench(SEND)
    bench.delivery.network_desk.answer = lambda _answer: None
    block = bench.delivery.network_desk.block
    block(m.BlockRelay(5, "127.0.0.1", "D.test", True))
    assert shown(bench, "paused") == ["127.0.0.1 -> d.test"]
    bench.delivery.network_desk.answer = lambda _answer: None
    for number, sources in ((1, ()), (2, (RouteSource("127.0.0.1"),))):
        bench.delivery.deliver(m.Deliver((bench.job("x@d.test", number=number),)))
        if bench.queries:
            bench.route(host(sink), sources=sources)
        else:
            bench.delivery._pools["send", "d.test"].sources = sources
        bench.until(lambda count=number: len(bench.results) == count)
        assert (bench.results[-1].status, bench.results[-1].text) == (
            Status.TEMPFAIL, "All routes to destination blocked")  # fmt: skip
    bench.delivery.deliver(m.Deliver((bench.job("x@other.test", number=3),)))
    bench.route(host(sink))
    bench.until(lambda: len(bench.results) == 3)
    assert bench.results[-1].status is Status.OK
    block(m.BlockRelay(5, "127.0.0.1", "d.test", False))
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test", number=4),)))
    bench.until(lambda: len(bench.results) == 4)
    assert bench.results[-1].status is Status.OK


def test_mail_that_waited_for_a_domain_is_due_when_it_takes_some(sinks):
    """Up to max-deferred envelopes of it are named to queue, once."""
    sink = sinks()
    bench = Bench(SEND, max_deferred=2)
    port = down()
    for number in (1, 2, 3):
        fail_one(bench, port, number)
    assert bench.tried == []
    bench.delivery._pools["send", "d.test"].expires = 0.0
    bench.delivery.deliver(m.Deliver((bench.job("y@d.test", number=4),)))
    bench.route(host(sink))
    bench.until(lambda: len(bench.results) == 4)
    assert bench.results[-1].status is Status.OK
    assert bench.tried == [m.TryNow(((1 << 32) | 1, (2 << 32) | 1))]
