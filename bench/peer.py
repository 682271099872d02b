"""The life of one server under test, whichever it is: start, watch, stop."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import kernel
from bench.packages import Packages
from bench.room import Accounts, entering, furnish, joining

PORT = 21025
SINK_PORT = 21026
DOMAIN = "example.test"
HOSTNAME = "bench.test"


@dataclass(frozen=True, slots=True)
class Scenario:
    """What a server is asked to do with the mail it takes on 127.0.0.1, PORT."""

    kind: str  # relay, filtered (the same through a filter program), lmtp, maildir, submission
    lmtp_socket: str = ""
    maildir: str = ""
    cert: str = ""
    key: str = ""
    credentials: str = ""  # a file with a line "user $6$hash"
    program: str = ""  # the command of the filter program


@dataclass(frozen=True, slots=True)
class Site:
    """Where all of it happens."""

    work: Path  # a scratch folder, on the file system that is measured
    packages: Packages
    accounts: Accounts
    load: kernel.Group  # everything that is neither server nor this process


class Peer:
    """One server. `label` is its name, with "+tuned" where throttles are lifted, "+several" where it has
    two smtp and two delivery processes.
    """

    name = ""

    variants: tuple[str, ...] = ("", "tuned")

    def __init__(self, site: Site, variant: str) -> None:
        self.site = site
        self.tuned = variant == "tuned"
        self.several = variant == "several"
        self.label = f"{self.name}+{variant}" if variant else self.name
        self.run = site.work / "run"
        self._process: subprocess.Popen[bytes] | None = None
        self._group: kernel.Group | None = None

    # What an adapter fills in.

    def version(self) -> str:
        """As people call it. Raises RuntimeError when the server cannot run here."""
        raise NotImplementedError

    def prepare(self, scenario: Scenario) -> list[str]:
        """Write the configuration into `run`; the command that stays in front."""
        raise NotImplementedError

    def mounts(self) -> list[tuple[Path, Path]]:
        """What its room has besides users and resolver."""
        return []

    def environment(self) -> dict[str, str]:
        """Of the command."""
        return dict(os.environ)

    def queued(self) -> int:
        """Messages that it still has."""
        raise NotImplementedError

    def flush(self) -> None:
        """Ask for a delivery attempt of everything queued, now."""
        raise NotImplementedError

    def loaded(self, count: int) -> bool:
        """Whether the freshly started server knows of `count` queued messages."""
        raise NotImplementedError

    # What all share.

    @property
    def spool(self) -> Path:
        """Where it keeps its queue."""
        return self.run / "spool"

    @contextlib.contextmanager
    def running(self, scenario: Scenario) -> Iterator[float]:
        """Started in an empty folder for the body of a with statement; gives the seconds to its first banner."""
        try:
            yield self.start(scenario)
        finally:
            self.stop()
            shutil.rmtree(self.run, ignore_errors=True)

    def start(self, scenario: Scenario, fresh: bool = True) -> float:
        """Start; the seconds to the first banner. With `fresh` nothing of an earlier run is left."""
        if _listening():
            raise RuntimeError(f"something listens on port {PORT} already")
        if fresh:
            shutil.rmtree(self.run, ignore_errors=True)
            self.run.mkdir(mode=0o755)
            self.spool.mkdir(mode=0o755)
        command = self.prepare(scenario)
        mounts = furnish(self.run / "room", self.site.accounts) + self.mounts()
        self._group = kernel.Group("server")
        before = time.perf_counter()
        with (self.run / "log").open("ab") as log:
            self._process = subprocess.Popen(
                entering(self._group.procs, mounts, command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=self.environment(),
                start_new_session=True,  # a Ctrl-C is for the benchmark, which then stops it in order
            )
        self._await_banner(60.0)
        return time.perf_counter() - before

    def _await_banner(self, patience_secs: float) -> None:
        assert self._process is not None
        deadline = time.monotonic() + patience_secs
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise RuntimeError(f"{self.label} ended at its start: {self.log_tail()}")
            try:
                with socket.create_connection(("127.0.0.1", PORT), 10) as sock:
                    if sock.recv(512).startswith(b"220"):
                        sock.sendall(b"QUIT\r\n")
                        return
            except OSError:
                time.sleep(0.002)
        raise RuntimeError(f"{self.label} does not greet: {self.log_tail()}")

    def stop(self) -> None:
        """SIGTERM, and after a while SIGKILL for what is left of its control group."""
        process, group = self._process, self._group
        if process is not None:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(15)
            deadline = time.monotonic() + 3
            while group and group.pids() and time.monotonic() < deadline:
                time.sleep(0.02)
        if group is not None:
            group.end()
        if process is not None:
            process.wait(5)
        self._process = self._group = None

    @property
    def pid(self) -> int:
        """Of the process in front."""
        assert self._process is not None
        return self._process.pid

    def pids(self) -> list[int]:
        """All its processes."""
        return self._group.pids() if self._group else []

    def cpu_secs(self) -> float:
        """CPU time of all its processes since its start."""
        return self._group.cpu_secs() if self._group else 0.0

    def control(self, *command: str) -> str:
        """Standard output of a command inside its room. Raises RuntimeError where that fails."""
        argv = joining(self.site.load.procs, ["nsenter", "--mount", "--target", str(self.pid), *command])
        done = subprocess.run(argv, env=self.environment(), capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def log_tail(self) -> str:
        """The last that it said."""
        return (self.run / "log").read_text(errors="replace")[-1500:].strip()


def _listening() -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", PORT)) == 0
