"""Processes killed and stopped in the middle of work: what was accepted is delivered, whole, and at once startable."""

import contextlib
import os
import shutil
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.daemon import PATIENCE_SECS, Daemon, running, wait_until
from support.faults import NEED_ROOT, RELAY, Stalled, cared_for, number_of, offer, text_of
from support.sink import Behaviour, sinking
from support.users import ensure_mail_user

pytestmark = [NEED_ROOT, pytest.mark.timeout(170)]

RESTARTS = 20


def kill_all(daemon: Daemon) -> None:
    """SIGKILL to every process, by pid; only the parent is waited for."""
    pids = daemon.pids()
    pids.pop("parent")
    for pid in pids.values():
        os.kill(pid, signal.SIGSTOP)  # the kernel then has more to do until they are gone
    assert daemon.process is not None
    daemon.process.kill()
    for pid in pids.values():
        os.kill(pid, signal.SIGKILL)
    daemon.process.wait(10)


def test_killed_and_started_again_at_once() -> None:
    """Twenty times in a row, while the old processes are still dying: every start succeeds, nothing is lost."""
    behaviour = Behaviour(data="451 4.3.0 later")
    with sinking(behaviour=behaviour) as sink, cared_for(Daemon(RELAY.replace("SINK", str(sink.port)))) as daemon:
        daemon.start()
        accepted = set()
        for number in range(RESTARTS):
            assert offer(daemon, number, number % 2 * 100_000) == 250
            accepted.add(number)
            kill_all(daemon)
            daemon.start()
        behaviour.data = "250 ok"
        daemon.schedule_until("all of it arrives", lambda: {number_of(mail.data) for mail in sink.mails} == accepted)
        daemon.wait_empty()
        assert daemon.stop() == 0


def test_a_start_waits_for_the_old_queue() -> None:
    """The parent is killed while its children hang: the next start waits for the spool's lock and the ports."""
    with sinking() as sink, cared_for(Daemon(RELAY.replace("SINK", str(sink.port)))) as daemon:
        daemon.start()
        assert offer(daemon, 1) == 250
        pids = daemon.pids()
        late = [pids["queue"], pids["smtp"]]
        for pid in late:
            os.kill(pid, signal.SIGSTOP)
        assert daemon.process is not None
        daemon.process.kill()
        daemon.process.wait(10)
        threading.Timer(2.0, lambda: [os.kill(pid, signal.SIGKILL) for pid in late]).start()
        daemon.start(wait=False)
        time.sleep(1)
        assert daemon.process.poll() is None, daemon.log[-2000:]
        wait_until("it serves", lambda: daemon.log.count("serving") == 2)
        wait_until("the banner", daemon.greets)
        wait_until("it arrives", lambda: bool(sink.mails))
        daemon.wait_empty()
        assert daemon.stop() == 0


class Load:
    """Clients that send numbered messages until told to stop; `accepted` and `said` grow."""

    def __init__(self, daemon: Daemon, clients: int = 6) -> None:
        self.accepted: set[int] = set()
        self.codes: set[int] = set()
        self.stopping = False
        self._daemon = daemon
        self._numbers = iter(range(1_000_000))
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._client) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _client(self) -> None:
        while not self.stopping:
            with self._lock:
                number = next(self._numbers)
            code = offer(self._daemon, number, 80_000 if number % 10 == 0 else 400)
            with self._lock:
                self.codes.add(code)
                if code == 250:
                    self.accepted.add(number)

    def stop(self) -> None:
        """Until all clients have ended."""
        self.stopping = True
        for thread in self._threads:
            thread.join(40)
            assert not thread.is_alive()


def test_sigterm_under_load() -> None:
    """A stop takes seconds, ends 0, tells open sessions 421, and what was accepted is delivered after the start."""
    behaviour = Behaviour(slow_secs=0.01)
    with sinking(behaviour=behaviour) as sink, cared_for(Daemon(RELAY.replace("SINK", str(sink.port)))) as daemon:
        for _turn in range(2):
            daemon.start()
            idle = socket.create_connection(("127.0.0.1", daemon.port), 30)
            halfway = socket.create_connection(("127.0.0.1", daemon.port), 30)
            halfway.sendall(b"EHLO c.test\r\nMAIL FROM:<a@client.test>\r\nRCPT TO:<b@example.com>\r\n")
            load = Load(daemon)
            wait_until("there is load", lambda one=load: len(one.accepted) > 100)
            assert daemon.stop(20) == 0, daemon.log[-3000:]
            load.stop()
            for client in (idle, halfway):
                heard = b""
                with client:
                    while data := client.recv(4096):
                        heard += data
                assert b"\r\n421 " in b"\r\n" + heard, heard
            daemon.start()
            wait_until(
                "all that was accepted arrives",
                lambda one=load: {number_of(mail.data) for mail in list(sink.mails)} >= one.accepted,
            )
            daemon.wait_empty()
            numbers = [number_of(mail.data) for mail in sink.mails]
            assert len(numbers) - len(set(numbers)) <= 10, "more doubled than were in flight"
            sink.mails.clear()
            assert daemon.stop() == 0


STALLED = """
smtp limit max-mails 100000
listen on 127.0.0.1 port {port} hostname mx.test
action dead relay host "smtp://127.0.0.1:DEAD"
action mute relay host "smtp://127.0.0.1:MUTE"
action full lmtp "127.0.0.1:FULL" rcpt-to virtual { "@" = "root" }
action out relay host "smtp://127.0.0.1:SINK"
match from any for domain dead.test action dead
match from any for domain mute.test action mute
match from any for domain full.test action full
match from any for any action out
"""


def resident_kib(pid: int) -> int:
    """Memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0])


def test_servers_that_stop_reading() -> None:
    """Mail for others is delivered meanwhile, memory stays bounded, and a stop does not wait for them."""
    dead, mute, full = Stalled(), Stalled(b"220 hello\r\n"), Stalled(
        b"220 hello\r\n250 hello\r\n250 ok\r\n250 ok\r\n354 go\r\n"
    )  # fmt: skip
    with sinking() as sink:
        config = STALLED
        for word, port in (("DEAD", dead.port), ("MUTE", mute.port), ("FULL", full.port), ("SINK", sink.port)):
            config = config.replace(word, str(port))
        with cared_for(Daemon(config)) as daemon:
            daemon.start()
            before = {name: resident_kib(daemon.pids()[name]) for name in ("delivery", "queue")}
            number = 0
            for _ in range(20):
                for domain in ("dead.test", "mute.test", "full.test"):
                    number += 1
                    assert offer(daemon, number, 1_000_000, rcpt=f"user@{domain}") == 250
                assert offer(daemon, 1000 + number, rcpt="user@example.com") == 250
            wait_until("the others' mail arrives", lambda: len(sink.mails) == 20)
            after = {name: resident_kib(daemon.pids()[name]) for name in ("delivery", "queue")}
            for name in before:
                assert after[name] - before[name] < 40_000, (name, before, after)
            assert daemon.queued() == number
            assert daemon.stop(20) == 0
            for server in (dead, mute, full):
                server.close()


@pytest.fixture
def mail_home() -> Iterator[Path]:
    """A folder that the mail user owns."""
    user = ensure_mail_user()
    home = Path(f"/var/tmp/sps-kill-{threading.get_native_id()}")
    home.mkdir()
    shutil.chown(home, user, user)
    yield home
    shutil.rmtree(home)


def test_an_agent_killed_in_the_middle(mail_home: Path) -> None:
    """Again and again while 200 messages are delivered: none is lost, none is partial, few are doubled."""
    user = ensure_mail_user()
    config = f"""
smtp limit max-mails 100000
table users {{ "@" = "{user}" }}
listen on 127.0.0.1 port {{port}}
action box maildir "{mail_home}/box" virtual <users>
match from any for domain "example.com" action box
"""
    size_bytes = 20_000
    with running(config) as daemon:
        daemon.ctl("pause", "mda")
        with daemon.smtp() as client:
            for number in range(200):
                client.sendmail("a@client.test", ["b@example.com"], text_of(number, size_bytes))
        daemon.ctl("resume", "mda")
        new, kills, inflight = mail_home / "box/new", 0, 0
        deadline = time.monotonic() + PATIENCE_SECS
        wait_until("the first is there", lambda: new.is_dir() and any(new.iterdir()))
        while time.monotonic() < deadline:
            agent = daemon.pids().get(f"agent {user}")
            if agent and kills < 8 and new.is_dir() and len(list(new.iterdir())) > kills * 10:
                with contextlib.suppress(ProcessLookupError):  # it had nothing left to do
                    os.kill(agent, signal.SIGKILL)
                    kills += 1
                    inflight += 64  # what delivery gives an agent at a time
            daemon.ctl("schedule", "all")
            if not daemon.queued():
                break
        assert kills >= 1  # a fast machine leaves little time for more
        daemon.wait_empty()
        arrived = []
        for path in new.iterdir():
            data = path.read_bytes()
            arrived.append(number_of(data))
            body = data.split(f"X-Number: {arrived[-1]}\n".encode(), 1)[1]
            whole = text_of(arrived[-1], size_bytes).replace("\r\n", "\n").split(f"X-Number: {arrived[-1]}\n", 1)[1]
            assert body.decode() == whole, f"{path} is partial"
        assert set(arrived) == set(range(200))
        assert len(arrived) - 200 <= inflight
