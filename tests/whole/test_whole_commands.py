"""Every command of smtpctl_ps on a live daemon: shortened, as JSON, refused; and the daemon's -P."""

import fcntl
import json
import signal
import socket
import subprocess
import sys
import threading

import pytest
from support.daemon import Daemon, cli, running, wait_until

from smtpd_ps.cli.smtpctl_ps import Commands

FILTER = """\
import sys
import threading
for line in sys.stdin:
    if line.startswith("config|ready"):
        print("register|filter|smtp-in|ehlo", "register|ready", sep="\\n", flush=True)
    elif line.startswith("filter|"):
        session, token = line.rstrip("\\n").split("|")[5:7]
        print(f"filter-result|{session}|{token}|proceed", flush=True)
"""
CONFIG = """\
proc good "/usr/bin/python3 -u {dir}/filter.py"
filter good proc good
listen on 127.0.0.1 port {port} filter good
action "away" relay host "smtp://127.0.0.1:9"
match from any for domain "away.example" action "away"
"""
PLAIN = "\n".join(line for line in CONFIG.splitlines() if "proc" not in line).replace(" filter good", "") + "\n"


def tried(daemon: Daemon) -> str:
    """The id of an envelope that was tried once in vain."""
    with daemon.smtp() as client:
        client.sendmail("ann@example.com", ["x@away.example"], "Subject: x\r\n\r\nx\r\n")
    wait_until("it was tried", lambda: int(daemon.stats()["scheduler.delivery.tempfail"]) > 0)
    return daemon.ctl("show", "queue").partition("|")[0]


@pytest.fixture
def filtering() -> Daemon:
    """A daemon that is not started yet, with a filter program."""
    daemon = Daemon(CONFIG)
    (daemon.dir / "filter.py").write_text(FILTER)
    (daemon.dir / "filter.py").chmod(0o644)
    return daemon


def test_every_show_as_json(filtering: Daemon) -> None:
    """Each show prints objects, one a line, wherever --json stands; and its first words may be shortened."""
    shows = {command.words[1:]: command for command in Commands(None, False).table() if command.words[0] == "show"}
    daemon = filtering
    try:
        daemon.start()
        evpid = tried(daemon)
        daemon.ctl("pause", "mta", "from", "192.0.2.1", "for", "away.example")
        empty = set()
        for words in shows:
            arguments = {("envelope",): [evpid], ("message",): [evpid[:8]]}.get(words, [])
            first = daemon.ctl("--json", "show", *words, *arguments)
            again = daemon.ctl("sh", *words, *arguments, "--json")
            found = [json.loads(line) for line in first.splitlines()]
            assert all(isinstance(one, dict) and one for one in found)
            assert len(again.splitlines()) == len(found)
            if not found:
                empty.add(words)
        assert empty == {("corrupt",), ("tables",)}  # there are none of either
        assert daemon.stop() == 0
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait(10)
        daemon.remove()


def test_show_filters(filtering: Daemon) -> None:
    """How a filter program does, in the words of show tables."""
    daemon = filtering
    try:
        daemon.start()
        with daemon.smtp() as client:
            client.ehlo("client.test")
        shown = daemon.ctl("show", "filters")
        assert shown.startswith("good: running, 0 restarts, 0 in flight, ")
        assert " asked, 0 failed, latency " in shown and shown.endswith(" ms (50/95/99 %), offers ehlo\n")
        (row,) = [json.loads(line) for line in daemon.ctl("show", "filters", "--json").splitlines()]
        assert (row["name"], row["state"], row["offers"]) == ("good", "running", "ehlo") and row["asked"] >= 1
        assert daemon.stop() == 0
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait(10)
        daemon.remove()


def test_log_verbose_and_brief() -> None:
    """What only -v logs is logged, or not, soon after log verbose and log brief; a reload keeps either."""

    def says(daemon: Daemon) -> bool:
        before = daemon.log.count("source=192.0.2.9\n")
        behind_a_proxy(daemon.port2)
        return daemon.log.count("source=192.0.2.9\n") > before

    with running(PLAIN + "listen on 127.0.0.1 port {port2} proxy-v2\n") as daemon:
        for word, verbose in (("brief", False), ("verbose", True), ("b", False)):
            assert daemon.ctl("log", word) == ""
            wait_until(f"log {word}", lambda verbose=verbose: says(daemon) == verbose)
            daemon.ctl("reload")
            assert says(daemon) == verbose


def behind_a_proxy(port: int) -> None:
    """A session of which a line is logged with -v alone."""
    addresses = socket.inet_aton("192.0.2.9") + socket.inet_aton("127.0.0.1") + b"\x10\x00\x00\x19"
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c" + addresses)
        assert sock.recv(512).startswith(b"220")
        sock.sendall(b"QUIT\r\n")
        while sock.recv(1024):
            pass


def test_started_paused() -> None:
    """-P, as often as wanted: the part does nothing until it is resumed, and a reload does not pause it anew."""
    with running(PLAIN, options=("-P", "mta", "-P", "mda")) as daemon:
        assert daemon.ctl("show", "status") == "MDA paused\nMTA paused\nSMTP running\n"
        with daemon.smtp() as client:
            client.sendmail("ann@example.com", ["x@away.example"], "Subject: x\r\n\r\nx\r\n")
        assert daemon.stats()["scheduler.delivery.tempfail"] == "0"
        daemon.ctl("resume", "mta")
        wait_until("it is tried", lambda: int(daemon.stats()["scheduler.delivery.tempfail"]) > 0)
        daemon.ctl("reload")
        assert daemon.ctl("show", "status") == "MDA paused\nMTA running\nSMTP running\n"
        daemon.ctl("remove", "all")


def test_smtp_started_paused() -> None:
    """-P smtp: nobody is greeted before resume smtp, also not after a reload; then who waited is."""
    daemon = Daemon(PLAIN, options=("-P", "smtp"))
    try:
        daemon.start(wait=False)
        wait_until("it serves", lambda: "serving" in daemon.log)
        assert daemon.ctl("show", "status") == "MDA running\nMTA running\nSMTP paused\n"
        with socket.create_connection(("127.0.0.1", daemon.port), 5) as sock:
            daemon.ctl("reload")
            assert "connected" not in daemon.log
            daemon.ctl("resume", "smtp")
            assert sock.recv(512).startswith(b"220")
        daemon.ctl("reload")
        assert daemon.greets()
        assert daemon.stop() == 0
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait(10)
        daemon.remove()


def test_what_cannot_be_paused_at_the_start() -> None:
    """Said with what can."""
    done = cli("smtpd_ps", "-P", "queue", "-n")
    assert done.returncode == 64 and "-P queue: known are mda mta smtp" in done.stderr


def test_refusals_go_to_standard_error() -> None:
    """Unknown commands and malformed ids 255, what the daemon refuses 1; an unknown id is 0 envelopes and 0."""
    assert sys.executable
    with running(PLAIN) as daemon:
        for words, status, said in (
            (("frobnicate",), 255, "unknown command"),
            (("show",), 255, "possible: show corrupt"),
            (("show", "sta"), 255, "show stats"),
            (("remove", "xyz"), 255, "neither a message id"),
            (("show", "envelope", "0123456789abcdef"), 1, "no envelope"),
            (("show", "message", "01234567"), 1, "no message"),
            (("update", "table", "nothing"), 1, "nothing"),
            (("trace", "nothing"), 1, "unknown subsystem"),
        ):  # fmt: skip
            done = cli("smtpctl_ps", "--state-dir", str(daemon.state), *words)
            assert (done.returncode, done.stdout) == (status, ""), (words, done)
            assert said in done.stderr, (words, done)
        assert daemon.ctl("remove", "0123456789abcdef") == "0 envelope removed\n"


def test_show_queue_without_a_daemon() -> None:
    """What waits is listed as offline from the store, after a crash too, and no file of it is touched."""
    with running(PLAIN + "queue compression\n") as daemon:
        evpid = tried(daemon)
        row = daemon.ctl("show", "queue").strip().split("|")
        for end in (lambda: daemon.process.kill(), daemon.stop):
            pids = daemon.pids()
            end()
            daemon.process.wait(30)
            daemon.wait_gone(pids)
            files = {path: path.stat() for path in (daemon.state / "spool").rglob("*")}
            (line,) = daemon.ctl("show", "queue").splitlines()
            fields = line.split("|")
            assert fields[:8] == row[:8] and fields[8] == "0" and fields[9:11] == row[9:11]
            assert fields[11] == "offline" and fields[13] == row[13]
            assert daemon.ctl("show", "queue", "00000001") == ""
            assert json.loads(daemon.ctl("show", "queue", evpid[:8], "--json"))["state"] == "offline"
            assert {path: path.stat().st_mtime_ns for path in (daemon.state / "spool").rglob("*")} == {
                path: found.st_mtime_ns for path, found in files.items()
            }
            with (daemon.state / "run" / "lock").open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                done = cli("smtpctl_ps", "--state-dir", str(daemon.state), "show", "queue")
                assert done.returncode == 1 and "is smtpd_ps running?" in done.stderr
            daemon.start()
        daemon.ctl("remove", "all")


def test_an_encrypted_queue_without_a_daemon() -> None:
    """Only the key can read it: how many messages there are is said on standard error."""
    with running(PLAIN + "queue encryption 0123456789abcdef0123456789abcdef\n") as daemon:
        tried(daemon)
        daemon.stop()
        done = cli("smtpctl_ps", "--state-dir", str(daemon.state), "show", "queue")
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr == "smtpctl_ps: 1 message encrypted: only the daemon can show what is in it\n"


def follower(daemon: Daemon, pattern: str) -> subprocess.Popen[str]:
    """`trace session`, which begins some time after it was started."""
    words = [sys.executable, "-I", "-m", "smtpd_ps.cli.smtpctl_ps", "--state-dir", str(daemon.state)]
    return subprocess.Popen([*words, "trace", "session", pattern], stdout=subprocess.PIPE, text=True)


def test_a_session_is_traced_live() -> None:
    """From the connection to the failed try, over a reload, and no other session; the log has nothing of it."""
    with running(PLAIN) as daemon:
        process = follower(daemon, "watched@example.com")
        said: list[str] = []
        assert process.stdout is not None
        reader = threading.Thread(target=lambda: said.extend(process.stdout or ()))
        reader.start()

        def mails(sender: str) -> bool:
            with daemon.smtp() as client:
                client.sendmail(sender, ["x@away.example"], "Subject: secret\r\n\r\nx\r\n")
            return any("<<< " in line for line in said)

        def tries() -> int:
            return sum("scheduler: again" in line for line in said)

        wait_until("it is traced", lambda: mails("watched@example.com"))
        wait_until("its try too", lambda: tries() >= 1)
        daemon.ctl("reload")
        before = tries()
        mails("watched@example.com")
        wait_until("after the reload too", lambda: tries() > before)
        mails("another@example.com")
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        reader.join(30)
        process.stdout.close()
        text = "".join(said)
        for part in ("smtp: ", " smtp connected address=127.0.0.1", "<<< ehlo client.test", "lookup: rules: ",
                     "queue: scheduler: try msgid=", "message msgid="):  # fmt: skip
            assert part in text, text
        assert "another@" not in text and "secret" not in text
        assert "<<<" not in daemon.log
        daemon.ctl("remove", "all")
