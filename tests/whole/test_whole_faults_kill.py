"""Processes killed and stopped in the middle of work: what was accepted is delivered, whole, and at once startable."""

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
from support.faults import NEED_ROOT, RELAY, Stalled, cared_for, number_of, offer
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
        daemon.ctl("schedule", "all")
        wait_until("all of it arrives", lambda: {number_of(mail.data) for mail in sink.mails} == accepted)
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
