"""Kill any process at any moment: what got its 250 is never lost."""

import os
import random
import signal
import smtplib
import threading
import time

import pytest
from support.daemon import Daemon, wait_until
from support.sink import sinking

MESSAGES = 2000
CLIENTS = 8
ROUNDS = 16  # each kind of process twice
CONFIG = """
smtp limit max-mails 100000
listen on 127.0.0.1 port {port}
action out relay host "smtp://127.0.0.1:SINK"
match from any for any action out
"""


class Stream:
    """Clients that send numbered messages, each until it got its 250; `accepted` grows."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.accepted: set[int] = set()
        self.broken: list[str] = []
        self._next = iter(range(MESSAGES))
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    @property
    def done(self) -> bool:
        """Whether every message was accepted."""
        return not any(thread.is_alive() for thread in self._threads)

    def _client(self) -> None:
        while True:
            with self._lock:
                number = next(self._next, None)
            if number is None:
                return
            while not self._send(number) and not self.broken:
                time.sleep(0.05)

    def _send(self, number: int) -> bool:
        body = f"Subject: {number}\r\nX-Number: {number}\r\n\r\n" + f"line {number}\r\n" * (number % 50)
        if number % 100 == 0:
            body += ("large " * 12 + "\r\n") * 2000  # through a spool file
        try:
            with smtplib.SMTP("127.0.0.1", self.daemon.port, timeout=20) as client:
                client.sendmail("a@client.test", ["b@example.com"], body)
        except smtplib.SMTPResponseException as error:
            if error.smtp_code >= 500:
                self.broken.append(f"{number}: {error}")
            return False
        except (OSError, smtplib.SMTPException):
            return False
        self.accepted.add(number)
        return True


@pytest.mark.timeout(540)
def test_no_accepted_message_is_lost() -> None:
    """SIGKILL to each kind of process (and to all) at random moments of a stream of 2,000 messages."""
    dice = random.Random(20261122)
    with sinking() as sink:
        daemon = Daemon(CONFIG.replace("SINK", str(sink.port)))
        try:
            daemon.start()
            stream = Stream(daemon)
            victims = ["smtp", "queue", "delivery", "lookup", "parent", "keys", "control", "all"]
            kills = 0
            while kills < ROUNDS:
                wait_until("the stream goes on", lambda due=kills: len(stream.accepted) >= due * MESSAGES // ROUNDS, 60)
                time.sleep(dice.uniform(0, 0.1))
                pids = daemon.pids()
                victim = victims[kills % len(victims)]
                for name, pid in pids.items():
                    if victim in (name, "all"):
                        os.kill(pid, signal.SIGKILL)
                kills += 1
                assert daemon.process is not None
                daemon.process.wait(20)
                daemon.wait_gone(pids)
                daemon.start()
            wait_until("every message is accepted", lambda: stream.done, 120)
            assert not stream.broken
            assert len(stream.accepted) == MESSAGES
            daemon.ctl("schedule", "all")
            daemon.wait_empty(120)
            arrived = [int(mail.data.split(b"X-Number: ")[1].split(b"\r\n")[0]) for mail in sink.mails]
            assert stream.accepted - set(arrived) == set()
            duplicates = len(arrived) - len(set(arrived))
            print(f"{kills} kills, {len(arrived)} arrivals, {duplicates} duplicates")
            assert daemon.stop() == 0
        finally:
            if daemon.process and daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait()
            daemon.remove()
