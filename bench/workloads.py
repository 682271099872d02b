"""The workloads, one function a kind: each takes a stopped server and returns the figures of one run."""

import shutil
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench import clients, kernel, tls_files
from bench.durability import durability
from bench.mailbox import make_mailbox
from bench.meter import Meter
from bench.peer import Peer, Scenario
from bench.sinks import sinking, watch
from bench.smtp_source import send
from bench.table import Headline

Figures = dict[str, Any]
SETTLE_SECS = 15.0


def through(
    peer: Peer,
    scale: float,
    *,
    kind: str = "relay",
    count: int,
    size_bytes: int = 4096,
    sessions: int = 20,
    keep: bool = False,
    burst: bool = False,
    recipients: int = 1,
) -> Figures:
    """Mail in with smtp-source, out to a sink or a Maildir, timed as a whole."""
    count = max(1, round(count * scale))
    if kind == "maildir":
        return _to_maildir(peer, count, size_bytes, sessions, patience(scale))
    socket = str(peer.site.work / "lmtp") if kind == "lmtp" else ""
    expected = count * recipients
    with (
        sinking(peer.site, socket, count_recipients=recipients > 1) as sink,
        peer.running(Scenario(kind, lmtp_socket=socket)) as cold_secs,
    ):
        figures = _settled(peer, cold_secs)
        meter = Meter(peer)
        sent = send(peer.site, count, size_bytes, sessions, recipients, keep, burst, patience(scale))
        sink.wait(expected, 180.0)
        figures |= rates(sent.begin, sent.end, sink.last, sink.count, expected)
        figures |= {"clients_failed": sent.failed, "load_error": sent.error}
        return figures | _after(peer, meter, sink.count)


def _to_maildir(peer: Peer, count: int, size_bytes: int, sessions: int, patience_secs: float) -> Figures:
    maildir = make_mailbox(peer)
    try:
        with peer.running(Scenario("maildir", maildir=str(maildir))) as cold_secs:
            figures = _settled(peer, cold_secs)
            meter = Meter(peer)
            sent = send(peer.site, count, size_bytes, sessions, patience_secs=patience_secs)
            arrived, delivered = watch(maildir / "new", count, 180.0)
            figures |= rates(sent.begin, sent.end, arrived, delivered, count)
            figures |= {"clients_failed": sent.failed, "load_error": sent.error}
            return figures | _after(peer, meter, delivered)
    finally:
        shutil.rmtree(maildir.parent, ignore_errors=True)


def patience(scale: float) -> float:
    """Seconds for all of the load: a client whose SYN or last ACK was dropped may hang for ever."""
    return max(15.0, 60.0 * scale)


def _settled(peer: Peer, cold_secs: float) -> Figures:
    time.sleep(1.0)
    return {"cold_start_s": cold_secs, "pss_idle_kib": kernel.pss_kib(peer.pids())}


def soak(peer: Peer, scale: float, count: int = 100_000, size_bytes: int = 4096, steps: int = 10) -> Figures:
    """Memory and descriptors while very much mail goes through; `growth` is of the second half."""
    share = max(1, round(count * scale / steps))
    with sinking(peer.site) as sink, peer.running(Scenario("relay")) as cold_secs:
        figures = _settled(peer, cold_secs)
        meter = Meter(peer)
        failed, errors, pss, fds = 0, [], [], []
        begin = time.perf_counter()
        for step in range(1, steps + 1):
            sent = send(peer.site, share, size_bytes, keep=True, patience_secs=120.0)
            failed += sent.failed
            errors += [sent.error] if sent.error else []
            if not sink.wait(step * share, 120.0):
                break
            pids = peer.pids()
            pss.append(kernel.pss_kib(pids))
            fds.append(kernel.descriptors(pids))
        figures |= rates(begin, sent.end, sink.last, sink.count, steps * share)
        figures |= {"clients_failed": failed, "load_error": "; ".join(errors), "pss_kib": pss, "descriptors": fds}
        figures |= {"pss_growth_kib": pss[-1] - pss[len(pss) // 2], "descriptor_growth": fds[-1] - fds[len(fds) // 2]}
        return figures | _after(peer, meter, sink.count)


def _after(peer: Peer, meter: Meter, delivered: int) -> Figures:
    """What is to be seen when all has arrived: CPU (tidying the queue included), memory, processes."""
    begin = time.perf_counter()
    emptied = -1.0
    while time.perf_counter() - begin < SETTLE_SECS:
        if peer.queued() == 0:
            emptied = time.perf_counter() - begin
            break
        time.sleep(0.05)
    figures: Figures = meter.read(delivered)
    pids = peer.pids()
    return figures | {
        "queue_empty_after_s": emptied,
        "pss_after_kib": kernel.pss_kib(pids),
        "processes": len(pids),
        "cpu_s_per_1000_by_role": meter.by_role(delivered),
    }


def rates(begin: float, accepted: float, arrived: float, delivered: int, expected: int) -> Figures:
    """From moments to messages a second; recipients a second where a message has many."""
    return {
        "accept_per_s": expected / (accepted - begin),
        "end_to_end_per_s": delivered / (arrived - begin) if delivered else 0.0,
        "delivered": delivered,
        "expected": expected,
    }


def percentiles(name: str, seconds: Sequence[float]) -> Figures:
    """The 50th, 95th and 99th, in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100)
    return {f"{name}_p{p}_ms": cuts[p - 1] * 1000 for p in (50, 95, 99)}


def latency(peer: Peer, scale: float, count: int = 40, size_bytes: int = 4096) -> Figures:
    """One message at a time."""
    count = max(5, round(count * scale))
    with sinking(peer.site) as sink, peer.running(Scenario("relay")):
        time.sleep(1.0)
        clients.one_by_one(sink, 5, size_bytes)
        meter = Meter(peer)
        accepted, arrived = clients.one_by_one(sink, count, size_bytes)
        return meter.read(count) | percentiles("accepted", accepted) | percentiles("arrived", arrived)


def submission(peer: Peer, scale: float, count: int = 500, size_bytes: int = 4096, sessions: int = 10) -> Figures:
    """STARTTLS, AUTH PLAIN against a $6$ hash, one message a session."""
    count = max(sessions, round(count * scale))
    with sinking(peer.site) as sink, peer.running(_with_tls(peer)):
        time.sleep(1.0)
        meter = Meter(peer)
        begin, end, times = clients.submissions(count, size_bytes, sessions, tls_files.USER, tls_files.PASSWORD)
        sink.wait(count, 120.0)
        figures = rates(begin, end, sink.last, sink.count, count) | meter.read(count)
        return figures | percentiles("session", times)


def _with_tls(peer: Peer) -> Scenario:
    folder = peer.site.work / "tls"
    folder.mkdir(exist_ok=True)
    cert, key = tls_files.make_certificate(folder)
    return Scenario("submission", cert=cert, key=key, credentials=tls_files.make_credentials(folder))


def idle(peer: Peer, scale: float, count: int = 1000, at_once: int = 5, secure: bool = False) -> Figures:
    """Sessions that have said EHLO, under STARTTLS where `secure`, and then wait."""
    count = max(at_once, round(count * scale))
    with peer.running(_with_tls(peer) if secure else Scenario("relay")):
        time.sleep(2.0)
        before, few = kernel.pss_kib(peer.pids()), len(peer.pids())
        meter = Meter(peer)
        crowd = clients.IdleSecure(count, at_once) if secure else clients.Idle(count, at_once)
        try:
            spent = meter.read(count)
            time.sleep(1.0)
            after = kernel.pss_kib(peer.pids())
            return {
                "asked": count,
                "greeted": crowd.greeted,
                "refused": crowd.refused,
                "greeting_s": crowd.greeting_secs,
                "pss_before_kib": before,
                "pss_with_kib": after,
                "kib_per_session": (after - before) / max(1, crowd.greeted),
                "processes_before": few,
                "processes_with": len(peer.pids()),
                "cpu_s": spent["cpu_s"],
                "foreign_cpu_share": spent["foreign_cpu_share"],
            }
        finally:
            crowd.close()


def backlog(peer: Peer, scale: float, count: int = 10_000, size_bytes: int = 4096) -> Figures:
    """Mail for a closed port: what it costs to take, to keep, to find again after a restart, and to be rid of."""
    count = max(1, round(count * scale))
    scenario = Scenario("relay")
    with peer.running(scenario):
        time.sleep(1.0)
        meter = Meter(peer)
        sent = send(peer.site, count, size_bytes, keep=True, patience_secs=120.0)
        figures: Figures = {
            "accept_per_s": count / (sent.end - sent.begin),
            "clients_failed": sent.failed,
            "load_error": sent.error,
            "accept_cpu_s_per_1000": meter.read(count)["cpu_s_per_1000"],
        }
        time.sleep(10.0)
        queued = peer.queued()
        figures |= {"pss_backlog_kib": kernel.pss_kib(peer.pids()), "queued": queued} | kernel.disk(peer.spool)
        peer.stop()
        banner_secs = peer.start(scenario, fresh=False)
        begin = time.perf_counter()
        while not peer.loaded(queued) and time.perf_counter() - begin < 120:
            time.sleep(0.25)
        figures |= {"restart_banner_s": banner_secs, "restart_loaded_s": banner_secs + time.perf_counter() - begin}
        time.sleep(5.0)
        figures["pss_restarted_kib"] = kernel.pss_kib(peer.pids())
        with sinking(peer.site) as sink:
            meter = Meter(peer)
            begin = time.perf_counter()
            flushes = 0
            while flushes < 15:  # ask again where one request does not move everything
                flushes += 1
                peer.flush()
                if sink.wait(queued, 240.0, stall_secs=10.0):
                    break
            drain_secs = max(sink.last - begin, 0.001)
            return figures | {
                "flushes": flushes,
                "expected": count,
                "delivered": sink.count,
                "drain_s": drain_secs,
                "drain_per_s": sink.count / drain_secs,
                "drain_cpu_s_per_1000": meter.read(sink.count)["cpu_s_per_1000"],
            }


@dataclass(frozen=True, slots=True)
class Workload:
    """What is run, how it is described, and which of its figures are in the table."""

    text: str
    measure: Callable[[Peer, float], Figures]
    headlines: tuple[Headline, ...]


END_TO_END = Headline("end_to_end_per_s", "end to end, per s", more_is_better=True)
ACCEPT = Headline("accept_per_s", "accepted, per s", more_is_better=True)
CPU = Headline("cpu_s_per_1000", "CPU s per 1000")
BULK = (END_TO_END, ACCEPT, CPU)
MEMORY = (Headline("pss_idle_kib", "PSS idle, KiB"), Headline("pss_after_kib", "PSS afterwards, KiB"))
COLD = Headline("cold_start_s", "start to banner, s")
CROWD = (
    Headline("greeted", "greeted", more_is_better=True),
    Headline("kib_per_session", "KiB a session"),
    Headline("greeting_s", "all greeted after, s"),
)
PROMISES = (Headline("syncs_per_message", "syncs a message"), Headline("calls_per_message", "traced calls a message"))
KIB = 1024
SOAK = "soak"

WORKLOADS: dict[str, Workload] = {
    "W1": Workload(
        "relay 2000 x 4 KiB, 20 clients, a connection a message", partial(through, count=2000), (*BULK, *MEMORY, COLD)
    ),
    "W1k": Workload(
        "relay 2000 x 4 KiB, 20 clients, connections kept (100 messages each)",
        partial(through, count=2000, keep=True),
        BULK,
    ),
    "W1s": Workload(
        "relay 200 x 4 KiB, one smtp-source with -s 20: bursts of connections",
        partial(through, count=200, burst=True),
        (END_TO_END,),
    ),
    "W1b": Workload(
        "relay 40 x 4 KiB, one by one",
        latency,
        (
            Headline("accepted_p50_ms", "to the 250, p50 ms"),
            Headline("accepted_p95_ms", "to the 250, p95 ms"),
            Headline("arrived_p50_ms", "to the sink, p50 ms"),
            Headline("arrived_p95_ms", "to the sink, p95 ms"),
        ),
    ),
    "W1f": Workload(
        "relay 2000 x 4 KiB through a filter program that is asked in every phase and given every line",
        partial(through, kind="filtered", count=2000),
        (*BULK, *MEMORY),
    ),
    "W1c": Workload("relay 1000 x 64 KiB", partial(through, count=1000, size_bytes=64 * KIB), BULK),
    "W1d": Workload("relay 100 x 1 MiB", partial(through, count=100, size_bytes=KIB * KIB), BULK),
    "W2": Workload("2000 x 4 KiB to LMTP on a Unix socket", partial(through, kind="lmtp", count=2000), BULK),
    "W3": Workload("1000 x 4 KiB to one Maildir", partial(through, kind="maildir", count=1000), BULK),
    "W4": Workload(
        "one message, 500 recipients",
        partial(through, count=1, sessions=1, recipients=500),
        (Headline("end_to_end_per_s", "recipients per s", more_is_better=True),),
    ),
    "W5": Workload(
        "500 sessions of STARTTLS, AUTH PLAIN ($6$), one message; 10 at a time",
        submission,
        (
            Headline("accept_per_s", "sessions per s", more_is_better=True),
            Headline("session_p50_ms", "a session, p50 ms"),
            Headline("session_p95_ms", "a session, p95 ms"),
            CPU,
        ),
    ),
    "W6": Workload("1000 idle sessions after EHLO, opened 5 at a time", idle, CROWD),
    "W6s": Workload("1000 idle sessions after EHLO, opened all at once", partial(idle, at_once=1000), CROWD),
    "W6t": Workload("1000 idle sessions under STARTTLS, opened 5 at a time", partial(idle, secure=True), CROWD),
    "W7": Workload(
        "10,000 messages for a closed port, connections kept; restart; drain",
        backlog,
        (
            ACCEPT,
            Headline("disk_allocated_bytes", "bytes on disk"),
            Headline("pss_backlog_kib", "PSS with backlog, KiB"),
            Headline("restart_loaded_s", "restart to loaded, s"),
            Headline("drain_s", "drain, s"),
            Headline("drain_cpu_s_per_1000", "drain, CPU s per 1000"),
        ),
    ),
    SOAK: Workload(
        "relay 100,000 x 4 KiB, connections kept: nothing may grow",
        soak,
        (
            END_TO_END,
            CPU,
            *MEMORY,
            Headline("pss_growth_kib", "PSS, growth over the second half, KiB"),
            Headline("descriptor_growth", "descriptors, growth over the second half"),
        ),
    ),
    "W8": Workload("system calls that a promise costs, by strace: relay 100, one by one", durability, PROMISES),
    "W8load": Workload("the same: relay 1000, 20 clients", partial(durability, count=1000, sessions=20), PROMISES),
    "W8lmtp": Workload("the same: LMTP", partial(durability, kind="lmtp"), PROMISES),
    "W8maildir": Workload("the same: Maildir", partial(durability, kind="maildir"), PROMISES),
}
