"""Debian's OpenSMTPD, unpacked and run in a mount name space of its own, for comparisons."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from support.daemon import wait_until
from support.peers import answers

from bench.packages import Packages
from bench.peer_opensmtpd import USERS
from bench.room import bench_accounts, entering, furnish

LISTENS = 2  # AF_INET


class OpenSMTPD:
    """A running one. Its paths are fixed, so its spool and sockets are mounted over the machine's."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], smtpctl: Path) -> None:
        self.folder = folder
        self.process = process
        self.smtpctl = str(smtpctl)

    @property
    def log(self) -> str:
        """All that it said."""
        return (self.folder / "log").read_text(errors="replace")

    def command(self, *words: str) -> list[str]:
        """What runs a program of root beside it, with the group that its smtpctl is installed for."""
        group = str(bench_accounts(USERS).gids["opensmtpq"])
        room = f"--mount=/proc/{self.process.pid}/ns/mnt"
        return ["nsenter", room, "setpriv", "--regid", group, "--clear-groups", *words]

    def ctl(self, *words: str) -> tuple[int, str, str]:
        """Run smtpctl: its status, standard output and standard error."""
        done = subprocess.run(
            self.command(self.smtpctl, *words), text=True, capture_output=True, timeout=30, check=False
        )
        return done.returncode, done.stdout, done.stderr

    def queued(self) -> int:
        """Messages in its spool."""
        return sum(1 for _ in (self.folder / "spool/smtpd/queue").glob("??/????????"))


@contextlib.contextmanager
def opensmtpd(
    folder: Path, config: str, port: int, packages: Packages | None = None, nameserver: str = ""
) -> Iterator[OpenSMTPD]:
    """Run it with `config`, which listens on 127.0.0.1 `port`, until the body of the with statement ends.

    Its programs ask `nameserver`; without one there is none.
    """
    tree = (packages or Packages(folder.parent / "packages")).tree("opensmtpd")
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("", "run", "spool", "mail"):
        (folder / name).mkdir(mode=0o755)
    (folder / "mail").chmod(0o1777)
    path = folder / "smtpd.conf"
    path.write_text(config)
    path.chmod(0o644)
    furniture = furnish(folder / "room", bench_accounts(USERS))
    if nameserver:
        (folder / "room/resolv.conf").write_text(f"nameserver {nameserver}\n")
    mounts = [
        *furniture,
        (folder / "run", Path("/run")),
        (folder / "spool", Path("/var/spool")),
        (folder / "mail", Path("/var/mail")),
        (tree / "usr/libexec", Path("/usr/libexec")),
        (tree / "var/lib", Path("/var/lib")),
    ]
    command = [str(tree / "usr/sbin/smtpd"), "-d", "-v", "-f", str(path)]
    environment = {"PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), "ASR_CONFIG": "lookup file"}
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            entering(Path("/dev/null"), mounts, command),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", env=environment, start_new_session=True,
        )  # fmt: skip
    running = OpenSMTPD(folder, process, tree / "usr/sbin/smtpctl")
    try:
        wait_until(
            f"OpenSMTPD's banner: {folder / 'log'}",
            lambda: process.poll() is not None or answers(LISTENS, ("127.0.0.1", port)),
        )
        assert process.poll() is None, f"OpenSMTPD ended: {running.log}"
        yield running
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
