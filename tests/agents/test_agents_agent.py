"""The agent over its channel: jobs of a turn are one batch."""

import os
import socket
import time

import pytest

from smtpd_ps.agents.agent import Agent
from smtpd_ps.agents.maildir import Maildir
from smtpd_ps.agents.mbox import MailboxGone
from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import AgentSettings
from smtpd_ps.contract.values import Process, Status
from smtpd_ps.pure.maildir_name import MaildirNames
from smtpd_ps.runtime.channel import Channel
from smtpd_ps.runtime.loop import Loop


class Pair:
    """An agent and delivery's end of its channel, in one loop."""

    def __init__(self, store) -> None:
        self.loop = Loop()
        self.results: list[m.AgentResult] = []
        agent = Agent(self.loop, store)
        ours, theirs = socket.socketpair()
        self.agent_end = Channel(
            self.loop, theirs, Process.AGENT, Process.DELIVERY, agent.handlers(), lambda _why: None
        )
        agent.answers = self.agent_end
        self.delivery = Channel(
            self.loop, ours, Process.DELIVERY, Process.AGENT, {m.AgentResult: self.results.append}, lambda _why: None
        )

    def until(self, count: int) -> None:
        deadline = time.monotonic() + 5
        while len(self.results) < count:
            assert time.monotonic() < deadline
            self.loop.turn(0.05)

    def close(self) -> None:
        self.delivery.close()
        self.agent_end.close()


class Recording:
    """A store that notes its batches."""

    def __init__(self, inner) -> None:
        self.inner = inner
        self.batches: list[int] = []

    def store(self, items):
        self.batches.append(len(items))
        return self.inner.store(items)


def test_jobs_are_stored_in_batches_and_answered(tmp_path):
    """Small and large messages sent together are stored together, each answered, descriptors closed."""
    settings = AgentSettings("ann", str(tmp_path), "box", "maildir", "", "mx")
    recording = Recording(Maildir(settings, MaildirNames(1, "mx"), time.time_ns))
    pair = Pair(recording)
    path = tmp_path / "body"
    path.write_bytes(b"A: b\r\n\r\nlarge\r\n")
    before = len(os.listdir("/proc/self/fd"))
    for number in range(10):
        pair.delivery.send(m.AgentJob(number, "", "ann@d", "ann@d", b"A: b\r\n\r\n"))
    pair.delivery.send(m.AgentJobFile(10, "", "ann@d", "ann@d", path.stat().st_size), os.open(path, os.O_RDONLY))
    pair.until(11)
    assert {r.job for r in pair.results} == set(range(11))
    assert {r.status for r in pair.results} == {Status.OK}
    assert len(recording.batches) <= 2
    assert len(list((tmp_path / "Maildir" / "new").iterdir())) == 11
    assert len(os.listdir("/proc/self/fd")) == before
    pair.close()


@pytest.mark.parametrize(("statuses", "ends"), [("TT", True), ("TO", False), ("PP", False), ("OO", False)])
def test_an_agent_that_can_store_nothing_ends(statuses, ends):
    """It may be confined to a Maildir that was replaced: its successor is confined anew."""
    words = {"T": Status.TEMPFAIL, "O": Status.OK, "P": Status.PERMFAIL}

    class Store:
        def store(self, items):
            return [m.AgentResult(i.job.job, words[w], "x") for i, w in zip(items, statuses, strict=True)]

    pair = Pair(Store())
    for number in range(2):
        pair.delivery.send(m.AgentJob(number, "", "ann@d", "ann@d", b""))
    pair.loop._running = True
    pair.until(2)
    pair.loop.turn(0)
    assert pair.loop._running is not ends
    pair.close()


def test_a_replaced_mailbox_ends_the_agent():
    """Its jobs are answered as temporary and the loop stops: a new agent opens the new file."""

    class Gone:
        def store(self, _items):
            raise MailboxGone

    pair = Pair(Gone())
    pair.delivery.send(m.AgentJob(1, "", "ann@d", "ann@d", b""))
    pair.loop._running = True
    pair.until(1)
    assert pair.results[0].status == Status.TEMPFAIL
    pair.loop.turn(0)
    assert not pair.loop._running
    pair.close()
