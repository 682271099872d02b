"""Agents: one process a user and action, asked of the parent, fed with a bounded window of jobs.

Runs in delivery. It names a user and an action; what they mean is the parent's business.
"""

import os
import socket
from collections import deque
from collections.abc import Callable

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import DeliverySettings
from smtpd_ps.contract.values import Process, Status
from smtpd_ps.delivery.outcomes import Outcomes
from smtpd_ps.delivery.tasks import Task
from smtpd_ps.runtime.channel import Channel
from smtpd_ps.runtime.loop import Loop

WINDOW_JOBS = 64
WINDOW_BYTES = 4 * 1024 * 1024
FILE_BYTES = WINDOW_BYTES // 8  # what a body in a file counts: an agent may hold 64 descriptors (contract/policy)
TURN_JOBS = 256  # that one agent takes while others wait to be started
LOST = "the local delivery agent was lost"

Key = tuple[str, str]  # action, user


class Agent:
    """What is known of one agent: mail that waits for it, mail it has."""

    __slots__ = ("channel", "given", "idle_since", "inflight", "inflight_bytes", "key", "request", "session", "waiting")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.session = os.urandom(8).hex()
        self.waiting: deque[Task] = deque()
        self.inflight: dict[int, Task] = {}
        self.inflight_bytes = 0
        self.channel: Channel | None = None  # there once it is ready
        self.request = 0  # asked of the parent
        self.given = 0
        self.idle_since = 0.0


class AgentPool:
    """Every agent, at most max_agents at a time; further users wait for their turn."""

    def __init__(
        self, loop: Loop, settings: DeliverySettings, outcomes: Outcomes, next_request: Callable[[], int]
    ) -> None:
        self._loop = loop
        self._settings = settings
        self._outcomes = outcomes
        self._next_request = next_request
        self.ask: Callable[[m.Message], None] | None = None  # the channel to the parent; set before the loop runs
        self.agents: dict[Key, Agent] = {}  # started or asked for
        self._queued: dict[Key, Agent] = {}  # waiting for their turn
        self._asked: dict[int, Agent] = {}
        self._job = 0
        self.draining = False

    def add(self, task: Task) -> None:
        """Deliver a task of one recipient."""
        key = (task.action.name, task.action.user or task.recipients[0].user)
        agent = self.agents.get(key) or self._queued.get(key)
        if agent is None:
            agent = self._queued[key] = Agent(key)
            self._loop.at_turn_end(self._start_queued)
        agent.waiting.append(task)
        if agent.channel is not None:
            self._feed(agent)

    @property
    def busy(self) -> int:
        """How many messages agents have and did not answer."""
        return sum(len(agent.inflight) for agent in self.agents.values())

    @property
    def waiting(self) -> int:
        """How many messages wait for an agent."""
        return sum(len(each.waiting) for group in (self.agents, self._queued) for each in group.values())

    # Starting.

    def _start_queued(self) -> None:
        if self.draining:
            return
        assert self.ask is not None
        for key in list(self._queued):
            if len(self.agents) >= self._settings.max_agents and not self._dismiss_idle():
                return
            agent = self._queued.pop(key)
            self.agents[key] = agent
            agent.request = self._next_request()
            self._asked[agent.request] = agent
            action, user = key
            self.ask(m.AgentStart(agent.request, user, action))

    def _dismiss_idle(self) -> bool:
        for agent in self.agents.values():
            if agent.channel is not None and not agent.inflight and not agent.waiting:
                agent.channel.close()
                return True
        return False

    def ready(self, message: m.AgentReady, fd: int) -> None:
        """The parent's answer: a channel to the agent."""
        sock = socket.socket(fileno=fd)
        agent = self._asked.pop(message.request, None)
        if agent is None or self.draining:
            sock.close()
            return
        agent.request = 0
        agent.idle_since = self._loop.now()

        def result(answer: m.AgentResult) -> None:
            self._result(agent, answer)

        def closed(reason: str) -> None:
            self._closed(agent, reason)

        agent.channel = Channel(self._loop, sock, Process.DELIVERY, Process.AGENT, {m.AgentResult: result}, closed)
        self._feed(agent)

    def refused(self, message: m.AgentRefused) -> bool:
        """The parent's other answer; False when the request was not ours."""
        agent = self._asked.pop(message.request, None)
        if agent is None:
            return False
        del self.agents[agent.key]
        status = Status.TEMPFAIL if message.temporary else Status.PERMFAIL
        for task in agent.waiting:
            self._end(agent, task, status, message.text)
        self._loop.at_turn_end(self._start_queued)
        return True

    # Jobs.

    def _feed(self, agent: Agent) -> None:
        channel = agent.channel
        if channel is None or self.draining:
            return
        waiting = agent.waiting
        while waiting and len(agent.inflight) < WINDOW_JOBS and agent.inflight_bytes < WINDOW_BYTES:
            if self._queued and agent.given >= TURN_JOBS:
                break  # others have waited long enough
            task = waiting.popleft()
            self._job = number = (self._job + 1) & 0xFFFFFFFF
            job, recipient = task.job, task.recipients[0]
            agent.inflight[number] = task
            agent.given += 1
            agent.inflight_bytes += _weight(task)
            if task.fd >= 0:
                channel.send(
                    m.AgentJobFile(number, job.sender, recipient.rcpt, recipient.dest, job.size_bytes), task.fd
                )
                task.fd = -1  # the channel closes it
            else:
                channel.send(m.AgentJob(number, job.sender, recipient.rcpt, recipient.dest, job.body))

    def _result(self, agent: Agent, answer: m.AgentResult) -> None:
        task = agent.inflight.pop(answer.job, None)
        if task is None or answer.status > Status.LOOP:
            if task is not None:
                agent.inflight[answer.job] = task
            if agent.channel is not None:
                agent.channel.close("answered what was not asked")
            return
        agent.inflight_bytes -= _weight(task)
        self._end(agent, task, Status(answer.status), answer.text)
        agent.idle_since = self._loop.now()
        if agent.waiting:
            self._feed(agent)
        if not agent.inflight and agent.channel is not None and self._queued:
            agent.channel.close()  # its turn is over

    def _end(self, agent: Agent, task: Task, status: Status, text: str) -> None:
        self._outcomes.delivered(agent.session, task, task.recipients[0], status, text)
        task.close()

    def _closed(self, agent: Agent, reason: str) -> None:
        agent.channel = None
        del self.agents[agent.key]
        lost, agent.inflight = agent.inflight, {}
        agent.inflight_bytes = 0
        for task in lost.values():
            self._end(agent, task, Status.TEMPFAIL, f"{LOST}: {reason}" if reason else LOST)
        if lost and not agent.given - len(lost):  # it never did anything: no use in starting it again
            for task in agent.waiting:
                self._end(agent, task, Status.TEMPFAIL, LOST)
            agent.waiting.clear()
        if agent.waiting and not self.draining:
            again = Agent(agent.key)
            again.waiting = agent.waiting
            self._queued[agent.key] = again
        if self._queued:
            self._loop.at_turn_end(self._start_queued)

    # Once a second, and the end.

    def sweep(self, now: float) -> None:
        """Let agents go that have had nothing to do for a while."""
        for agent in list(self.agents.values()):
            idle = agent.channel is not None and not agent.inflight and not agent.waiting
            if idle and now - agent.idle_since >= self._settings.agent_idle_secs:
                assert agent.channel is not None
                agent.channel.close()

    def drain(self) -> None:
        """Wait for answers, give out nothing more."""
        self.draining = True


def _weight(task: Task) -> int:
    """What a task counts against WINDOW_BYTES."""
    job = task.job
    return len(job.body) or (FILE_BYTES if job.size_bytes else 0)
