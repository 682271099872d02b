"""The parent: starts everything, then waits. Answers a handful of requests from the children.

Runs as root; parses only checked messages. It never sees bytes of the network, of a message or of
DNS, and no private key.
"""

import os
import signal
from collections.abc import Callable
from dataclasses import dataclass, field

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ActionSettings
from smtpd_ps.contract.values import Process
from smtpd_ps.parent.agents import Agents
from smtpd_ps.parent.children import Children, SetupPlan
from smtpd_ps.parent.system import SystemAuth, answer_lmtp, system_user
from smtpd_ps.parent.tables import TableFiles
from smtpd_ps.runtime.channel import Handlers
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop
from smtpd_ps.runtime.signals import watch_signals

DRAIN_TIMEOUT_SECS = 15.0
_DRAIN_ORDER = (Process.SMTP, Process.DELIVERY, Process.QUEUE)


@dataclass(slots=True)
class Daemon:
    """One run of the daemon, from the first fork to the last wait."""

    log: Log
    plans: dict[Process, SetupPlan]
    actions: dict[str, ActionSettings]
    tables: dict[str, str]  # paths of the file tables that lookup uses
    hostname: str
    privileged: bool
    foreground: bool
    forbidden_users: frozenset[str]
    on_serving: Callable[[], None]
    loop: Loop = field(default_factory=Loop)
    children: Children = field(init=False)
    agents: Agents = field(init=False)
    _auth: SystemAuth = field(init=False)
    _table_files: TableFiles = field(init=False)
    _exit_code: int = 0
    _stopping: bool = False

    def __post_init__(self) -> None:
        self._auth = SystemAuth(self.loop, self.log, lambda reply: self.children.tell(Process.LOOKUP, reply))
        self.agents = Agents(
            self.loop, self.log, self.actions, self.hostname, self.privileged, self.foreground,
            self._answer_delivery, self.forbidden_users,
        )  # fmt: skip
        self._table_files = TableFiles(
            self.log, self.tables, lambda process, message, *fds: self.children.tell(process, message, *fds)
        )
        self.children = Children(self.loop, self.log, self._handlers(), self._serving, self._lost)

    def _handlers(self) -> dict[Process, Handlers]:
        return {
            Process.LOOKUP: {
                m.UserQuery: lambda query: self.children.tell(Process.LOOKUP, system_user(query)),
                m.SystemAuth: self._auth.check,
                m.TableRead: self._table_files.read,
            },
            Process.DELIVERY: {
                m.AgentStart: self.agents.start,
                m.LmtpConnect: lambda request: answer_lmtp(self.actions, request, self._answer_delivery),
            },
            Process.CONTROL: {
                m.ShowProcesses: self._show_processes,
                m.SetLog: self._set_log,
                m.Stop: self._stop_requested,
                m.UpdateTable: self._table_files.update,
            },
        }

    def run(self) -> int:
        """Serve until stopped; the exit status."""
        watch_signals(self.loop, (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP), self._signal)
        try:
            if self._start():
                self.loop.run()
        finally:
            self.children.end()
            self.agents.end()
        self.log.info("stopped" if self._exit_code == 0 else "stopped after a failure")
        return self._exit_code

    def _start(self) -> bool:
        try:
            self.children.start(self.plans)
        except OSError as error:  # no descriptor or no process left
            self._lost(f"cannot start the processes: {os.strerror(error.errno or 0)}")
            return False
        return True

    def _serving(self) -> None:
        self.log.info("serving")
        self.on_serving()

    def _lost(self, text: str) -> None:
        self.log.critical(text)
        self._exit_code = 1
        self.loop.stop()

    def _signal(self, number: int) -> None:
        match number:
            case signal.SIGCHLD:
                self.agents.reap()
            case signal.SIGHUP:
                self.log.warning("SIGHUP ignored: reloading the configuration is not supported yet")
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
        if not self.children.serving:
            self.loop.stop()
            return
        self.loop.call_later(DRAIN_TIMEOUT_SECS, self.loop.stop)
        self._drain(0)

    def _drain(self, step: int) -> None:
        if step == len(_DRAIN_ORDER):
            self.loop.stop()
            return
        self.children.drain(_DRAIN_ORDER[step], lambda: self._drain(step + 1))

    # Requests.

    def _answer_delivery(self, message: m.Message, *fds: int) -> None:
        child = self.children.by_process[Process.DELIVERY]
        child.channel.send(message, *fds)

    def _stop_requested(self, request: m.Stop) -> None:
        self.children.tell(Process.CONTROL, m.Done(request.client, True, "stopping"))
        self.loop.call_soon(lambda: self.stop("asked by the operator"))

    def _set_log(self, request: m.SetLog) -> None:
        self.log.verbose = request.verbose
        self.children.tell_all(m.LogLevel(request.verbose))
        self.children.tell(Process.CONTROL, m.Done(request.client, True))

    def _show_processes(self, request: m.ShowProcesses) -> None:
        send = self.children.tell
        rows = [(Process.PARENT, os.getpid(), "root" if self.privileged else "", "")]
        for child in self.children.by_process.values():
            rows.append((child.process, child.pid, child.plan.common.user, child.plan.common.root))
        for pid, agent in self.agents.running.items():
            rows.append((Process.AGENT, pid, agent.user, ""))
        for process, pid, user, root in rows:
            send(Process.CONTROL, m.ProcessRow(request.client, process, 0, pid, user, root, self.privileged))
        send(Process.CONTROL, m.Done(request.client, True, count=len(rows)))
