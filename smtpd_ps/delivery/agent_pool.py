"""Agents: one process a user and action, asked of the parent, fed with a bounded window of jobs.

Runs in delivery. It names a user, an action, and whether an alias or a .forward is behind it; what they
mean is the parent's business. A session is an agent that stores mail, or a command that one runs.
"""

import os
import socket
from collections import deque
from collections.abc import Callable

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.installation import ALIAS_USER
from smtpd_ps.contract.settings import DeliverySettings
from smtpd_ps.contract.values import AgentSource, Process, Status
from smtpd_ps.delivery.outcomes import Outcomes
from smtpd_ps.delivery.tasks import Task
from smtpd_ps.runtime.channel import Channel
from smtpd_ps.runtime.loop import Loop

WINDOW_JOBS = 64
WINDOW_BYTES = 4 * 1024 * 1024
FILE_BYTES = WINDOW_BYTES // 8  # what a body in a file counts: an agent may hold 64 descriptors (contract/policy)
TURN_JOBS = 256  # that one agent takes while others wait to be started
LOOK_JOBS = 64  # that are looked at for one that may begin
LOST = "the local delivery agent was lost"

Key = tuple[str, str, AgentSource]  # action, user


def key_of(task: Task) -> Key:
    """The agent that a task of one recipient is for."""
    recipient = task.recipients[0]
    source: AgentSource = "action"
    if recipient.target:
        source = "forward" if recipient.target_source == "forward" else "alias"
    user = ALIAS_USER if source == "alias" else task.action.user or recipient.user
    return task.action.name, user, source


def owner_of(task: Task) -> str:
    """Whose session a command is: the recipient's, whoever delivers for all."""
    source = key_of(task)[2]
    return ALIAS_USER if source == "alias" else task.recipients[0].user


class Agent:
    """What is known of one agent: mail that waits for it, mail it has."""

    __slots__ = (
        "channel", "given", "idle_since", "inflight", "inflight_bytes", "key", "request", "runs", "session", "waiting",
    )  # fmt: skip

    def __init__(self, key: Key, runs: bool) -> None:
        self.key = key
        self.runs = runs  # a command for each job
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
        key = key_of(task)
        agent = self.agents.get(key) or self._queued.get(key)
        if agent is None:
            agent = self._queued[key] = Agent(key, task.action.runs_commands(key[2]))
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
            if self._full and not self._dismiss_idle():
                return
            if not self._queued[key].runs and self._user_full(key[1]):
                continue
            agent = self._queued.pop(key)
            self.agents[key] = agent
            agent.request = self._next_request()
            self._asked[agent.request] = agent
            action, user, source = key
            self.ask(m.AgentStart(agent.request, user, action, source))

    @property
    def _full(self) -> bool:
        """Whether there are as many sessions as there may be; an agent is one even where it has nothing to do."""
        sessions = sum(len(agent.inflight) or 1 if agent.runs else 1 for agent in self.agents.values())
        return sessions >= self._settings.max_agents

    def _user_full(self, user: str) -> bool:
        """Whether `user` has as many sessions as one user may have: commands, and agents that store."""
        sessions = 0
        for agent in self.agents.values():
            if agent.runs:
                sessions += sum(owner_of(task) == user for task in agent.inflight.values())
            else:
                sessions += agent.key[1] == user and bool(agent.inflight or agent.waiting)
        return sessions >= self._settings.max_sessions_per_user

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
            if agent.runs and not self._may_run(agent):
                break
            task = waiting.popleft()
            self._job = number = (self._job + 1) & 0xFFFFFFFF
            job, recipient = task.job, task.recipients[0]
            agent.inflight[number] = task
            agent.given += 1
            agent.inflight_bytes += _weight(task)
            user = recipient.user if task.action.user else ""
            more = (user, recipient.extension, recipient.target)
            if task.fd >= 0:
                channel.send(
                    m.AgentJobFile(number, job.sender, recipient.rcpt, recipient.dest, job.size_bytes, *more), task.fd
                )
                task.fd = -1  # the channel closes it
            else:
                channel.send(m.AgentJob(number, job.sender, recipient.rcpt, recipient.dest, job.body, *more))

    def _may_run(self, agent: Agent) -> bool:
        """Whether a command may begin; then one whose user may have it is the first of those that wait."""
        if agent.inflight and self._full and not self._dismiss_idle():
            return False
        for _ in range(min(len(agent.waiting), LOOK_JOBS)):
            if not self._user_full(owner_of(agent.waiting[0])):
                return True
            agent.waiting.rotate(-1)
        return False

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
        if agent.runs:
            self._loop.at_turn_end(self._share)
        elif agent.waiting:
            self._feed(agent)
        if not agent.inflight and agent.channel is not None and self._queued and not (agent.runs and agent.waiting):
            agent.channel.close()  # its turn is over

    def _share(self) -> None:
        """A session has ended: who waits for an agent comes first, then those whose commands wait."""
        self._start_queued()
        for agent in list(self.agents.values()):
            if agent.runs and agent.waiting:
                self._feed(agent)

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
            again = Agent(agent.key, agent.runs)
            again.waiting = agent.waiting
            self._queued[agent.key] = again
        self._loop.at_turn_end(self._share)

    # Once a second, and the end.

    def sweep(self, now: float) -> None:
        """Let agents go that have had nothing to do for a while; and see whether others may begin."""
        self._share()
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
