"""Mail in bulk: smtp-source of Postfix."""

import os
import signal
import subprocess
import time
from dataclasses import dataclass

from bench.peer import DOMAIN, PORT, Site
from bench.peer_postfix import postfix_environment
from bench.room import joining

RECIPIENT = f"sink@{DOMAIN}"
SENDER = "bench@sender.test"
MAILS_A_CONNECTION = 100  # the most that OpenSMTPD and smtpd_ps take in a session, unless told otherwise

# One smtp-source after the other, each sending the next number of the list in its first argument.
_CHAIN = 'counts=$1 program=$2; shift 2; for count in $counts; do "$program" -m "$count" "$@"; done'


@dataclass(frozen=True, slots=True)
class Sent:
    """How the sending went; times are of time.perf_counter()."""

    begin: float
    end: float
    failed: int  # clients that did not end well
    error: str


def shares(count: int, clients: int) -> list[int]:
    """`count` messages over that many clients, as evenly as can be."""
    clients = min(clients, count)
    return [count // clients + (index < count % clients) for index in range(clients)]


def connections(share: int, keep: bool) -> list[int]:
    """How many messages a client's smtp-source processes send, one process after the other.

    Without `keep` a single one makes a connection for each message.
    """
    if not keep:
        return [share]
    full, rest = divmod(share, MAILS_A_CONNECTION)
    return [MAILS_A_CONNECTION] * full + ([rest] if rest else [])


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
    """Send `count` messages; with `keep`, up to a hundred of them over one connection.

    One smtp-source at a time a client: one that waits for a dropped SYN then holds up only itself. With `burst`
    a single smtp-source opens all connections, in a chain, so that one drop stops them all.
    """
    tree = site.packages.tree("postfix")
    common = ["-4", "-l", str(size_bytes), "-r", str(recipients), "-f", SENDER, "-t", RECIPIENT, "-M", "client.test"]
    common += [*(["-d"] if keep else []), f"127.0.0.1:{PORT}"]
    running = []
    begin = time.perf_counter()
    try:
        for share in [count] if burst else shares(count, clients):
            chain = " ".join(str(number) for number in connections(share, keep))
            command = ["sh", "-ec", _CHAIN, "client", chain, str(tree / "usr/sbin/smtp-source")]
            command += ["-s", str(clients if burst else 1)]
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
                _kill(process)
                process.communicate()
                errors += "out of time; "
            failed += process.returncode != 0
        return Sent(begin, time.perf_counter(), failed, errors[-300:])
    finally:
        for process in running:
            if process.poll() is None:
                _kill(process)
                process.communicate()


def _kill(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)  # the shell and its smtp-source: a session of their own
