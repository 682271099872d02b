"""Several smtp and delivery processes: they share the work, and are as separated as one of each."""

import json
import os
import signal
import smtplib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from support.daemon import Daemon, running, wait_until
from support.sink import sinking

CONFIG = """
smtp limit processes 3
mta limit processes 2
listen on 127.0.0.1 port {port}
action a relay host "smtp+notls://127.0.0.1:SINK"
action b relay host "smtp+notls://127.0.0.1:SINK"
action c relay host "smtp+notls://127.0.0.1:SINK"
action d relay host "smtp+notls://127.0.0.1:SINK"
match from any for domain a.test action a
match from any for domain b.test action b
match from any for domain c.test action c
match from any for any action d
"""
MESSAGES = 120


def processes(daemon: Daemon) -> list[dict[str, Any]]:
    """As audit names them, which finds nothing wrong."""
    rows: list[dict[str, Any]] = json.loads(daemon.ctl("audit", "--json"))["processes"]
    return rows


def _submit(daemon: Daemon, number: int) -> None:
    with smtplib.SMTP("127.0.0.1", daemon.port, timeout=20) as client:
        client.sendmail("a@client.test", [f"x@{'abcd'[number % 4]}.test"], f"Subject: {number}\r\n\r\nhello\r\n")


def test_they_share_the_work() -> None:
    """Every message arrives once, no matter which process took it and which sent it; audit and counters know all."""
    with sinking() as sink, running(CONFIG.replace("SINK", str(sink.port))) as daemon:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: _submit(daemon, number), range(MESSAGES)))
        wait_until("all have arrived", lambda: len(sink.mails) == MESSAGES)
        daemon.wait_empty()
        subjects = [line for mail in sink.mails for line in mail.data.split(b"\r\n") if line.startswith(b"Subject: ")]
        assert len(set(subjects)) == MESSAGES
        kinds = [row["process"] for row in processes(daemon)]
        assert (kinds.count("smtp"), kinds.count("delivery"), kinds.count("lookup")) == (3, 2, 1)
        assert "Traceback" not in daemon.log
        assert daemon.stats()["scheduler.delivery.ok"] == str(MESSAGES)


def test_a_session_ends_in_the_process_that_has_it() -> None:
    """Sessions that stay open while others come are answered by who greeted them, also after a reload."""
    with sinking() as sink, running(CONFIG.replace("SINK", str(sink.port))) as daemon:
        clients = [smtplib.SMTP("127.0.0.1", daemon.port, timeout=20) for _ in range(24)]
        for client in clients:
            assert client.mail("a@client.test")[0] in (250, 503)
            client.ehlo()
        daemon.config = daemon.config.replace("smtp limit processes 3", "smtp limit processes 1")
        daemon.write_config()
        daemon.ctl("reload")
        for number, client in enumerate(clients):
            client.sendmail("a@client.test", [f"x@{'abcd'[number % 4]}.test"], "Subject: x\r\n\r\nhello\r\n")
            client.quit()
        wait_until("all have arrived", lambda: len(sink.mails) == len(clients))
        wait_until("the old generation has ended", lambda: "generation 0 has ended" in daemon.log)
        assert [row["process"] for row in processes(daemon)].count("smtp") == 1


def test_pausing_pauses_all_of_them() -> None:
    """No smtp process accepts while smtp is paused."""
    with running(CONFIG.replace("SINK", "9")) as daemon:
        daemon.ctl("pause", "smtp")
        with ThreadPoolExecutor(8) as pool:
            clients = list(pool.map(lambda _: _knock(daemon.port), range(8)))
        assert not any(clients)
        daemon.ctl("resume", "smtp")
        wait_until("it greets again", daemon.greets)


def _knock(port: int) -> bool:
    try:
        smtplib.SMTP("127.0.0.1", port, timeout=1).close()
    except OSError:
        return False
    return True


def test_the_loss_of_any_of_them_stops_everything() -> None:
    """The second smtp process is no less a core process than the first."""
    daemon = Daemon(CONFIG.replace("SINK", "9"))
    try:
        daemon.start()
        victims = [row["pid"] for row in processes(daemon) if row["process"] == "smtp"]
        os.kill(victims[1], signal.SIGKILL)
        assert daemon.process is not None
        assert daemon.process.wait(10) == 1
        daemon.wait_logged("lost child smtp 2")
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait(10)
        daemon.remove()
