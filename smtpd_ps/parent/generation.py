"""One generation: the processes that hold one reading of the configuration, and what they may ask.

Runs in the parent. A generation starts, serves, and retires when the next one takes over: its smtp
keeps the sessions it has, its delivery ends what it was given, and its lookup and keys stay until
both are done (docs/decisions/0004).
"""

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.routes import GENERATION
from smtpd_ps.contract.settings import ActionSettings, ProgramSettings, QueueSettings
from smtpd_ps.contract.values import Process, seat_of
from smtpd_ps.parent.accounts import Userbases
from smtpd_ps.parent.agents import Agents
from smtpd_ps.parent.children import Child, Crew, Post, SetupPlan
from smtpd_ps.parent.file_openers import FileOpeners
from smtpd_ps.parent.programs import Programs
from smtpd_ps.parent.system import SystemAuth, answer_lmtp, system_user
from smtpd_ps.parent.tables import TableFiles
from smtpd_ps.runtime.channel import Handlers

_DRAINED = (Process.SMTP, Process.DELIVERY)


@dataclass(frozen=True, slots=True)
class Plan:
    """A configuration, compiled, with its sockets bound: what a generation is made from."""

    children: Mapping[Process, SetupPlan]  # of all processes
    actions: Mapping[str, ActionSettings]
    tables: Mapping[str, str]  # paths of the file tables that lookup uses
    hostname: str
    sub_address_delimiter: str
    queue: QueueSettings
    listeners: tuple[tuple[m.Listener, socket.socket], ...]  # smtp's; they belong to parent/listeners
    counts: Mapping[Process, int] = field(default_factory=dict)  # of smtp and delivery processes, where not one
    programs: tuple[ProgramSettings, ...] = ()
    databases: frozenset[str] = frozenset()  # of `tables`, those that makemap makes


@dataclass(slots=True, eq=False)
class Generation:
    """`on_ended` is called when a retired one has nothing under way any more."""

    plan: Plan
    crew: Crew
    make_agents: Callable[[Callable[..., None]], Agents]  # given what answers who asks for them
    auth: SystemAuth
    tables: TableFiles
    programs: Programs
    openers: FileOpeners
    userbases: Userbases
    on_retired: Callable[[], None] = lambda: None
    on_ended: Callable[[], None] = lambda: None
    agents: list[Agents] = field(default_factory=list)  # one for each delivery process
    retired: bool = False
    hurried: bool = False
    _refusing: set[Post] = field(default_factory=set)  # smtp processes that accept nobody any more

    @property
    def index(self) -> int:
        """Its number, the upper part of its processes' seats."""
        return self.crew.index

    def start_programs(self) -> None:
        """Start its programs, so that lookup gets them with its set-up."""
        self.crew.programs = list(self.programs.start())

    def plans(self) -> dict[Post, SetupPlan]:
        """Of its own processes; each smtp hears its seat."""
        plans = {}
        for process in GENERATION:
            plan = self.plan.children[process]
            for instance in range(self.plan.counts.get(process, 1)):
                setup = plan.setup
                if isinstance(setup, m.SmtpSetup):
                    setup = m.SmtpSetup(setup.settings, seat_of(self.index, instance))
                elif isinstance(setup, m.DeliverySetup):
                    setup = m.DeliverySetup(setup.settings, instance)
                plans[Post(process, instance)] = SetupPlan(plan.common, setup, plan.assets)
        return plans

    def handlers(self, child: Child) -> Handlers:
        """What one of its processes may ask, answered by its own configuration."""
        match child.process:
            case Process.LOOKUP:
                return {
                    m.UserQuery: lambda query: child.tell(system_user(query)),
                    m.SystemAuth: self.auth.check,
                    m.TableRead: self.tables.read,
                    m.ProgramFailed: self.programs.failed,
                    m.ForwardOpen: self.openers.forward,
                    m.IncludeOpen: self.openers.include,
                    m.UserbaseInfo: self.userbases.answered,
                }
            case Process.DELIVERY:
                agents = self.make_agents(child.tell)
                self.agents.append(agents)
                return {
                    m.AgentStart: agents.start,
                    m.LmtpConnect: lambda request: answer_lmtp(agents.actions, request, child.tell),
                }
            case Process.SMTP:
                return {m.Retired: lambda _message: self._on_retired(child)}
            case _:
                return {}

    def go(self, lasting: Mapping[Process, Child]) -> None:
        """Give queue and control their ends of its channels, and let it serve. Raises OSError, having
        done nothing, when there are no descriptors for the listeners.
        """
        listeners: dict[Post, list[tuple[m.Listener, int]]] = {}
        try:
            for child in self.crew.of(Process.SMTP):
                mine = listeners[child.post] = []
                for listener, sock in self.plan.listeners:
                    mine.append((listener, os.dup(sock.fileno())))
        except OSError:
            for mine in listeners.values():
                for _listener, fd in mine:
                    os.close(fd)
            raise
        for (process, post), end in self.crew.outer_ends.items():
            lasting[process].tell(m.NewPeer(post.process, seat_of(self.index, post.instance)), end.detach())
        self.crew.outer_ends.clear()
        lasting[Process.QUEUE].tell(m.QueueReload(self.index, self.plan.queue))
        lasting[Process.CONTROL].tell(m.ControlReload(self.index))
        for post, child in self.crew.children.items():
            if post.process is not Process.KEYS:
                child.go(tuple(listeners.get(post, ())))
        self.crew.started()
        self.programs.serve()

    def retire(self, on_retired: Callable[[], None], on_ended: Callable[[], None]) -> None:
        """Take nothing new. `on_retired`: it accepts no client any more."""
        self.retired = True
        self.on_retired, self.on_ended = on_retired, on_ended
        for child in self._to_drain():
            child.on_drained.append(self._on_drained)
            child.retire()

    def _to_drain(self) -> list[Child]:
        return [child for child in self.crew.children.values() if child.process in _DRAINED]

    def _on_retired(self, child: Child) -> None:
        self._refusing.add(child.post)
        if len(self._refusing) == len(self.crew.of(Process.SMTP)):
            self.on_retired()

    def _on_drained(self) -> None:
        if all(child.drained for child in self._to_drain()):
            self.on_ended()

    def hurry(self) -> None:
        """A retired one is to end soon, as if the daemon stopped."""
        if not self.hurried:
            self.hurried = True
            for child in self._to_drain():
                child.drain(lambda: None)
