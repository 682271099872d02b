"""smtpctl_ps and the running daemon: envelopes paused, damaged mail put back, as an operator does it."""

import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios

from support.daemon import Daemon, cli, running, wait_until

from smtpd_ps.runtime import tracing

CONFIG = """\
listen on 127.0.0.1 port {port}
action "away" relay host "smtp://127.0.0.1:9"
match from any for domain "away.example" action "away"
"""


def failed_once(daemon: Daemon, *bodies: str) -> list[list[str]]:
    """The rows of `show queue` when each message was tried."""
    before = int(daemon.stats()["scheduler.delivery.tempfail"])
    with daemon.smtp() as client:
        for body in bodies:
            client.sendmail("ann@example.com", ["x@away.example"], body)
    wait_until("they were tried",
               lambda: int(daemon.stats()["scheduler.delivery.tempfail"]) >= before + len(bodies))  # fmt: skip
    return rows(daemon)


def rows(daemon: Daemon) -> list[list[str]]:
    return [line.split("|") for line in daemon.ctl("show", "queue").splitlines()]


def test_an_envelope_is_paused_over_a_restart() -> None:
    """With words shortened; schedule says that it is paused."""
    with running(CONFIG) as daemon:
        ((evpid, *_),) = failed_once(daemon, "Subject: x\r\n\r\nx\r\n")
        assert daemon.ctl("pause", "env", evpid) == "1 envelope paused\n"
        daemon.stop()
        daemon.start()
        ((_evpid, _family, _kind, flags, *_),) = rows(daemon)
        assert flags == "suspend"
        said = daemon.ctl("schedule", evpid)
        assert said == "0 envelope scheduled\n1 paused: resume envelope lets it be tried\n"
        assert daemon.ctl("resume", "envelope", "all") == "1 envelope resumed\n"
        assert rows(daemon)[0][3] == ""
        assert daemon.ctl("discover", "0000000000000077") == "0 envelopes discovered\n"
        daemon.ctl("remove", "all")


def test_damaged_mail() -> None:
    """A body that is gone is quarantined; back in its place, the message is put back."""
    large = "Subject: large\r\n\r\n" + "x" * 70 * 1000 + "\r\n"
    with running(CONFIG) as daemon:
        ((evpid, *_),) = failed_once(daemon, large.replace("x" * 70, "y" * 70 + "\r\n"))
        msgid = evpid[:8]
        daemon.stop()
        path = daemon.state / "spool" / "queue" / "bodies" / msgid
        path.rename(daemon.dir / "kept")
        daemon.start()
        daemon.ctl("schedule", "all")
        wait_until("it is quarantined", lambda: daemon.ctl("show", "corrupt"))
        assert daemon.ctl("show", "corrupt") == f"{msgid}|1|no body file\n"
        assert '"reason":"no body file"' in daemon.ctl("--json", "show", "corrupt")
        assert rows(daemon) == [] and daemon.queued() == 0
        assert daemon.ctl("uncorrupt", msgid, check=False) == ""
        (daemon.dir / "kept").rename(path)
        assert daemon.ctl("uncorrupt", "all") == "1 envelope put back\n"
        assert daemon.ctl("show", "corrupt") == "" and daemon.queued() == 1
        daemon.ctl("remove", "all")


def test_traces() -> None:
    """Each subsystem says what it does from when it is asked to until it is told to stop; a reload keeps it."""
    with running(CONFIG) as daemon:
        failed_once(daemon, "Subject: untraced\r\n\r\nx\r\n")
        assert "<<<" not in daemon.log
        assert daemon.ctl("trace", "all") == "" and daemon.ctl("profile", "imsg") == ""
        daemon.ctl("profile", "queue")
        failed_once(daemon, "Subject: traced\r\n\r\nnever in a log\r\n")
        wanted = (
            "smtp: smtp: ", " <<< ehlo client.test", ">>> 250", "queue: queue: commit: 1 new",
            "queue: scheduler: try msgid=", "queue: scheduler: again evpid=", "lookup: rules: ", "action away",
            "lookup: expand: ", "smtp: imsg: smtp -> lookup RcptRequest", "lookup: imsg: lookup <- smtp RcptRequest",
            "queue: mproc: queue <- ", "smtp: io: fd=", "profile-imsg: queue <- smtp Commit ", "control: stat: ",
        )  # fmt: skip
        daemon.wait_logged(*wanted)
        assert "never in a log" not in daemon.log
        daemon.ctl("untrace", "all")
        daemon.ctl("unprofile", "imsg")
        daemon.ctl("unprofile", "queue")
        daemon.ctl("trace", "smtp")
        daemon.ctl("reload")
        before = len(daemon.log)
        failed_once(daemon, "Subject: traced\r\n\r\nx\r\n")
        wait_until("it is traced", lambda: "<<< ehlo" in daemon.log[before:])
        later = daemon.log[before:]
        assert "imsg: " not in later and "mproc: " not in later
        daemon.ctl("untrace", "smtp")
        daemon.ctl("remove", "all")


def test_traced_from_the_start() -> None:
    """-T, as often as wanted; what is not known is a wrong use."""
    with running(CONFIG, options=("-T", "queue", "-T", "smtp")) as daemon:
        failed_once(daemon, "Subject: x\r\n\r\nx\r\n")
        daemon.wait_logged("queue: queue: commit: 1 new", "<<< ehlo")
        assert "imsg:" not in daemon.log
        daemon.ctl("remove", "all")
    done = cli("smtpd_ps", "-T", "nothing", "-n")
    assert done.returncode == 64 and "-T nothing: known are imsg io" in done.stderr


def test_an_unknown_subsystem() -> None:
    """What is known is said, on standard error, with status 1."""
    with running(CONFIG) as daemon:
        done = cli("smtpctl_ps", "--state-dir", str(daemon.state), "trace", "nothing")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("smtpctl_ps: unknown subsystem nothing; known: imsg io smtp filters")


def test_passwords_are_not_traced() -> None:
    """AUTH in one line, in two, and in a dialogue."""
    secret = b"AGFubgBzZWNyZXQ="
    for data in (b"AUTH PLAIN " + secret + b"\r\n", secret + b"\r\n", b"AUTH LOGIN\r\n" + secret + b"\r\n" + secret):
        assert "AGFub" not in tracing.commands(data)


def ctl_process(daemon: Daemon, *words: str, **more: object) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-I", "-m", "smtpd_ps.cli.smtpctl_ps", "--state-dir", str(daemon.state), *words]
    return subprocess.Popen(argv, **more)  # type: ignore[call-overload,no-any-return]


def test_monitor_into_a_pipe() -> None:
    """Lines come as they are made (QUIRKS 48); an interrupt ends it well."""
    with running(CONFIG) as daemon:
        failed_once(daemon, "Subject: x\r\n\r\nx\r\n")
        process = ctl_process(daemon, "monitor", stdout=subprocess.PIPE)
        assert process.stdout is not None
        lines = [process.stdout.readline().decode() for _ in range(4)]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        process.stdout.close()
        assert lines[1].split()[:6] == ["curr", "conn", "disc", "curr", "enq", "deq"]
        first, second = ([int(word) for word in text.split()] for text in lines[2:])
        assert len(first) == len(second) == 13
        assert first[1] >= 2 and first[3:5] == [1, 1] and first[7] >= 1
        assert second[1:3] == [0, 0] and second[3:5] == [1, 0]
        daemon.ctl("remove", "all")


def test_top_on_a_terminal() -> None:
    """It fills the screen and no more, and gives the terminal back; without a terminal it says so."""
    with running(CONFIG) as daemon:
        assert "top draws on a terminal" in cli("smtpctl_ps", "--state-dir", str(daemon.state), "top").stderr
        master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        before = termios.tcgetattr(slave)
        process = ctl_process(daemon, "top", stdin=slave, stdout=slave)
        shown = b""
        while shown.count(b"scheduler.envelope.incoming") < 2:
            shown += os.read(master, 65536)
        os.write(master, b"q")
        assert process.wait(30) == 0
        assert termios.tcgetattr(slave) == before
        first = shown.split(b"\x1b[H")[1]
        assert first.count(b"\r\n") <= 29
        os.close(master)
        os.close(slave)
