"""Starting confined children for the tests of this folder."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from smtpd_ps.contract.policy import POLICIES
from smtpd_ps.contract.values import Process

HELPER = Path(__file__).with_name("confined_child.py")
REPOSITORY = Path(__file__).resolve().parents[2]
TEST_UID = 64_321  # of nobody in particular
CHILDREN = tuple(process for process, policy in POLICIES.items() if policy.confined)

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can chroot and change users")


def python_path() -> str:
    """The tree under test, and wherever this run found its libraries."""
    return os.pathsep.join(filter(None, (str(REPOSITORY), os.environ.get("PYTHONPATH"))))


class Confined:
    """A child that has confined itself. `lines` are what it printed after "ready"."""

    def __init__(self, order: dict[str, object], pass_fds: tuple[int, ...] = ()) -> None:
        environment = {"PYTHONPATH": python_path(), "PYTHONDONTWRITEBYTECODE": "1"}
        self.popen = subprocess.Popen(
            [sys.executable, "-P", str(HELPER), json.dumps(order)], env=environment, text=True, pass_fds=pass_fds,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.pid = self.popen.pid
        self._ended: tuple[int, list[str], str] | None = None

    def await_ready(self) -> str:
        """Wait until it is confined; its first line."""
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline().strip()
        assert line, self.popen.stderr and self.popen.stderr.read()
        return line

    def end(self) -> tuple[int, list[str], str]:
        """Exit status (negative: the signal), lines and standard error."""
        if self._ended is None:
            streams = self.popen.stdin, self.popen.stdout, self.popen.stderr
            assert streams[0] and streams[1] and streams[2]
            streams[0].close()
            out, err = streams[1].read(), streams[2].read()  # not communicate(): readline has read ahead
            streams[1].close()
            streams[2].close()
            self._ended = self.popen.wait(timeout=30), out.splitlines(), err
        return self._ended


class Place:
    """Root directories and a home, as `smtpctl_ps setup` makes them, in a scratch directory."""

    def __init__(self, base: Path, privileged: bool) -> None:
        self.base = base
        self.empty, self.spool, self.home = base / "empty", base / "spool", base / "home"
        base.chmod(0o755)
        modes = {
            self.empty: 0o755,
            self.spool: 0o711,
            self.spool / "queue": 0o700,
            self.spool / "offline": 0o1733,
            base / "run": 0o755,
            self.home: 0o700,
        }
        for path, mode in modes.items():
            path.mkdir()
            path.chmod(mode)
        if privileged:
            os.chown(self.spool / "queue", TEST_UID, TEST_UID)
            os.chown(self.home, TEST_UID, TEST_UID)
        self.privileged = privileged
        self.running: list[Confined] = []

    def common(self, process: Process, **changes: object) -> dict[str, object]:
        """The fields of Common for `process`."""
        fields: dict[str, object] = {
            "root": str({"empty": self.empty, "spool": self.spool}.get(POLICIES[process].root, "")),
            "uid": TEST_UID if self.privileged else os.getuid(),
            "gid": TEST_UID if self.privileged else os.getgid(),
            "verbose": 0,
            "foreground": True,
            "privileged": self.privileged,
            "writable": [str(self.home / "Maildir")] if process is Process.AGENT else [],
        }
        return fields | changes

    def start(
        self,
        process: Process,
        *deeds: list[str],
        pass_fds: tuple[int, ...] = (),
        common: dict[str, object] | None = None,
        **order: object,
    ) -> Confined:
        """Start a child; it is ended with the test."""
        fields = self.common(process, **(common or {}))
        child = Confined({"process": process.name, "common": fields, "deeds": deeds, **order}, pass_fds)
        self.running.append(child)
        return child

    def outcome(self, process: Process, *deeds: list[str], **order: object) -> tuple[int, list[str], str]:
        """Run the deeds to the end: status, the lines after "ready", standard error."""
        child = self.start(process, *deeds, **order)
        first = child.await_ready()
        assert first.startswith("ready"), first
        return child.end()
