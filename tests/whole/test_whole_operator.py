"""smtpctl_ps and the running daemon: envelopes paused, damaged mail put back, as an operator does it."""

from support.daemon import Daemon, running, wait_until

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
        assert daemon.ctl("discover", "0000000000000077") == "0 envelope discovered\n"
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
