"""Mail in bulk: smtp-source of Postfix."""

import subprocess
import time
from dataclasses import dataclass

from bench.peer import DOMAIN, PORT, Site
from bench.peer_postfix import postfix_environment
from bench.room import joining

RECIPIENT = f"sink@{DOMAIN}"
SENDER = "bench@sender.test"


@dataclass(frozen=True, slots=True)
class Sent:
    """How the sending went; times are of time.perf_counter()."""

    begin: float
    end: float
    failed: int  # clients that did not end well
    error: str


def shares(count: int, clients: int) -> list[int]:
    """`count` messages over as many clients, as evenly as can be."""
    clients = min(clients, count)
    return [count // clients + (index < count % clients) for index in range(clients)]


def send(
    site: Site,
    count: int,
    size_bytes: int,
    clients: int = 20,
    recipients: int = 1,
    keep: bool = False,
    burst: bool = False,
    patience_secs: float = 60.0,
) -> Sent:
    """Send `count` messages; with `keep`, all those of a client over one connection.

    One smtp-source a client: one that waits for a dropped SYN then holds up only itself. With `burst` a single
    smtp-source opens all connections, in a chain, so that one drop stops them all.
    """
    tree = site.packages.tree("postfix")
    common = ["-4", "-l", str(size_bytes), "-r", str(recipients), "-f", SENDER, "-t", RECIPIENT, "-M", "client.test"]
    common += [*(["-d"] if keep else []), f"127.0.0.1:{PORT}"]
    running = []
    begin = time.perf_counter()
    try:
        for share in [count] if burst else shares(count, clients):
            command = [str(tree / "usr/sbin/smtp-source"), "-s", str(clients if burst else 1), "-m", str(share)]
            running.append(
                subprocess.Popen(
                    joining(site.load.procs, command + common),
                    env=postfix_environment(tree),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    start_new_session=True,
                    text=True,
                )
            )
        failed, errors = 0, ""
        for process in running:
            try:
                errors += process.communicate(timeout=max(1.0, begin + patience_secs - time.perf_counter()))[1]
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
                errors += "out of time; "
            failed += process.returncode != 0
        return Sent(begin, time.perf_counter(), failed, errors[-300:])
    finally:
        for process in running:
            if process.poll() is None:
                process.kill()
                process.communicate()
