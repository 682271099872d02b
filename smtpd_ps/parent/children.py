"""The core children: started, set up, let go together; the loss of one ends the daemon.

Runs in the parent; parses only checked messages. Keys is let go first, because smtp and
delivery prove their certificates with it before they report ready.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.routes import CHILDREN, channel_peers
from smtpd_ps.contract.values import Phase, Process
from smtpd_ps.runtime.channel import Channel, Handlers
from smtpd_ps.runtime.frames import close_all
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop, Timer
from smtpd_ps.runtime.spawn import describe_exit, spawn

READY_TIMEOUT_SECS = 60.0
EXIT_PATIENCE_SECS = 3.0
JUDGE_AFTER_SECS = 0.05


@dataclass(frozen=True, slots=True)
class SetupPlan:
    """What one child gets: its Common (without counts), its slice, its files."""

    common: m.Common
    setup: m.Message
    assets: tuple[tuple[m.Asset, str], ...] = ()  # with the path to open
    listeners: tuple[tuple[m.Listener, socket.socket], ...] = ()


@dataclass(slots=True)
class Child:
    """One running child, as the parent sees it."""

    process: Process
    pid: int
    channel: Channel
    plan: SetupPlan
    ready: bool = False
    lost: bool = False
    reaped: bool = False
    drained: bool = False
    reason: str = ""  # why its channel closed, "" for a plain end
    end: str = ""  # how the process ended


@dataclass(slots=True)
class Children:
    """All core children. `on_serving` is called once all were let go, `on_lost` with a log line."""

    loop: Loop
    log: Log
    handlers: dict[Process, Handlers]
    on_serving: Callable[[], None]
    on_lost: Callable[[str], None]
    by_process: dict[Process, Child] = field(default_factory=dict)
    ending: bool = False
    serving: bool = False
    _judging: bool = False
    _patience: Timer | None = None
    _pairs: dict[tuple[Process, Process], socket.socket] = field(default_factory=dict)
    _draining: dict[Process, Callable[[], None]] = field(default_factory=dict)

    def start(self, plans: dict[Process, SetupPlan]) -> None:
        """Spawn every child and send each its set-up; keys' Ready lets the others begin."""
        self._pairs = _make_pairs()
        self._patience = self.loop.call_later(READY_TIMEOUT_SECS, self._not_ready)
        for process in CHILDREN:
            pid, sock = spawn(process, plans[process].common.foreground)
            self.by_process[process] = Child(process, pid, self._channel(process, sock), plans[process])
        self._set_up(self.by_process[Process.KEYS])

    def _channel(self, process: Process, sock: socket.socket) -> Channel:
        handlers: dict[type[m.Message], Callable[..., None]] = dict(self.handlers.get(process, {}))
        handlers[m.Ready] = lambda _message: self._on_ready(process)
        if process in (Process.SMTP, Process.DELIVERY, Process.QUEUE):
            handlers[m.Drained] = lambda _message: self._on_drained(process)
        return Channel(
            self.loop, sock, Process.PARENT, process, handlers, lambda why: self._on_close(process, why), Phase.SETUP
        )

    def _set_up(self, child: Child) -> None:
        plan, peers = child.plan, channel_peers(child.process)
        child.channel.send(_with_counts(plan.common, len(peers), len(plan.assets)))
        child.channel.send(plan.setup)
        for peer in peers:
            end = self._pairs.pop((child.process, peer))
            child.channel.send(m.PeerChannel(peer), end.detach())
        for asset, path in plan.assets:
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError as error:  # it was there when the configuration was read
                self.on_lost(f"{path}: {os.strerror(error.errno or 0)}")
                return
            child.channel.send(asset, fd)

    def _on_ready(self, process: Process) -> None:
        self.by_process[process].ready = True
        if process is Process.KEYS:
            self._go(self.by_process[Process.KEYS])
            for child in self.by_process.values():
                if child.process is not Process.KEYS:
                    self._set_up(child)
        elif all(child.ready for child in self.by_process.values()):
            if self._patience is not None:
                self._patience.cancel()
            for child in self.by_process.values():
                if child.process is not Process.KEYS:
                    self._go(child)
            self.serving = True
            self.on_serving()

    def _go(self, child: Child) -> None:
        for listener, sock in child.plan.listeners:
            child.channel.send(listener, os.dup(sock.fileno()))
        child.channel.send(m.Go())
        child.channel.flush()
        child.channel.phase = Phase.RUN

    def _not_ready(self) -> None:
        late = [child.process.title for child in self.by_process.values() if not child.ready]
        self.on_lost(f"not ready after {READY_TIMEOUT_SECS:.0f} s: {', '.join(late)}")

    def _on_close(self, process: Process, reason: str) -> None:
        child = self.by_process[process]
        child.lost = True
        child.reason = reason
        if not self.ending and not self._judging:
            self._judging = True
            self.loop.call_later(JUDGE_AFTER_SECS, self._judge)

    def _judge(self) -> None:
        """Name who was lost first: the others only followed, with exit status 0."""
        if self.ending:
            return
        suspects = [child for child in self.by_process.values() if child.lost]
        for child in suspects:
            child.end = self._reap(child)
        culprit = min(suspects, key=_innocence)
        how = "; ".join(text for text in (culprit.reason, culprit.end) if text)
        self.on_lost(f"lost child {culprit.process.title} (pid {culprit.pid}): {how}")

    def _reap(self, child: Child) -> str:
        for _ in range(20):
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                child.reaped = True
                return describe_exit(status)
            self.loop.sleep(0.005)
        return "closed its channel"

    def tell(self, process: Process, message: m.Message, *fds: int) -> None:
        """Send `message` to one child that is there; the descriptors are closed in any case."""
        child = self.by_process.get(process)
        if child is not None and not child.lost:
            child.channel.send(message, *fds)
        else:
            close_all(fds)

    def tell_all(self, message: m.Message) -> None:
        """Send `message` to every child."""
        for process in CHILDREN:
            self.tell(process, message)

    def drain(self, process: Process, on_drained: Callable[[], None]) -> None:
        """Ask one child to finish what is under way; call back when it has (or is gone)."""
        child = self.by_process[process]
        self._draining[process] = on_drained
        child.channel.send(m.Drain())
        child.channel.flush()
        child.channel.phase = Phase.DRAIN

    def _on_drained(self, process: Process) -> None:
        self.by_process[process].drained = True
        callback = self._draining.pop(process, None)
        if callback is not None:
            callback()

    def end(self) -> None:
        """Close every channel, wait a moment, then end by pid who is still there."""
        self.ending = True
        for child in self.by_process.values():
            child.channel.close()
        deadline = self.loop.now() + EXIT_PATIENCE_SECS
        waiting = [child for child in self.by_process.values() if not child.reaped]
        while waiting:
            for child in list(waiting):
                if self._gone(child.pid):
                    waiting.remove(child)
            if waiting and self.loop.now() > deadline:
                for child in waiting:
                    self.log.warning(f"ending {child.process.title} (pid {child.pid}), which does not stop")
                    os.kill(child.pid, 9)
                    os.waitpid(child.pid, 0)
                return
            if waiting:
                self.loop.sleep(0.005)

    @staticmethod
    def _gone(pid: int) -> bool:
        return os.waitpid(pid, os.WNOHANG)[0] != 0


def _innocence(child: Child) -> int:
    if child.end.startswith("killed"):
        return 0
    return 1 if child.reason or child.end != "exit status 0" else 2


def _with_counts(common: m.Common, peers: int, assets: int) -> m.Common:
    return m.Common(
        common.root, common.uid, common.gid, common.verbose, common.foreground, common.privileged,
        common.user, common.groups, common.writable, peers, assets,
    )  # fmt: skip


def _make_pairs() -> dict[tuple[Process, Process], socket.socket]:
    """A socketpair for every two children that have a route; key: (holder, peer)."""
    pairs: dict[tuple[Process, Process], socket.socket] = {}
    for process in CHILDREN:
        for peer in channel_peers(process):
            if (process, peer) not in pairs:
                pairs[process, peer], pairs[peer, process] = socket.socketpair()
    return pairs
