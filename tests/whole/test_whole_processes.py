"""The processes of the live daemon: who they are, what they may, how they end."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
from support.daemon import Daemon, cli, running, wait_until

CONFIG = """
listen on 127.0.0.1 port {port}
action out relay host "smtp://127.0.0.1:9"
match from any for any action out
"""
CORE = ("keys", "control", "smtp", "lookup", "queue", "delivery")
NEED_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="needs root: real users, chroot and separation")


def test_all_processes_are_there_and_audit_passes() -> None:
    """`audit` finds the seven processes as the policy declares them, in text and in JSON."""
    with running(CONFIG) as daemon:
        assert set(daemon.pids()) == {"parent", *CORE}
        text = daemon.ctl("audit")
        for name in CORE:
            assert name in text
        report = json.loads(daemon.ctl("audit", "--json"))
        assert report


@NEED_ROOT
def test_every_child_has_a_uid_of_its_own() -> None:
    """No two processes share a user, and none but the parent is root."""
    with running(CONFIG) as daemon:
        owners = {name: os.stat(f"/proc/{pid}/maps").st_uid for name, pid in daemon.pids().items()}
        uids = {
            name: int(Path(f"/proc/{pid}/status").read_text().split("Uid:")[1].split()[0])
            for name, pid in daemon.pids().items()
        }
        assert len(set(uids.values())) == 7
        assert [name for name, uid in uids.items() if uid == 0] == ["parent"]
        assert {owners[name] for name in CORE} == {0}, "a dumpable process belongs to its own user"


@pytest.mark.parametrize("victim", CORE)
def test_a_lost_child_stops_everything(victim: str) -> None:
    """Half-alive separation hides attacks: the daemon ends within seconds, and the log names who was lost."""
    daemon = Daemon(CONFIG)
    try:
        daemon.start()
        pids = daemon.pids()
        os.kill(pids[victim], signal.SIGKILL)
        assert daemon.process is not None
        assert daemon.process.wait(10) == 1
        daemon.wait_logged(f"lost child {victim}")
        daemon.wait_logged("killed by signal 9")
        wait_until("all are gone", lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids.values()))
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()
        daemon.remove()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_stop_in_order(number: signal.Signals) -> None:
    """SIGTERM and SIGINT end with status 0 and take sockets and pid file along."""
    with running(CONFIG) as daemon:
        assert daemon.process is not None
        daemon.process.send_signal(number)
        assert daemon.process.wait(20) == 0
        assert "lost child" not in daemon.log
        run = daemon.state / "run"
        assert not any(path.name.endswith((".sock", ".pid")) for path in run.iterdir())


def test_stop_by_the_operator() -> None:
    """`smtpctl_ps stop` ends the daemon in order."""
    with running(CONFIG) as daemon:
        daemon.ctl("stop")
        assert daemon.process is not None
        assert daemon.process.wait(20) == 0


def test_a_second_daemon_on_the_same_state_is_refused() -> None:
    """Two daemons never share a spool."""
    with running(CONFIG) as daemon:
        options = () if os.getuid() == 0 else ("--unprivileged",)
        again = cli("smtpd_ps", "-d", "-f", str(daemon.config_path), "--state-dir", str(daemon.state), *options)
        assert again.returncode == 1
        assert "another smtpd_ps is running" in again.stderr


def test_show_stats_and_status() -> None:
    """Counters under OpenSMTPD's names, and what is paused."""
    with running(CONFIG) as daemon:
        before = int(daemon.stats()["smtp.session"])
        with daemon.smtp() as client:
            client.noop()
        after = daemon.stats()
        assert int(after["scheduler.envelope"]) == 0
        assert int(after["uptime"]) >= 0
        assert before == 0
        daemon.ctl("pause", "mta")
        assert "paused" in daemon.ctl("show", "status")
        daemon.ctl("resume", "mta")
        assert "paused" not in daemon.ctl("show", "status")
        daemon.ctl("log", "brief")
        daemon.ctl("log", "verbose")


def test_many_connections_at_once_are_all_greeted() -> None:
    """A burst of 300 connections loses none (OpenSMTPD's backlog of 5 does)."""
    import socket

    with running(CONFIG) as daemon:
        socks = []
        try:
            for _ in range(300):
                sock = socket.socket()
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", daemon.port))
                socks.append(sock)
            deadline, greeted = time.monotonic() + 20, 0
            for sock in socks:
                sock.settimeout(max(0.1, deadline - time.monotonic()))
                greeted += sock.recv(100).startswith(b"220")
            assert greeted == 300
        finally:
            for sock in socks:
                sock.close()


def test_control_socket_garbage_only_disconnects_that_client() -> None:
    """Rubbish on the control socket ends that connection and nothing else (THREATS: local socket)."""
    import socket

    with running(CONFIG) as daemon:
        path = next(p for p in (daemon.state / "run").iterdir() if "control" in p.name)
        for rubbish in (b"\xff" * 100, b"\0" * 16, os.urandom(4096), b"GET / HTTP/1.0\r\n\r\n"):
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(str(path))
                sock.sendall(rubbish)
                sock.settimeout(5)
                assert sock.recv(100) == b""
        assert daemon.queued() == 0
