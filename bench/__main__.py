"""Measure smtpd_ps, OpenSMTPD and Postfix side by side, in turns."""

import argparse
import contextlib
import fcntl
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import kernel, report
from bench.peer import Peer
from bench.servers import PEERS, make_peer, make_site
from bench.summary import Result, failure_of, summarise
from bench.table import doubts, lay_out, number, rows
from bench.turns import turns
from bench.workloads import SOAK, WORKLOADS

OURS = "smtpd_ps"
QUICK = {"workloads": "W1,W1k,W2,W3", "runs": 1, "scale": 0.3}
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(argv: Sequence[str] | None = None) -> int:
    """0 when it ran; 1 when smtpd_ps failed (others' failures are results); 2 could not start; 130 interrupted."""
    arguments = parse(argv)
    if os.getuid() != 0:
        print("bench: has to be run as root: it starts servers with users of their own", file=sys.stderr)
        return 2
    try:
        with interruptible(), alone(arguments.cache), scratch(arguments.work) as work, load_group() as load:
            site = make_site(arguments.cache, work, load)
            peers = [make_peer(site, label) for label in arguments.peers.split(",")]
            versions = {peer.label: peer.version() for peer in peers}
            about: dict[str, Any] = {"machine": report.machine(), "versions": versions, "left_out": {}}
            results = report.read(arguments.json) if arguments.add and arguments.json.exists() else []
            for line in (*versions.values(), str(about["machine"])):
                print(line)
            measure_all(arguments, peers, about, results)
    except KeyboardInterrupt:
        print("bench: interrupted; everything is stopped and removed", file=sys.stderr)
        return 130
    except (RuntimeError, ValueError, BlockingIOError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    show(results)
    return 1 if any(result.failure for result in results if result.peer.partition("+")[0] == OURS) else 0


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    ask = argparse.ArgumentParser(prog="bench", description=__doc__)
    names = ", ".join(PEERS)
    ask.add_argument("--peers", default=f"{OURS},opensmtpd+tuned,postfix", help=f"of {names}, each also with +tuned")
    usual = ",".join(name for name in WORKLOADS if name != SOAK)
    ask.add_argument("--workloads", default=usual, help=f"of the list in docs/PERFORMANCE.md, and {SOAK}")
    ask.add_argument("--runs", type=int, default=5)
    ask.add_argument("--scale", type=float, default=1.0, help="of the numbers of messages and sessions")
    ask.add_argument("--quick", action="store_true", help=f"the same as {QUICK}")
    ask.add_argument("--json", type=Path, default=Path("bench-results.json"))
    ask.add_argument("--add", action="store_true", help="keep the results that the JSON file has")
    ask.add_argument("--work", type=Path, default=Path("/var/tmp"), help="on the file system to be measured")
    ask.add_argument("--cache", type=Path, default=Path(os.environ.get("BENCH_CACHE", "/var/cache/smtpd_ps-bench")))
    arguments = ask.parse_args(argv)
    if arguments.quick:
        vars(arguments).update(QUICK)
    for workload in arguments.workloads.split(","):
        if workload not in WORKLOADS:
            ask.error(f"no workload {workload!r}: there are {', '.join(WORKLOADS)}")
    return arguments


def measure_all(
    arguments: argparse.Namespace, peers: Sequence[Peer], about: dict[str, Any], results: list[Result]
) -> None:
    """Every turn; `results` grows and is written after each."""
    by_label = {peer.label: peer for peer in peers}
    for turn in turns(arguments.workloads.split(","), list(by_label), arguments.runs):
        begin = time.time()
        figures: dict[str, Any] = {}
        try:
            figures = WORKLOADS[turn.workload].measure(by_label[turn.peer], arguments.scale)
            failure = failure_of(figures)
        except NotImplementedError as error:
            about["left_out"][f"{turn.workload} {turn.peer}"] = str(error)
            print(f"{turn.workload:9} {turn.peer:16} left out: {error}", flush=True)
            continue
        except Exception as error:  # one server's failure is a result, and the others go on
            failure = " | ".join(f"{type(error).__name__}: {error}".splitlines())[:500]
        seconds = round(time.time() - begin, 1)
        results.append(Result(turn.workload, turn.peer, turn.number, figures, failure, round(begin), seconds))
        report.write(arguments.json, about, results)
        headlines = WORKLOADS[turn.workload].headlines
        brief = [f"{h.text} {number(figures[h.figure])}" for h in headlines if h.figure in figures]
        print(f"{turn.workload:9} {turn.peer:16} {failure or '; '.join(brief)}", flush=True)


def show(results: Sequence[Result]) -> None:
    """The table, and what to think of it."""
    headlines = {name: workload.headlines for name, workload in WORKLOADS.items()}
    labels = list(dict.fromkeys(result.peer for result in sorted(results, key=lambda r: r.peer != OURS)))
    print("\nMedian (least-most); a ratio above 1 is in favour of", f"{OURS}.\n")
    print(lay_out(list(rows(summarise(results), headlines, labels, OURS))))
    for line in doubts(results):
        print(line)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """The first signal ends the run through all its clean-up; later ones do not disturb that."""

    def stop(_signal: int, _frame: object) -> None:
        for ending in ENDINGS:
            signal.signal(ending, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {ending: signal.signal(ending, stop) for ending in ENDINGS}
    try:
        yield
    finally:
        for ending, handler in before.items():
            signal.signal(ending, handler)


@contextlib.contextmanager
def alone(cache: Path) -> Iterator[None]:
    """Ports are fixed, and two benchmarks would measure each other. Raises BlockingIOError."""
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(f"another benchmark is running (it holds {lock.name})") from None
        kernel.end_leftovers()
        yield


@contextlib.contextmanager
def scratch(above: Path) -> Iterator[Path]:
    """A folder that the servers' users can enter, removed afterwards."""
    for old in above.glob(f"{kernel.PREFIX}-*"):
        if kernel.owner_is_gone(old) and old.lstat().st_uid == 0:
            shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{kernel.PREFIX}-{os.getpid()}-", dir=above))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def load_group() -> Iterator[kernel.Group]:
    """Clients, sinks and control commands; what is left of them is ended."""
    group = kernel.Group("load")
    try:
        yield group
    finally:
        group.end()


if __name__ == "__main__":
    sys.exit(main())
