"""The parent: starts everything, then waits. Answers a handful of requests from the children.

Runs as root; parses only checked messages, and at a reload the configuration. It never sees bytes of
the network, of a message or of DNS, and no private key.
"""

import gc
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from smtpd_ps import osdep
from smtpd_ps.contract import messages as m
from smtpd_ps.contract.routes import LASTING
from smtpd_ps.contract.values import Phase, Process
from smtpd_ps.parent.accounts import Userbases
from smtpd_ps.parent.agents import Agents
from smtpd_ps.parent.children import Child, Children, Crew, Post, reason_of
from smtpd_ps.parent.file_openers import FileOpeners
from smtpd_ps.parent.generation import Generation, Plan
from smtpd_ps.parent.generations import START_SECS, Generations
from smtpd_ps.parent.listeners import Listeners
from smtpd_ps.parent.offline import Offline
from smtpd_ps.parent.programs import Programs
from smtpd_ps.parent.system import SystemAuth
from smtpd_ps.parent.tables import TableFiles
from smtpd_ps.parent.user_files import Identity
from smtpd_ps.runtime import tracing
from smtpd_ps.runtime.channel import Handlers
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop
from smtpd_ps.runtime.signals import watch_signals

DRAIN_TIMEOUT_SECS = 15.0


@dataclass(slots=True)
class Daemon:
    """One run of the daemon, from the first fork to the last wait.

    `plan` is of the configuration at the start, `load` makes another at a reload, or raises
    ReloadRefused; both have prepared `listeners`.
    """

    log: Log
    plan: Plan
    load: Callable[[], Plan]
    listeners: Listeners
    control_socket: socket.socket
    privileged: bool
    foreground: bool
    forbidden_users: frozenset[str]
    on_serving: Callable[[], None]
    offline: Offline
    loop: Loop = field(default_factory=Loop)
    children: Children = field(init=False)
    generations: Generations = field(init=False)
    _lasting: Crew = field(init=False)
    _exit_code: int = 0
    _serving: bool = False
    _stopping: bool = False
    _deferred: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.children = Children(self.loop, self.log, self._lost)
        self.generations = Generations(
            self.loop, self.log, self.children, self.listeners, self._make, self.load, self._settled
        )
        self._lasting = Crew(0, self._lasting_ready, self._lost)

    def _make(
        self, index: int, plan: Plan, on_ready: Callable[[], None], on_failed: Callable[[str], None]
    ) -> Generation:
        crew = Crew(index, on_ready, on_failed)

        def tell_lookup(message: m.Message, *fds: int) -> None:
            tell(Process.LOOKUP, message, *fds)

        userbases = Userbases(self.loop, plan.actions, tell_lookup)

        def make_agents(answer: Callable[..., None]) -> Agents:
            return Agents(
                self.loop, self.log, dict(plan.actions), plan.hostname, self.privileged, self.foreground,
                answer, self.forbidden_users, userbases=userbases, sub_address_delimiter=plan.sub_address_delimiter,
            )  # fmt: skip

        def tell(process: Process, message: m.Message, *fds: int) -> None:
            (self._child(process) if process in LASTING else crew.children[Post(process)]).tell(message, *fds)

        auth = SystemAuth(self.loop, self.log, lambda reply: tell(Process.LOOKUP, reply))
        programs = Programs(
            self.loop, self.log, plan.programs, self.privileged, lambda *given: tell(Process.LOOKUP, *given)
        )
        asked = frozenset(program.name for program in plan.programs if program.kind == "table")
        tables = TableFiles(self.log, plan.tables, tell, plan.databases, asked)
        common = plan.children[Process.LOOKUP].common
        identity = Identity(common.uid, common.gid) if self.privileged else None
        openers = FileOpeners(self.loop, self.log, plan.actions, identity, tell_lookup, self.forbidden_users)
        return Generation(plan, crew, make_agents, auth, tables, programs, openers, userbases)

    def _handlers(self, child: Child) -> Handlers:
        if child.process is not Process.CONTROL:
            return {}
        return {
            # Processes that are just starting are not yet as their policies say, and have read the tables.
            m.ShowProcesses: lambda request: self._when_settled(lambda: self._show_processes(request)),
            m.UpdateTable: lambda request: self._when_settled(lambda: self._update_table(request)),
            m.SetLog: self._set_log,
            m.Trace: self._trace,
            m.Reload: self._reload,
            m.Stop: self._stop_requested,
        }

    def run(self) -> int:
        """Serve until stopped; the exit status."""
        watch_signals(self.loop, (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP), self._signal)
        try:
            lasting = {Post(process): self.plan.children[process] for process in LASTING}
            try:
                self.children.start(self._lasting, lasting, self._handlers, START_SECS)
                self.generations.start(self.plan, self._ready, self._lost)
            except OSError as error:
                self._lost(f"cannot start the processes: {reason_of(error)}")
            else:
                self.loop.run()
        finally:
            self.offline.end()
            self.children.end()
            self.generations.end_others()
        self.log.info("stopped" if self._exit_code == 0 else "stopped after a failure")
        return self._exit_code

    # Starting: control and queue are let go when they are ready, the first generation after them.

    def _lasting_ready(self) -> None:
        self._child(Process.CONTROL).go(((m.Listener(0), os.dup(self.control_socket.fileno())),))
        self._child(Process.QUEUE).go()
        if tracing.mask:
            for process in LASTING:
                self._child(process).tell(m.TraceMask(tracing.mask))
        self._lasting.started()
        self._ready()

    def _ready(self) -> None:
        starting = self.generations.starting
        if self._lasting.starting or starting is None or not starting.crew.ready:
            return
        try:
            self.generations.serve(self._lasting_children())
        except OSError as error:
            self._lost(f"cannot hand over the listeners: {reason_of(error)}")
            return
        self._serving = True
        self.log.info("serving")
        self.on_serving()
        self.offline.start(self.loop)
        gc.collect()
        osdep.give_back()

    def _child(self, process: Process) -> Child:
        return self._lasting.children[Post(process)]

    def _lasting_children(self) -> dict[Process, Child]:
        return {process: self._child(process) for process in LASTING}

    def _lost(self, text: str) -> None:
        self.log.critical(text)
        self._exit_code = 1
        self.loop.stop()

    def _signal(self, number: int) -> None:
        match number:
            case signal.SIGCHLD:
                self.generations.reap()
                self.offline.reap()
            case signal.SIGHUP:
                self.log.info("SIGHUP received")
                self.generations.reload(self._lasting_children(), lambda _ok, _text: None)  # the log says it
            case _:
                self.stop(f"{signal.Signals(number).name} received")

    # Stopping in order: no new mail, finish deliveries, close the queue.

    def stop(self, why: str) -> None:
        """Stop in order; a second request stops at once."""
        if self._stopping:
            self.loop.stop()
            return
        self._stopping = True
        self.log.info(f"stopping: {why}")
        self.offline.end()
        if not self._serving:
            self.loop.stop()
            return
        self.generations.stop()
        self.loop.call_later(DRAIN_TIMEOUT_SECS, self.loop.stop)
        self.generations.drain(Process.SMTP, self._drain_delivery)

    def _drain_delivery(self) -> None:
        self.generations.drain(Process.DELIVERY, lambda: self._child(Process.QUEUE).drain(self.loop.stop))

    # Requests.

    def _tell_control(self, message: m.Message) -> None:
        self._child(Process.CONTROL).tell(message)

    def _stop_requested(self, request: m.Stop) -> None:
        self._tell_control(m.Done(request.client, True, "stopping"))
        self.loop.call_soon(lambda: self.stop("asked by the operator"))

    def _reload(self, request: m.Reload) -> None:
        self.generations.reload(
            self._lasting_children(), lambda ok, text: self._tell_control(m.Done(request.client, ok, text))
        )

    def _set_log(self, request: m.SetLog) -> None:
        self.log.verbose = request.verbose
        for child in self.children.living:
            if child.channel.phase is not Phase.SETUP:
                child.tell(m.LogLevel(request.verbose))
        self._tell_control(m.Done(request.client, True))

    def _trace(self, request: m.Trace) -> None:
        known = tracing.PROFILES if request.profile else tracing.SUBSYSTEMS
        bits = known.get(request.subsystem)
        if bits is None:
            text = f"unknown subsystem {request.subsystem}; known: {' '.join(known)}"
            self._tell_control(m.Done(request.client, False, text))
            return
        tracing.attach(self.log.trace)
        tracing.set_mask(tracing.mask | bits if request.on else tracing.mask & ~bits)
        self.log.info(f"traced are: {' '.join(tracing.names(tracing.mask)) or 'none'}")
        for child in self.children.living:
            if child.channel.phase is not Phase.SETUP:
                child.tell(m.TraceMask(tracing.mask))
        self._tell_control(m.Done(request.client, True))

    def _when_settled(self, answer: Callable[[], None]) -> None:
        """Now, or when the reload under way has ended."""
        if self.generations.busy:
            self._deferred.append(answer)
        else:
            answer()

    def _settled(self) -> None:
        deferred, self._deferred = self._deferred, []
        for answer in deferred:
            answer()

    def _update_table(self, request: m.UpdateTable) -> None:
        current = self.generations.current
        assert current is not None  # control takes requests from when it serves
        current.tables.update(request)

    def _show_processes(self, request: m.ShowProcesses) -> None:
        client, privileged = request.client, self.privileged
        user = "root" if privileged else ""
        rows = [m.ProcessRow(client, Process.PARENT, 0, os.getpid(), user, "", privileged)]
        for child in self.children.living:
            common = child.plan.common
            rows.append(m.ProcessRow(
                client, child.process, child.generation, child.pid, common.user, common.root, privileged,
                configured=child.siblings,
            ))  # fmt: skip
        for one in self.generations.all():
            for agents in one.agents:
                for pid, agent in agents.running.items():
                    rows.append(m.ProcessRow(
                        client, Process.AGENT, one.index, pid, agent.user, "", privileged, commands=agent.commands
                    ))  # fmt: skip
        for pid, user in self.offline.users().items():
            rows.append(m.ProcessRow(client, Process.AGENT, 0, pid, user, "", privileged, submits=True))
        programs = [row for each in self.generations.all() for row in each.programs.rows(client, each.index)]
        for row in (*rows, *programs):
            self._tell_control(row)
        self._tell_control(m.Done(client, True, count=len(rows) + len(programs)))
