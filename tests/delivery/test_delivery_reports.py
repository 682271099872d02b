"""What delivery tells lookup of sessions of an action with a filter."""

import os

import pytest
from delivery_bench import relay

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import FILTER_EVENTS
from smtpd_ps.contract.values import Dsn, Job, Recipient
from smtpd_ps.delivery.outgoing_reports import SessionReports
from smtpd_ps.pure.reporting_client import ReportingClient

EVERY = (1 << len(FILTER_EVENTS)) - 1


def hooked(bench, events: int = EVERY) -> list[m.OutgoingReport]:
    """The reports of the action, where programs want these events."""
    told: list[m.OutgoingReport] = []
    bench.delivery.reporting.send = told.append
    bench.delivery.outgoing_hooks(m.OutgoingHooks("send", events, 3))
    return told


def test_a_body_in_a_file(sinks, tmp_path):
    """A streamed body is one dot, and no line of it is told; nothing is longer than the message may be."""
    sink = sinks()
    bench = relay(sink)
    told = hooked(bench)
    body = b"Subject: big\r\n\r\n" + b".line of text\r\n" * 50_000
    path = tmp_path / "body"
    path.write_bytes(body)
    fd = os.open(path, os.O_RDONLY)
    job = Job(7, "send", "a@b.c", (Recipient(7 << 32, "x@d.test", "x@d.test", "", Dsn()),), 1000, len(body), False)
    bench.delivery.deliver_file(m.DeliverFile(job), fd)
    bench.route(*bench.hosts)
    bench.until(lambda: bench.results)
    (pool,) = bench.delivery._pools.values()
    pool.connections[0].abort()
    bench.until(lambda: told[-1].event == "link-disconnect")
    assert len({report.session for report in told}) == 1
    assert [r.parameters for r in told if r.event == "protocol-client" and r.parameters[0].startswith(".")] == [(".",)]
    assert ("tx-commit", ("00000007", str(len(body)))) in [(r.event, r.parameters) for r in told]
    assert ("tx-envelope", ("00000007", "0000000700000000")) in [(r.event, r.parameters) for r in told]
    assert max(len(text) for report in told for text in report.parameters) <= 4096
    session = SessionReports(m.OutgoingHooks("send", EVERY, 3), told.append)
    session.connected("x", ("::1", 1), ("::1", 25))
    session.tell("protocol-server", ("x" * 5000,))
    assert told[-2].parameters == ("x", "pass", "[::1]:1", "[::1]:25")
    assert len(told[-1].parameters[0]) == 4096


def test_only_what_is_wanted_is_told(sinks):
    """And where the session begins and ends, which lookup must know; a silent server is a timeout."""
    sink = sinks(banner=b"")
    bench = relay(sink)
    told = hooked(bench, 1 << FILTER_EVENTS.index("timeout"))
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
    bench.route(*bench.hosts)
    bench.until(lambda: told)  # connected, as delivery sees it
    (pool,) = bench.delivery._pools.values()
    pool.sweep(bench.loop.now() + 400)
    bench.until(lambda: bench.results)
    assert [r.event for r in told][:3] == ["link-connect", "timeout", "link-disconnect"]


@pytest.mark.parametrize("events", [None, 0])
def test_without_a_filter_nothing_is_told(sinks, events):
    """Neither for an action that has none, nor where no program wants anything; the plain machine is used."""
    bench = relay(sinks())
    told = [] if events is None else hooked(bench, events)
    bench.delivery.outgoing_hooks(m.OutgoingHooks("other", EVERY, 3))
    assert "other" not in bench.delivery.reporting.hooks
    bench.delivery.deliver(m.Deliver((bench.job("x@d.test"),)))
    bench.route(*bench.hosts)
    bench.until(lambda: bench.results)
    (pool,) = bench.delivery._pools.values()
    assert not isinstance(pool.connections[0].client, ReportingClient)
    assert told == []
