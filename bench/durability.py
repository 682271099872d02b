"""Which system calls a message costs in which process, counted by strace from outside (W8)."""

import contextlib
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench import kernel
from bench.mailbox import make_mailbox
from bench.peer import Peer, Scenario
from bench.sinks import sinking, watch
from bench.smtp_source import send

SYNCS = ("fsync", "fdatasync", "sync_file_range", "syncfs")
TRACED = (
    *SYNCS,
    *("rename", "renameat", "renameat2", "link", "linkat", "unlink", "unlinkat", "openat", "creat"),
    *("mkdir", "mkdirat", "rmdir", "execve", "clone", "clone3", "fork", "vfork"),
)
WARM_UP = 5


def durability(
    peer: Peer, scale: float, kind: str = "relay", count: int = 100, size_bytes: int = 4096, sessions: int = 1
) -> dict[str, Any]:
    """Calls a message: all of them, the syncs, and by role and name in `per_message`."""
    count = max(20, round(count * scale))
    site = peer.site
    traces = site.work / "traces"
    shutil.rmtree(traces, ignore_errors=True)
    traces.mkdir()
    maildir = make_mailbox(peer)
    socket = str(site.work / "lmtp") if kind == "lmtp" else ""
    with contextlib.ExitStack() as stack:
        sink = stack.enter_context(sinking(site, socket)) if kind != "maildir" else None
        stack.enter_context(peer.running(Scenario(kind, lmtp_socket=socket, maildir=str(maildir))))
        send(site, WARM_UP, size_bytes, 1)
        time.sleep(2.0)
        with tracing(peer.pids(), traces):
            time.sleep(1.0)
            sent = send(site, count, size_bytes, sessions)
            names = kernel.roles(peer.pids())
            if sink is not None:
                sink.wait(count + WARM_UP, 60.0, stall_secs=20.0)
                delivered = sink.count
            else:
                _last, delivered = watch(maildir / "new", count + WARM_UP, 60.0)
            names |= kernel.roles(peer.pids())
            time.sleep(3.0)
            names |= kernel.roles(peer.pids())
        calls: Counter[tuple[str, str]] = Counter()
        for path in sorted(traces.iterdir()):
            calls += calls_of(path.read_text(errors="replace"), names.get(int(path.suffix[1:]), ""))
    shutil.rmtree(traces, ignore_errors=True)
    shutil.rmtree(maildir.parent, ignore_errors=True)
    return per_message(calls, count) | {
        "clients_failed": sent.failed,
        "load_error": sent.error,
        "expected": count + WARM_UP,
        "delivered": delivered,
    }


@contextlib.contextmanager
def tracing(pids: list[int], folder: Path) -> Iterator[None]:
    """strace of these processes and all that they fork, a file each."""
    argv = ["strace", "-ff", "-qq", "-e", f"trace={','.join(TRACED)}", "-o", str(folder / "t")]
    for pid in pids:
        argv += ["-p", str(pid)]
    tracer = subprocess.Popen(argv, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        yield
    finally:
        tracer.send_signal(signal.SIGINT)  # detaches
        tracer.wait(10)


def calls_of(trace: str, role: str) -> Counter[tuple[str, str]]:
    """Successful calls in one process's trace, as (role, call); a process that execs is what it became."""
    if programs := re.findall(r'execve\("([^"]+)"[^\n]* = 0$', trace, re.M):
        role = programs[-1].rsplit("/", 1)[-1]
    calls: Counter[tuple[str, str]] = Counter()
    for call, rest in re.findall(r"^(\w+)\((.*)$", trace, re.M):
        if " = -1 " in rest or (call == "openat" and "O_CREAT" not in rest):
            continue
        calls[role or "short-lived", "openat+O_CREAT" if call == "openat" else call] += 1
    return calls


def per_message(calls: Mapping[tuple[str, str], int], count: int) -> dict[str, Any]:
    """Sums, and all that happens at least once in twenty messages."""
    return {
        "syncs_per_message": sum(times for (_role, call), times in calls.items() if call in SYNCS) / count,
        "calls_per_message": sum(calls.values()) / count,
        "per_message": {
            f"{role}: {call}": round(times / count, 2)
            for (role, call), times in sorted(calls.items())
            if times >= count * 0.05
        },
    }
