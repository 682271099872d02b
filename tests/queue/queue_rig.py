"""A queue with a clock and timers of its own, a store in memory or on disk, and recorded channels."""

import heapq
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ActionSchedule, QueueSettings
from smtpd_ps.contract.values import Client, Dsn, Envelope, Job, Result, Status
from smtpd_ps.queue.bodies import BodyFiles
from smtpd_ps.queue.core import Queue
from smtpd_ps.queue.shared import Peers, Shared
from smtpd_ps.queue.store.embedded import EmbeddedStore
from smtpd_ps.queue.store.protocol import Store
from smtpd_ps.queue.store.records import checksum

START_MS = 1_700_000_000_000
BODY = b"Subject: x\r\n\r\nhello\r\n"


class Failed(Exception):
    """The process would have ended."""


class Recorder:
    """The sending end of a channel."""

    def __init__(self) -> None:
        self.sent: list[m.Message] = []
        self.fds: list[int] = []
        self.pending_bytes = 0

    def send(self, message: m.Message, *fds: int) -> None:
        self.sent.append(message)
        self.fds.extend(fds)

    def flush(self) -> None:
        """They are sent already."""

    def take(self, kind: type[m.Message]) -> list:
        """The messages of `kind` sent so far, once."""
        found = [one for one in self.sent if isinstance(one, kind)]
        self.sent = [one for one in self.sent if not isinstance(one, kind)]
        return found


class Timers:
    """Timers of a clock that only `advance` moves."""

    def __init__(self) -> None:
        self.now_ms = START_MS
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._ending: dict[Callable[[], None], None] = {}

    def call_later(self, delay_secs: float, callback: Callable[[], None]) -> object:
        heapq.heappush(self._heap, (self.now_ms + delay_secs * 1000, next(self._order), callback))
        return None

    def at_turn_end(self, callback: Callable[[], None]) -> None:
        self._ending[callback] = None

    def turn(self) -> None:
        """The end of a loop turn."""
        while self._ending:
            ending, self._ending = self._ending, {}
            for callback in ending:
                callback()

    def advance(self, ms: float) -> None:
        """Let time pass, timer by timer."""
        until = self.now_ms + ms
        self.turn()
        while self._heap and self._heap[0][0] <= until:
            when, _, callback = heapq.heappop(self._heap)
            self.now_ms = max(self.now_ms, int(when + 0.999))
            callback()
            self.turn()
        self.now_ms = int(until)


class Lines:
    """The log."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def error(self, text: str) -> None:
        self.lines.append(text)

    warning = info = debug = error

    def has(self, text: str) -> bool:
        return any(text in line for line in self.lines)


def fail(text: str) -> NoReturn:
    raise Failed(text)


SETTINGS = QueueSettings(
    hostname="mx.example.com",
    actions=(
        ActionSchedule("in", "lmtp"),
        ActionSchedule("home", "agent"),
        ActionSchedule("out", "mx"),
        ActionSchedule("short", "host", ttl_secs=600),
    ),
)


def envelope(dest: str = "bob@example.org", action: str = "out", sender: str = "ann@example.com", **more) -> Envelope:
    """An envelope as lookup makes it."""
    dsn = more.pop("dsn", Dsn())
    client = Client(address="192.0.2.1", name="client.example.net", helo="client")
    return Envelope(action, sender, dest, dest, more.pop("user", ""), client, dsn, **more)


class Rig:
    """The queue under test and the other ends of its channels."""

    def __init__(self, directory: Path, settings: QueueSettings = SETTINGS, store: Store | None = None,
                 timers: Timers | None = None) -> None:  # fmt: skip
        self.directory = directory
        self.timers = timers or Timers()
        self.log = Lines()
        self.store = store if store is not None else EmbeddedStore(directory / "queue.db")
        self.bodies = BodyFiles(directory / "bodies")
        self.peers = Peers()
        self.smtp, self.lookup, self.delivery, self.control = (Recorder() for _ in range(4))
        self.peers.smtp = {0: self.smtp}
        self.peers.lookup, self.peers.control = self.lookup, self.control
        self.peers.deliveries = ((0, self.delivery),)
        self.shared = Shared(
            settings, self.store, self.bodies, self.peers, self.timers, self.log, lambda: self.timers.now_ms, fail
        )
        self.queue = Queue(self.shared)
        self._handlers = {
            **self.queue.smtp_handlers(0), **self.queue.lookup_handlers(),
            **self.queue.delivery_handlers(), **self.queue.control_handlers(),
        }  # fmt: skip
        self.queue.start()
        self.timers.turn()
        self.ids = [one for lease in self.smtp.take(m.IdLease) for one in lease.ids]
        self._transactions = itertools.count(1)

    def say(self, *messages: m.Message) -> None:
        """Messages that arrive in one loop turn."""
        for message in messages:
            self._handlers[type(message)](message)
        self.timers.turn()

    def accept(self, *envelopes: Envelope, body: bytes = BODY) -> int:
        """A small message through all its steps; its id."""
        msgid, number = self.ids.pop(0), next(self._transactions)
        self.say(m.RcptAccept(7, number, 1, envelopes or (envelope(),)))
        self.say(m.Commit(7, number, msgid, False, body))
        return msgid

    def accept_file(self, *envelopes: Envelope, body: bytes) -> int:
        """A large message through all its steps; its id."""
        msgid, number = self.ids.pop(0), next(self._transactions)
        self.say(m.RcptAccept(7, number, 1, envelopes or (envelope(),)))
        self.say(m.BodyOpen(7, number, msgid))
        assert self.smtp.take(m.BodyFile)
        fd = self.smtp.fds.pop()
        os.write(fd, body)
        os.close(fd)
        self.say(m.CommitFile(7, number, msgid, False, len(body), checksum(body)))
        return msgid

    def jobs(self) -> list[Job]:
        """What delivery was sent since the last call."""
        small = [job for deliver in self.delivery.take(m.Deliver) for job in deliver.jobs]
        return small + [deliver.job for deliver in self.delivery.take(m.DeliverFile)]

    def answer(self, jobs: list[Job], status: Status, text: str = "250 2.0.0 ok", **more) -> None:
        """Delivery's answer for all envelopes of `jobs`."""
        results = tuple(Result(r.evpid, status, text, **more) for job in jobs for r in job.recipients)
        self.say(m.Outcome(results))

    def route_bounces(self, *envelopes: Envelope) -> int:
        """Answer all bounce queries; how many there were."""
        queries = self.lookup.take(m.BounceQuery)
        for query in queries:
            made = envelopes or (envelope(query.recipient, "in", sender="", internal=True),)
            self.say(m.BounceRoute(query.query, made))
        return len(queries)

    def stored(self) -> list:
        """All that the store holds."""
        return self.store.scan(0, 100_000)

    def close(self) -> None:
        """As if killed: the store is closed, nothing else is done."""
        self.store.close()
        self.bodies.close()
        for fd in self.delivery.fds + self.smtp.fds:
            os.close(fd)

    def again(self) -> "Rig":
        """A second life on the same spool."""
        self.close()
        return Rig(self.directory, self.shared.settings, timers=_later(self.timers))


def _later(old: Timers) -> Timers:
    timers = Timers()
    timers.now_ms = old.now_ms
    return timers


@pytest.fixture
def rigs():
    """Makes rigs, and closes them."""
    made: list[Rig] = []

    def make(*args, **more) -> Rig:
        made.append(Rig(*args, **more))
        return made[-1]

    yield make


@pytest.fixture
def rig(tmp_path: Path):
    """A rig on disk."""
    one = Rig(tmp_path)
    yield one
    one.close()
