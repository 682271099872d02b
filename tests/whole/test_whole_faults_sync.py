"""What is on stable storage when, seen by strace: before the 250, before a delivery counts, and how often."""

import contextlib
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import Daemon, running
from support.faults import NEED_ROOT, RELAY, need, text_of
from support.sink import sinking
from support.users import ensure_mail_user

pytestmark = [NEED_ROOT, pytest.mark.timeout(120)]

DETAILS = (
    "-y",
    "-s",
    "120",
    "-e",
    "trace=fsync,fdatasync,sync_file_range,rename,renameat,renameat2,link,linkat,sendto,sendmsg,write,writev,"
    "pwrite64,openat,close",
)


@contextlib.contextmanager
def traced(pids: list[int], output: Path, *options: str) -> Iterator[None]:
    """strace, attached to processes and their threads for the body of a with statement."""
    words = [word for pid in pids for word in ("-p", str(pid))]
    argv = [need("strace"), "-f", "-o", str(output), *options, *words]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        for _ in pids:
            line = process.stderr.readline()
            if "attached" not in line:
                pytest.skip(f"strace cannot attach here: {line.strip()}")
        yield
    finally:
        process.terminate()
        process.wait(10)
        process.stderr.close()


def position(trace: list[str], pattern: str, after: int = -1) -> int:
    """The first line behind `after` that matches; the test fails where there is none."""
    for at, line in enumerate(trace):
        if at > after and re.search(pattern, line):
            return at
    raise AssertionError(f"no {pattern} after line {after}:\n" + "\n".join(trace[-80:]))


def lines(path: Path) -> list[str]:
    """The trace without what only says that something goes on."""
    return [line for line in path.read_text().splitlines() if "unfinished" not in line and "resumed" not in line]


@pytest.mark.parametrize("size_bytes", [100, 200_000])
def test_on_disk_before_the_250(size_bytes: int, tmp_path: Path) -> None:
    """The database's log is synced after the message was written and before smtp is told; a large body before that."""
    with sinking() as sink, running(RELAY.replace("SINK", str(sink.port))) as daemon:
        daemon.ctl("pause", "mta")
        with traced([daemon.pids()["queue"]], tmp_path / "trace", *DETAILS), daemon.smtp() as client:
            client.sendmail("a@client.test", ["b@example.com"], text_of(1, size_bytes))
        trace = lines(tmp_path / "trace")
        daemon.ctl("resume", "mta")
        daemon.wait_empty()
    told = position(trace, r"send(to|msg)\(\d+<.*Message accepted")
    written = position(trace, r"pwrite64\(\d+<[^>]*queue\.db-wal>")
    last = max(at for at, line in enumerate(trace[:told]) if re.search(r"pwrite64\(\d+<[^>]*queue\.db-wal>", line))
    synced = position(trace, r"f(data)?sync\(\d+<[^>]*queue\.db-wal>\) += 0", last)
    assert written < last < synced < told, "\n".join(trace)
    if size_bytes > 100_000:
        body = position(trace, r"fsync\(\d+<[^>]*/bodies/[0-9a-f]{8}>\) += 0")
        names = position(trace, r"fsync\(\d+<[^>]*/bodies>\) += 0", body)
        assert body < names < written


@pytest.fixture
def mail_home() -> Iterator[Path]:
    """A folder that the mail user owns."""
    user = ensure_mail_user()
    home = Path(f"/var/tmp/sps-sync-{threading.get_native_id()}")
    home.mkdir()
    shutil.chown(home, user, user)
    yield home
    shutil.rmtree(home)


def maildir(home: Path) -> str:
    """Everything into one Maildir."""
    return f"""
smtp limit max-mails 100000
table users {{ "@" = "{ensure_mail_user()}" }}
listen on 127.0.0.1 port {{port}}
action box maildir "{home}/box" virtual <users>
match from any for domain "example.com" action box
"""


def test_a_delivery_counts_when_file_and_name_are_synced(mail_home: Path, tmp_path: Path) -> None:
    """The file is synced before it gets its name in new/, and new/ before delivery is told."""
    with running(maildir(mail_home)) as daemon, daemon.smtp() as client:
        client.sendmail("a@client.test", ["b@example.com"], text_of(1))
        daemon.wait_empty()
        agent = daemon.pids()[f"agent {ensure_mail_user()}"]
        with traced([agent], tmp_path / "trace", *DETAILS):
            client.sendmail("a@client.test", ["b@example.com"], text_of(2))
            daemon.wait_empty()
    trace = lines(tmp_path / "trace")
    written = position(trace, r"write\(\d+<[^>]*/box/tmp/")
    synced = position(trace, r"f(data)?sync\(\d+<[^>]*/box/tmp/[^>]*>\) += 0", written)
    named = position(trace, r"(rename|link)(at2?)?\(.*/box/tmp>.*/box/new>", synced)
    folder = position(trace, r"fsync\(\d+<[^>]*/box/new>\) += 0", named)
    position(trace, r"send(to|msg)\(.*Delivered", folder)
    assert not [line for line in trace[:folder] if "Delivered" in line and "send" in line]


def syncs(summary: Path) -> int:
    """fsync and fdatasync calls of a summary by strace -c."""
    rows = [line.split() for line in summary.read_text().splitlines()]
    return sum(int(row[3]) for row in rows if row and row[-1] in ("fsync", "fdatasync"))


def counted(daemon: Daemon, summary: Path, clients: int, each: int, drained: bool = True) -> float:
    """Syncs of queue a message, while so many clients send one message after the other."""

    def send() -> None:
        with daemon.smtp() as client:
            for number in range(each):
                client.sendmail("a@client.test", ["b@example.com"], text_of(number))

    with traced([daemon.pids()["queue"]], summary, "-c"):
        threads = [threading.Thread(target=send) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        if drained:
            daemon.wait_empty()
    return syncs(summary) / (clients * each)


def test_one_sync_a_message_at_most(tmp_path: Path) -> None:
    """A message after the other costs one sync each, storing and removing together; many at once far fewer."""
    with sinking() as sink, running(RELAY.replace("SINK", str(sink.port))) as daemon:
        daemon.ctl("pause", "mta")
        stored = counted(daemon, tmp_path / "stored", 1, 50, drained=False)
        daemon.ctl("resume", "mta")
        daemon.wait_empty()
        # On a busy machine an outcome may come too late to be written with the next message: the best of three.
        one_by_one = min(counted(daemon, tmp_path / f"one{turn}", 1, 50) for turn in range(3))
        together = counted(daemon, tmp_path / "together", 20, 25)
    print(f"syncs a message: {stored:.2f} stored, {one_by_one:.2f} one by one, {together:.2f} with 20 clients")
    assert 1.0 <= stored <= 1.1
    assert 0.9 <= one_by_one <= 1.2
    assert together < 0.5
