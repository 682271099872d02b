"""A Delivery with fakes of the other processes around it, and jobs for it."""

import os
import socket
import time

from delivery_sink import Sink

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ActionSettings, DeliverySettings
from smtpd_ps.contract.values import Dsn, Job, Process, Recipient, Result, RouteHost, Status
from smtpd_ps.delivery.service import Delivery
from smtpd_ps.delivery.tls_clients import make_pumps
from smtpd_ps.runtime.channel import Channel
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop

BODY = b"From: a@sender.test\r\nSubject: x\r\n\r\nhello\r\n.dot\r\n"


NO_DSN = Dsn()
MAILDIR = ActionSettings("box", "maildir")
BENCHES: list["Bench"] = []


class Bench:
    """A Delivery with fakes around it."""

    def __init__(self, *actions: ActionSettings, instance: int = 0, **settings) -> None:
        BENCHES.append(self)
        self.loop = Loop()
        self.log = Log(Process.DELIVERY, foreground=True)
        slice_ = DeliverySettings("client.test", actions, (), **settings)
        self.delivery = Delivery(
            self.loop, self.log, slice_, make_pumps(slice_, {}, lambda: None), lambda: 1005.0, instance
        )
        self.results: list[Result] = []
        self.queries: list[m.RouteQuery] = []
        self.asked: list[m.Message] = []
        self.drained = False
        self.answers: list[m.Message] = []
        d = self.delivery
        d.outcomes.send = lambda outcome: self.results.extend(outcome.results)
        d.ask_lookup = self.queries.append
        d.answer_control = self.answers.append
        self.tried: list[m.TryNow] = []
        d.heard.try_now = self.tried.append
        d.agents.ask = d.dials.ask = self.asked.append
        d.drained = lambda: setattr(self, "drained", True)
        self.hosts: list[RouteHost] = []

    def close(self) -> None:
        self.delivery.drain()
        for pool in self.delivery._pools.values():
            for connection in list(pool.connections):
                connection.abort()
        for agent in list(self.delivery.agents.agents.values()):
            if agent.channel is not None:
                agent.channel.close()

    def until(self, condition, secs: float = 30.0) -> None:
        deadline = time.monotonic() + secs
        while not condition():
            assert time.monotonic() < deadline, (self.results, self.asked, self.queries)
            self.loop.turn(0.05)

    def route(self, *hosts: RouteHost, **more) -> None:
        for query in self.queries:
            self.delivery.route(m.Route(query.query, hosts, 60, **more))
        self.queries.clear()

    def job(
        self,
        *rcpts: str,
        action: str = "send",
        body: bytes = BODY,
        sender: str = "a@sender.test",
        number=1,
        user: str = "",
        dsn: Dsn = NO_DSN,
    ) -> Job:
        recipients = tuple(
            Recipient((number << 32) | at, r, r, user or r.split("@")[0], dsn) for at, r in enumerate(rcpts, 1)
        )
        return Job(number, action, sender, recipients, 1000, len(body), False, body)

    def run(self, *jobs: Job, count: int = 0) -> dict[int, Result]:
        self.delivery.deliver(m.Deliver(jobs))
        wanted = count or sum(len(job.recipients) for job in jobs)
        self.until(lambda: len(self.results) >= wanted)
        return {result.evpid: result for result in self.results}


def host(sink: Sink, **more) -> RouteHost:
    return RouteHost("sink.test", ("127.0.0.1",), sink.port, **more)


SEND = ActionSettings("send", "relay")


def relay(sink: Sink, **more) -> Bench:
    bench = Bench(ActionSettings("send", "relay", relay_hosts=("smtp://sink.test",), **more))
    bench.hosts = [host(sink)]
    return bench


class FakeAgent:
    """The other end of an agent's channel."""

    def __init__(self, bench: Bench) -> None:
        self.jobs: list = []
        ours, theirs = socket.socketpair()
        handlers = {m.AgentJob: self.take, m.AgentJobFile: self.take}
        self.closed = False
        self.channel = Channel(bench.loop, ours, Process.AGENT, Process.DELIVERY, handlers, self._closed)
        self.fd = theirs.detach()
        self.answer = True

    def _closed(self, _why: str) -> None:
        self.closed = True

    def take(self, job, *fds) -> None:
        self.jobs.append(job)
        for fd in fds:
            os.close(fd)
        if self.answer:
            self.channel.send(m.AgentResult(job.job, Status.OK, "Delivered"))
