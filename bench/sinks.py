"""Where the mail ends: smtp-sink of Postfix, or a sink that counts recipients; a Maildir that is watched."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bench.peer import SINK_PORT, Site
from bench.peer_postfix import postfix_environment
from bench.room import joining

STALL_SECS = 45.0  # without an arrival, after which nothing more is expected


class Sink:
    """A running sink: how many arrived, and when the last did."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.count = 0
        self.last = 0.0  # time.perf_counter() of the last arrival
        self._process = process
        self._news = threading.Condition()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        fd, rest = self._process.stdout.fileno(), b""
        while chunk := os.read(fd, 65536):
            now = time.perf_counter()
            rest = (rest + chunk)[-200:]
            if found := re.findall(rb"mesg=(\d+)[\r\n]", rest):
                value = int(found[-1])
                if value > self.count:
                    with self._news:
                        self.count, self.last = value, now
                        self._news.notify_all()

    def wait(self, count: int, patience_secs: float, stall_secs: float = STALL_SECS) -> bool:
        """Until `count` have arrived; False when time is up, or when nothing has moved for `stall_secs`."""
        deadline = time.perf_counter() + patience_secs
        moved, seen = time.perf_counter(), self.count
        with self._news:
            while self.count < count:
                self._news.wait(0.5)
                now = time.perf_counter()
                if self.count != seen:
                    moved, seen = now, self.count
                if now > deadline or now - moved > stall_secs:
                    return self.count >= count
        return True


@contextlib.contextmanager
def sinking(site: Site, lmtp_socket: str = "", count_recipients: bool = False) -> Iterator[Sink]:
    """A sink on SINK_PORT, or for LMTP on a Unix socket, for the body of a with statement."""
    tree = site.packages.tree("postfix")
    if count_recipients:
        command = [sys.executable, "-m", "bench.recipient_sink", str(SINK_PORT)]
    else:
        where = ["-L", f"unix:{lmtp_socket}"] if lmtp_socket else [f"127.0.0.1:{SINK_PORT}"]
        command = [str(tree / "usr/sbin/smtp-sink"), "-c", "-u", "nobody", "-m", "256", *where, "500"]
    process = subprocess.Popen(
        joining(site.load.procs, command),
        env=postfix_environment(tree),
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        sink = Sink(process)
        _await_listener(process, lmtp_socket)
        yield sink
    finally:
        process.terminate()
        process.wait(10)
        Path(lmtp_socket or "/nonexistent").unlink(missing_ok=True)


def _await_listener(process: subprocess.Popen[bytes], lmtp_socket: str) -> None:
    for _ in range(1000):
        if process.poll() is not None:
            break
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX if lmtp_socket else socket.AF_INET) as sock:
            sock.connect(lmtp_socket or ("127.0.0.1", SINK_PORT))
            if lmtp_socket:
                os.chmod(lmtp_socket, 0o666)
            return
        time.sleep(0.01)
    raise RuntimeError(f"the sink does not listen on {lmtp_socket or SINK_PORT}")


def watch(folder: Path, expected: int, patience_secs: float) -> tuple[float, int]:
    """Until `expected` files lie in a Maildir's `new`: when the last one was seen, and how many there are."""
    begin = last = time.perf_counter()
    seen = 0
    while True:
        now = time.perf_counter()
        try:
            count = sum(1 for _ in os.scandir(folder))
        except FileNotFoundError:
            count = 0
        if count > seen:
            seen, last = count, now
        if seen >= expected or now - begin > patience_secs or now - last > STALL_SECS:
            return last, seen
        time.sleep(0.01)
