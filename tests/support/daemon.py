"""The real daemon, started in a scratch directory, for whole-daemon and interop tests."""

import contextlib
import os
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

PATIENCE_SECS = 30.0


def _ports() -> Iterator[int]:
    """Ports, each once a run, that the kernel gives to nobody who connects: such a client would have ours for a while
    when a daemon is to listen on it, or listen on it anew.
    """
    try:
        end = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        end = 0
    ports = range(min(10_000, end), end)
    at = os.getpid() * 37 % max(1, len(ports))  # another run of the tests begins elsewhere
    yield from (*ports[at:], *ports[:at])
    while True:
        yield 0  # where we cannot know, the kernel's choice


_PORTS = _ports()


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody has."""
    for port in _PORTS:
        with socket.socket() as sock, contextlib.suppress(OSError):
            sock.bind(("127.0.0.1", port))
            return int(sock.getsockname()[1])
    raise AssertionError("there is always another port")


def wait_until(what: str, condition: object, patience_secs: float = PATIENCE_SECS) -> None:
    """Poll `condition()` until it is true; fail the test naming `what`."""
    assert callable(condition)
    deadline = time.monotonic() + patience_secs
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {patience_secs:.0f} s: {what}")
        time.sleep(0.02)


def cli(module: str, *words: str, **more: object) -> subprocess.CompletedProcess[str]:
    """Run one of our commands from this interpreter."""
    argv = [sys.executable, "-I", "-m", f"smtpd_ps.cli.{module}", *words]
    return subprocess.run(argv, text=True, capture_output=True, timeout=60, check=False, **more)  # type: ignore[call-overload,no-any-return]


class Daemon:
    """One daemon with its own state directory; `config` may use {port}, {port2} and {dir}."""

    def __init__(
        self,
        config: str,
        *,
        resolver: str = "127.0.0.1:9",
        options: tuple[str, ...] = (),
        prefix: tuple[str, ...] = (),  # a command that becomes the daemon, such as prlimit
        stdin: str = "",  # the first line of its standard input
        prepare: Callable[[Path], None] | None = None,  # puts files into its directory
    ) -> None:
        self.dir = Path(tempfile.mkdtemp(prefix="smtpd_ps-test-", dir="/var/tmp"))
        self.dir.chmod(0o755)
        self.state = self.dir / "state"
        self.port, self.port2 = free_port(), free_port()
        self.config_path = self.dir / "smtpd.conf"
        self.log_path = self.dir / "log"
        self.config = config
        self.resolver = resolver
        self.options = options
        self.prefix = prefix
        self.stdin = stdin
        self.process: subprocess.Popen[bytes] | None = None
        if prepare is not None:
            prepare(self.dir)

    def write_config(self) -> None:
        """Write smtpd.conf with the ports and the directory filled in."""
        text = self.config.replace("{port}", str(self.port)).replace("{port2}", str(self.port2))
        self.config_path.write_text(text.replace("{dir}", str(self.dir)))

    def start(self, wait: bool = True) -> "Daemon":
        """Start; returns when it greets."""
        self.write_config()
        argv = [*self.prefix, sys.executable, "-I", "-m", "smtpd_ps.cli.smtpd_ps"]
        argv += ["-d", "-v", "-f", str(self.config_path)]
        argv += ["--state-dir", str(self.state), "--resolver", self.resolver, *self.options]
        if os.getuid() != 0:
            argv.append("--unprivileged")
        with self.log_path.open("ab") as log:
            source = subprocess.PIPE if self.stdin else subprocess.DEVNULL
            self.process = subprocess.Popen(argv, stdin=source, stdout=log, stderr=log, cwd="/")
        if self.process.stdin is not None:
            with self.process.stdin as pipe:
                pipe.write(f"{self.stdin}\n".encode())
        if wait:
            wait_until("the banner", self.greets)
        return self

    @property
    def log(self) -> str:
        """All that was logged."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def greets(self) -> bool:
        """Whether the first listener says 220."""
        assert self.process is not None
        if self.process.poll() is not None:
            raise AssertionError(f"the daemon exited with {self.process.returncode}:\n{self.log[-4000:]}")
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as sock:
                greeted = sock.recv(512).startswith(b"220")
                sock.sendall(b"QUIT\r\n")
                return greeted
        except OSError:
            return False

    def ctl(self, *words: str, check: bool = True) -> str:
        """Run smtpctl_ps; its standard output."""
        done = cli("smtpctl_ps", "--state-dir", str(self.state), *words)
        if check and done.returncode:
            raise AssertionError(f"smtpctl_ps {words}: {done.returncode} {done.stderr}\n{self.log[-4000:]}")
        return done.stdout

    def stats(self) -> dict[str, str]:
        """`show stats` as a mapping."""
        return dict(line.split("=", 1) for line in self.ctl("show", "stats").splitlines())

    def queued(self) -> int:
        """Envelopes in the queue."""
        return int(self.stats()["scheduler.envelope"])

    def schedule_until(self, what: str, condition: Callable[[], object], patience_secs: float = PATIENCE_SECS) -> None:
        """`schedule all` until `condition()`: what is being tried at that moment is not scheduled, and may fail."""

        def holds() -> bool:
            self.ctl("schedule", "all")
            return bool(condition())

        wait_until(what, holds, patience_secs)

    def wait_empty(self, patience_secs: float = PATIENCE_SECS) -> None:
        """Until nothing is queued."""
        try:
            wait_until("the queue is empty", lambda: self.queued() == 0, patience_secs)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.ctl('show', 'queue')}\n{self.log[-6000:]}") from None

    def smtp(self, port: int | None = None) -> smtplib.SMTP:
        """A connected client."""
        return smtplib.SMTP("127.0.0.1", port or self.port, local_hostname="client.test", timeout=30)

    def pids(self) -> dict[str, int]:
        """Process title ("queue", "agent bob", ...) to pid, of this daemon's tree."""
        assert self.process is not None
        found = {}
        parent = self.process.pid
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                status = (entry / "status").read_text()
                title = (entry / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
            except OSError:
                continue
            mother = re.search(r"^PPid:\s+(\d+)", status, re.M)
            name = title.removeprefix("smtpd_ps: ")
            if int(entry.name) == parent or (mother and int(mother[1]) == parent and name != "parent"):
                found[name] = int(entry.name)  # a child still called parent opens a file for it, and is gone soon
        return found

    def wait_logged(self, *texts: str) -> None:
        """Until all of these stand in the log: a process answers first and writes its lines at the turn's end."""
        try:
            wait_until("it is logged", lambda: all(text in self.log for text in texts))
        except AssertionError as error:
            missing = [text for text in texts if text not in self.log]
            raise AssertionError(f"{error}: {missing}\n{self.log[-6000:]}") from None

    def wait_gone(self, pids: dict[str, int]) -> None:
        """Until none of these processes is left (they follow their parent's end by themselves)."""
        entries = [Path(f"/proc/{pid}") for pid in pids.values()]
        wait_until("the old processes are gone", lambda: not any(entry.exists() for entry in entries))

    def stop(self, patience_secs: float = PATIENCE_SECS) -> int:
        """SIGTERM to the parent, by pid; its exit status."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(patience_secs)
            assert "late import" not in self.log, self.log[-4000:]
            return status
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
            raise AssertionError(f"the daemon did not stop:\n{self.log[-4000:]}") from None

    def remove(self) -> None:
        """Delete the scratch directory."""
        shutil.rmtree(self.dir, ignore_errors=True)


@contextlib.contextmanager
def running(config: str, **more: object) -> Iterator[Daemon]:
    """A daemon for the body of a with statement; a clean stop is part of the test."""
    daemon = Daemon(config, **more)  # type: ignore[arg-type]
    try:
        daemon.start()
        yield daemon
        assert daemon.stop() == 0, daemon.log[-4000:]
        assert "Traceback" not in daemon.log, daemon.log[-8000:]
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait(10)
        daemon.remove()
