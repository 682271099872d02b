"""How the daemon lives with a large backlog: the start, the memory, what is due, `show queue`.

    python -m bench.backlog [--envelopes 1000000]

Fills the store of a scratch installation directly, most of it due in the days to come and a part at once, and
starts the daemon on it. Needs root and some 1.7 KiB of /var/tmp an envelope; nothing is left. Prints one table.
"""

import argparse
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from smtpd_ps.contract.values import Client, Envelope
from smtpd_ps.queue.store.embedded import EmbeddedStore
from smtpd_ps.queue.store.protocol import Group, Insert
from smtpd_ps.queue.store.records import RECORD_VERSION, StoredEnvelope, StoredMessage, checksum

GROUP = 5000
DUE_AT_ONCE = 2000
BODY = b"Received: from client.example.net\r\nSubject: waiting\r\n\r\n" + b"a line of a message that waits\r\n" * 28
PATIENCE_SECS = 120.0
CONFIG = """\
listen on 127.0.0.1 port {port}
action "away" relay host "smtp://127.0.0.1:{sink}"
match from any for any action "away"
"""


class Sink(threading.Thread):
    """Takes all mail; when the first and the last came."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        self.count = 0
        self.first = self.last = 0.0
        self._lock = threading.Lock()

    def run(self) -> None:
        while True:
            peer, _address = self.listener.accept()
            threading.Thread(target=self._serve, args=(peer,), daemon=True).start()

    def _serve(self, peer: socket.socket) -> None:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with peer, peer.makefile("rb") as lines:
            peer.sendall(b"220 sink\r\n")
            for line in lines:
                match line[:4].upper():
                    case b"EHLO":
                        peer.sendall(b"250-sink\r\n250 PIPELINING\r\n")
                    case b"DATA":
                        peer.sendall(b"354 go\r\n")
                        while (line := lines.readline()) not in (b".\r\n", b""):
                            pass
                        with self._lock:
                            self.last = time.monotonic()
                            self.first = self.first or self.last
                            self.count += 1
                        peer.sendall(b"250 taken\r\n")
                    case b"QUIT":
                        peer.sendall(b"221 bye\r\n")
                        return
                    case _:
                        peer.sendall(b"250 ok\r\n")


class Daemon:
    """The daemon in the scratch directory."""

    def __init__(self, directory: Path, sink_port: int) -> None:
        self.state, self.port = directory / "state", 0
        self._sink_port = sink_port
        self._config, self._log = directory / "smtpd.conf", directory / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Seconds until it greets, on a port that was free a moment ago."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._config.write_text(CONFIG.format(port=self.port, sink=self._sink_port))
        begun = time.monotonic()
        argv = [sys.executable, "-I", "-m", "smtpd_ps.cli.smtpd_ps", "-d", "-f", str(self._config)]
        argv += ["--state-dir", str(self.state), "--resolver", "127.0.0.1:9"]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        while time.monotonic() < begun + PATIENCE_SECS and self.process.poll() is None:
            try:
                with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
                    if sock.recv(100).startswith(b"220"):
                        return time.monotonic() - begun
            except OSError:
                time.sleep(0.01)
        raise SystemExit(f"the daemon does not start:\n{self._log.read_text()[-3000:]}")

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)

    def ctl(self, *words: str) -> list[str]:
        return [sys.executable, "-I", "-m", "smtpd_ps.cli.smtpctl_ps", "--state-dir", str(self.state), *words]

    def memory_mib(self, title: str) -> tuple[float, float]:
        """PSS of a process, and the most its resident set has been, in MiB."""
        assert self.process is not None
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                name = (entry / "cmdline").read_bytes().split(b"\0")[0].decode()
                status = (entry / "status").read_text()
                if name != f"smtpd_ps: {title}" or f"PPid:\t{self.process.pid}\n" not in status:
                    continue
                pss = next(int(line.split()[1]) for line in (entry / "smaps_rollup").read_text().splitlines()
                           if line.startswith("Pss:"))  # fmt: skip
                peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
                return pss / 1024, peak / 1024
            except OSError:
                continue
        raise SystemExit(f"no process {title}")


def fill(path: Path, envelopes: int) -> float:
    """A message an envelope, in the order of random ids; seconds it took."""
    begun = time.monotonic()
    draw = random.Random(1)
    now_ms = time.time_ns() // 1_000_000
    client = Client("192.0.2.1", "client.example.net", "client.example.net")
    store = EmbeddedStore(path)
    ids = sorted(draw.sample(range(1, 1 << 31), envelopes))
    at_once = set(draw.sample(ids, min(DUE_AT_ONCE, envelopes)))
    for at in range(0, envelopes, GROUP):
        inserts = []
        for msgid in ids[at : at + GROUP]:
            dest = f"user{msgid % 977}@domain{msgid % 4999}.example"
            wait_ms = 0 if msgid in at_once else draw.randrange(3_600_000, 3 * 86_400_000)
            envelope = Envelope("away", "sender@example.com", dest, dest, "", client)
            stored = StoredEnvelope(envelope, now_ms + wait_ms, tries=3, text="451 4.7.1 come back later")
            message = StoredMessage(
                RECORD_VERSION, msgid, now_ms - 3_600_000, len(BODY), False, False, checksum(BODY),
                {msgid << 32 | 1: stored},
            )  # fmt: skip
            inserts.append(Insert(message, BODY))
        store.write(Group(inserts, [], []))
        store.tidy(idle=False)
    store.close()
    return time.monotonic() - begun


def show_queue(daemon: Daemon) -> tuple[float, float, int, float]:
    """Seconds to the first line and to the last, the lines, and the most memory of the command in MiB."""
    begun = time.monotonic()
    process = subprocess.Popen(daemon.ctl("show", "queue"), stdout=subprocess.PIPE)
    assert process.stdout is not None
    lines, first, peak = 0, 0.0, 0.0
    status = Path(f"/proc/{process.pid}/status")
    for _line in process.stdout:
        first = first or time.monotonic() - begun
        lines += 1
        if lines % 10_000 == 0:
            found = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
            peak = max(peak, *(int(line.split()[1]) / 1024 for line in found), 0)
    process.wait()
    process.stdout.close()
    return first, time.monotonic() - begun, lines, peak


def measure(directory: Path, envelopes: int) -> None:
    sink = Sink()
    sink.start()
    daemon = Daemon(directory, sink.port)
    try:
        daemon.start()
        daemon.stop()
        database = daemon.state / "spool" / "queue" / "queue.db"
        filled_secs = fill(database, envelopes)
        size_mib = database.stat().st_size / (1 << 20)
        begun = time.monotonic()
        starting_secs = daemon.start()
        due = min(DUE_AT_ONCE, envelopes)
        while sink.count < due and time.monotonic() < begun + PATIENCE_SECS:
            time.sleep(0.05)
        working, _ = daemon.memory_mib("queue")
        first_secs, last_secs, lines, cli_mib = show_queue(daemon)
        pss, peak = daemon.memory_mib("queue")
        control_pss, control_peak = daemon.memory_mib("control")
        print(f"| {envelopes:,} envelopes, a message each ({size_mib:,.0f} MiB, filled in {filled_secs:.0f} s) | |")
        print("| --- | --- |")
        for what, value in (
            ("start to serving", f"{starting_secs:.2f} s"),
            ("first due message at the sink, from the start", f"{sink.first - begun:.2f} s"),
            (f"all {sink.count:,} due messages at the sink, from the start", f"{sink.last - begun:.2f} s"),
            ("queue: proportional set size after that", f"{working:.0f} MiB"),
            ("`show queue`: first line", f"{first_secs:.2f} s"),
            (f"`show queue`: all {lines:,} lines", f"{last_secs:.1f} s"),
            ("`show queue`: most memory of the command", f"{cli_mib:.0f} MiB"),
            ("queue: proportional set size, most resident", f"{pss:.0f} MiB, {peak:.0f} MiB"),
            ("control: proportional set size, most resident", f"{control_pss:.0f} MiB, {control_peak:.0f} MiB"),
        ):
            print(f"| {what} | {value} |")
    finally:
        daemon.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--envelopes", type=int, default=1_000_000)
    envelopes = parser.parse_args().envelopes
    if os.getuid() != 0:
        raise SystemExit("needs root: the queue has a user of its own")
    directory = Path(tempfile.mkdtemp(prefix="smtpd_ps-backlog-", dir="/var/tmp"))
    directory.chmod(0o755)
    try:
        measure(directory, envelopes)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
