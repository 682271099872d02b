"""Mail streaming through a daemon whose processes are killed: numbered attempts, and where each arrived.

An attempt is one try of a client to hand a message over, with an id of its own. One that heard its 250 must arrive,
whole; one that heard nothing may (the daemon stored it and died before it could say so). One that arrives twice is
a duplicate of the daemon's making.
"""

import itertools
import os
import shutil
import smtplib
import threading
import time
from collections import Counter
from pathlib import Path

from support.daemon import Daemon
from support.sink import Sink
from support.users import ensure_mail_user

CLIENTS = 6
MAX_INFLIGHT = 40  # envelopes that delivery is given at a time: as many may be doubled by a kill
CONFIG = """
smtp limit max-mails 100000
scheduler limit max-inflight {inflight}
{lines}
table users {{ "@" = "{user}" }}
listen on 127.0.0.1 port {{port}}
action out relay host "smtp://127.0.0.1:{sink}"
action box maildir "{home}/box" virtual <users>
action cmd mda "{home}/take" virtual <users>
match from any for domain "box.example" action box
match from any for domain "cmd.example" action cmd
match from any for any action out
"""
# The message has its name only when it is whole: a command whose agent is killed may be ended, or go on.
TAKE = """#!/bin/sh
new=$(mktemp {home}/tmp/XXXXXXXXXX) && cat > "$new" && mv "$new" {home}/taken/
"""
DOMAINS = ("out.example", "box.example", "cmd.example")


def text_of(attempt: int) -> str:
    """The message of an attempt; every fiftieth goes through a spool file."""
    lines = f"line of {attempt}\r\n" * (attempt % 60)
    if attempt % 50 == 0:
        lines += (f"large {attempt} " * 8 + "\r\n") * 1500
    return f"Subject: {attempt}\r\nX-Attempt: {attempt}\r\n\r\n{lines}end of {attempt}\r\n"


class Places:
    """A host to relay to, a Maildir and a command's folder, all below `home`."""

    def __init__(self, home: Path, sink: Sink) -> None:
        self.home, self.sink = home, sink
        user = ensure_mail_user()
        for path in (home, home / "tmp", home / "taken"):
            path.mkdir()
            shutil.chown(path, user, user)
            path.chmod(0o755)
        take = home / "take"
        take.write_text(TAKE.format(home=home))
        take.chmod(0o755)
        self.seen: Counter[int] = Counter()  # what `look` has found so far
        self._files: set[Path] = set()
        self._mails = 0  # of the sink, that were looked at

    def config(self, lines: str) -> str:
        """smtpd.conf, with `lines` more."""
        return CONFIG.format(
            inflight=MAX_INFLIGHT, lines=lines, user=ensure_mail_user(), sink=self.sink.port, home=self.home
        )

    def look(self) -> int:
        """Count what has arrived since the last look, and return how much of it had arrived before."""
        found: Counter[int] = Counter()
        known = len(self.seen)
        mails = self.sink.mails[self._mails :]
        self._mails += len(mails)
        for mail in mails:
            found[attempt_of(mail.data, "the sink")] += 1
        for folder in (self.home / "box/new", self.home / "taken"):
            for path in set(folder.glob("*")) - self._files:
                self._files.add(path)
                found[attempt_of(path.read_bytes().replace(b"\n", b"\r\n"), str(path))] += 1
        self.seen += found
        return found.total() - (len(self.seen) - known)


def attempt_of(data: bytes, where: str) -> int:
    """The attempt that a message was, all of whose body must be there."""
    number = int(data.split(b"X-Attempt: ", 1)[1].split(b"\r\n", 1)[0])
    body = data.partition(b"\r\n\r\n")[2]
    assert body == text_of(number).encode().partition(b"\r\n\r\n")[2], (
        f"{where}: attempt {number} is not whole: {data!r}"
    )
    return number


class Stream:
    """Clients that send until told to stop; `accepted` are the attempts that got their 250."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self.accepted: set[int] = set()
        self.unanswered: set[int] = set()  # the message was on its way when the connection broke
        self.refused: list[str] = []
        self._numbers = itertools.count(1)
        self._stopping = False
        self._threads = [threading.Thread(target=self._client, daemon=True) for _ in range(CLIENTS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Until every client has ended."""
        self._stopping = True
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _client(self) -> None:
        while not self._stopping:
            try:
                with smtplib.SMTP("127.0.0.1", self.daemon.port, local_hostname="client.test", timeout=30) as client:
                    for _ in range(5):
                        self._send(client)
            except (OSError, smtplib.SMTPException):
                time.sleep(0.05)  # it is dead, or being started

    def _send(self, client: smtplib.SMTP) -> None:
        number = next(self._numbers)
        self.unanswered.add(number)
        try:
            client.sendmail("a@client.test", [f"b@{DOMAINS[number % 3]}"], text_of(number))
        except smtplib.SMTPRecipientsRefused as error:
            self._refused(number, *next(iter(error.recipients.values())))
            raise
        except smtplib.SMTPResponseException as error:
            self._refused(number, error.smtp_code, error.smtp_error)
            raise
        self.accepted.add(number)
        self.unanswered.discard(number)

    def _refused(self, number: int, code: int, text: bytes | str) -> None:
        if code == -1:
            return  # smtplib's own: the connection broke
        self.unanswered.discard(number)
        if code >= 500:
            self.refused.append(f"{number}: {code} {text!r}")


def mail_home(name: str) -> Path:
    """A folder that does not exist yet, where mail users may go."""
    path = Path(f"/var/tmp/sps-{name}-{os.getpid()}")
    shutil.rmtree(path, ignore_errors=True)
    return path
