"""One generation: the processes that hold one reading of the configuration, and what they may ask.

Runs in the parent. A generation starts, serves, and retires when the next one takes over: its smtp
keeps the sessions it has, its delivery ends what it was given, and its lookup and keys stay until
both are done (docs/decisions/0004).
"""

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.routes import GENERATION
from smtpd_ps.contract.settings import ActionSettings, QueueSettings
from smtpd_ps.contract.values import Process
from smtpd_ps.parent.agents import Agents
from smtpd_ps.parent.children import Child, Crew, SetupPlan
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
    queue: QueueSettings
    listeners: tuple[tuple[m.Listener, socket.socket], ...]  # smtp's; they belong to parent/listeners


@dataclass(slots=True, eq=False)
class Generation:
    """`on_ended` is called when a retired one has nothing under way any more."""

    plan: Plan
    crew: Crew
    agents: Agents
    auth: SystemAuth
    tables: TableFiles
    on_retired: Callable[[], None] = lambda: None
    on_ended: Callable[[], None] = lambda: None
    retired: bool = False
    hurried: bool = False

    @property
    def index(self) -> int:
        """Its number, in the top byte of its session ids."""
        return self.crew.index

    def child(self, process: Process) -> Child:
        """One of its processes."""
        return self.crew.by_process[process]

    def plans(self) -> dict[Process, SetupPlan]:
        """Of its own processes; smtp hears which generation it is."""
        plans = {process: self.plan.children[process] for process in GENERATION}
        smtp = plans[Process.SMTP]
        assert isinstance(smtp.setup, m.SmtpSetup)
        plans[Process.SMTP] = SetupPlan(smtp.common, m.SmtpSetup(smtp.setup.settings, self.index), smtp.assets)
        return plans

    def handlers(self) -> dict[Process, Handlers]:
        """What its processes may ask, answered by its own configuration."""

        def tell_delivery(message: m.Message, *fds: int) -> None:
            self.child(Process.DELIVERY).tell(message, *fds)

        return {
            Process.LOOKUP: {
                m.UserQuery: lambda query: self.child(Process.LOOKUP).tell(system_user(query)),
                m.SystemAuth: self.auth.check,
                m.TableRead: self.tables.read,
            },
            Process.DELIVERY: {
                m.AgentStart: self.agents.start,
                m.LmtpConnect: lambda request: answer_lmtp(self.agents.actions, request, tell_delivery),
            },
            Process.SMTP: {m.Retired: lambda _message: self.on_retired()},
        }

    def go(self, lasting: Mapping[Process, Child]) -> None:
        """Give queue and control their ends of its channels, and let it serve. Raises OSError, having
        done nothing, when there are no descriptors for the listeners.
        """
        listeners: list[tuple[m.Listener, int]] = []
        try:
            for listener, sock in self.plan.listeners:
                listeners.append((listener, os.dup(sock.fileno())))
        except OSError:
            for _listener, fd in listeners:
                os.close(fd)
            raise
        for (process, peer), end in self.crew.outer_ends.items():
            lasting[process].tell(m.NewPeer(peer, self.index), end.detach())
        self.crew.outer_ends.clear()
        lasting[Process.QUEUE].tell(m.QueueReload(self.index, self.plan.queue))
        lasting[Process.CONTROL].tell(m.ControlReload(self.index))
        for process, child in self.crew.by_process.items():
            if process is not Process.KEYS:
                child.go(tuple(listeners) if process is Process.SMTP else ())
        self.crew.started()

    def retire(self, on_retired: Callable[[], None], on_ended: Callable[[], None]) -> None:
        """Take nothing new. `on_retired`: it accepts no client any more."""
        self.retired = True
        self.on_retired, self.on_ended = on_retired, on_ended
        for process in _DRAINED:
            child = self.child(process)
            child.on_drained.append(self._on_drained)
            child.retire()

    def _on_drained(self) -> None:
        if all(self.child(process).drained for process in _DRAINED):
            self.on_ended()

    def hurry(self) -> None:
        """A retired one is to end soon, as if the daemon stopped."""
        if not self.hurried:
            self.hurried = True
            for process in _DRAINED:
                self.child(process).drain(lambda: None)
