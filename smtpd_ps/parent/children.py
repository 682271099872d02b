"""The children of the parent: started in crews, watched one by one, ended.

Runs in the parent; parses only checked messages. A crew starts together: control and queue, which
last as long as the daemon, or a generation (docs/decisions/0004). The loss of a child that was not let
go ends the daemon, and that of one that is just starting ends its crew.
"""

import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.routes import LASTING, channel_peers
from smtpd_ps.contract.values import Phase, Process, seat_of
from smtpd_ps.runtime.channel import Channel, Handlers
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop, Timer
from smtpd_ps.runtime.spawn import describe_exit, spawn

READY_TIMEOUT_SECS = 60.0
EXIT_PATIENCE_SECS = 3.0
JUDGE_AFTER_SECS = 0.05
_DRAINED_BY = (Process.SMTP, Process.DELIVERY, Process.QUEUE)


@dataclass(frozen=True, slots=True)
class SetupPlan:
    """What one child gets: its Common (without counts), its slice, its files."""

    common: m.Common
    setup: m.Message
    assets: tuple[tuple[m.Asset, str], ...] = ()  # with the path to open


class Post(NamedTuple):
    """What there is one process for. Of smtp and delivery there may be several."""

    process: Process
    instance: int = 0


@dataclass(slots=True, eq=False)
class Child:
    """One running child, as the parent sees it."""

    post: Post
    pid: int
    generation: int
    siblings: int  # processes of its kind in its crew, itself among them
    plan: SetupPlan
    channel: Channel = field(init=False)
    ready: bool = False
    released: bool = False  # it may end
    released_at: float = 0.0
    lost: bool = False
    reaped: bool = False
    drained: bool = False
    reason: str = ""  # why it failed, or why its channel closed; "" for a plain end
    end: str = ""  # how the process ended
    on_drained: list[Callable[[], None]] = field(default_factory=list)

    @property
    def process(self) -> Process:
        """Which kind of process it is."""
        return self.post.process

    @property
    def name(self) -> str:
        """For logs: of several, the first is called as if it were alone."""
        return f"{self.process.title} {self.post.instance + 1}" if self.post.instance else self.process.title

    def tell(self, message: m.Message, *fds: int) -> None:
        """Send a message; to one that is gone it is dropped."""
        self.channel.send(message, *fds)

    def go(self, listeners: tuple[tuple[m.Listener, int], ...] = ()) -> None:
        """Let it serve. The descriptors of the listeners are closed once they are sent."""
        for listener, fd in listeners:
            self.channel.send(listener, fd)
        self.channel.send(m.Go())
        self.channel.flush()
        self.channel.phase = Phase.RUN

    def retire(self) -> None:
        """Ask it to take nothing new, and to say Drained when nothing is under way."""
        self.channel.send(m.Retire())
        self.channel.flush()
        self.channel.phase = Phase.DRAIN

    def drain(self, on_drained: Callable[[], None]) -> None:
        """Ask it to finish what is under way soon; call back when it has (at once if it had before)."""
        if self.drained:
            on_drained()
            return
        self.on_drained.append(on_drained)
        self.channel.send(m.Drain())
        self.channel.flush()
        self.channel.phase = Phase.DRAIN


class Crew:
    """Children that start together. Keys, where there is one, is let go first: smtp and delivery
    prove their certificates with it before they are ready.

    `on_ready` is called once all are, keys apart, waiting to be let go; `on_failed` once, with the
    reason, when that will never be.
    """

    def __init__(self, index: int, on_ready: Callable[[], None], on_failed: Callable[[str], None]) -> None:
        self.index = index
        self.on_ready = on_ready
        self.on_failed = on_failed
        self.children: dict[Post, Child] = {}
        self.starting = True
        self.judging = False
        self.patience: Timer | None = None
        # Ends for queue and control, by who is to have it and who is at the other end.
        self.outer_ends: dict[tuple[Process, Post], socket.socket] = {}
        self.inner_ends: dict[tuple[Post, Post], socket.socket] = {}
        self.programs: list[tuple[m.Program, tuple[int, ...]]] = []  # that lookup gets with its set-up

    def of(self, process: Process) -> list[Child]:
        """Its processes of one kind."""
        return [child for child in self.children.values() if child.process is process]

    def make_pairs(self, posts: Sequence[Post]) -> None:
        """A socketpair for every channel within the crew, and from a generation to those that last."""
        for post in posts:
            for peer in channel_peers(post.process):
                within = [other for other in posts if other.process is peer]
                if not within and peer in LASTING:
                    self.inner_ends[post, Post(peer)], self.outer_ends[peer, post] = socket.socketpair()
                for other in within:
                    if (post, other) not in self.inner_ends:
                        self.inner_ends[post, other], self.inner_ends[other, post] = socket.socketpair()

    def close_ends(self) -> None:
        """Close the ends that nobody got."""
        for sock in (*self.inner_ends.values(), *self.outer_ends.values()):
            sock.close()
        self.inner_ends.clear()
        self.outer_ends.clear()
        for _program, fds in self.programs:
            for fd in fds:
                os.close(fd)
        self.programs.clear()

    @property
    def ready(self) -> bool:
        """Whether all of them are."""
        return all(child.ready for child in self.children.values())

    def started(self) -> None:
        """It serves from now on."""
        self.starting = False
        if self.patience is not None:
            self.patience.cancel()


@dataclass(slots=True)
class Children:
    """All core children. `on_lost` is called with a log line when one that serves is lost."""

    loop: Loop
    log: Log
    on_lost: Callable[[str], None]
    living: list[Child] = field(default_factory=list)  # the released ones left out
    ending: bool = False
    _leaving: list[Child] = field(default_factory=list)
    _judging: bool = False

    # Starting.

    def start(
        self,
        crew: Crew,
        plans: Mapping[Post, SetupPlan],
        handlers: Callable[[Child], Handlers],
        patience_secs: float,
    ) -> None:
        """Spawn a crew and send each its set-up; keys' Ready lets the others begin. Raises OSError.

        `handlers` says what a child may ask, beyond what all may.
        """
        crew.patience = self.loop.call_later(patience_secs, lambda: self._not_ready(crew, patience_secs))
        try:
            crew.make_pairs(tuple(plans))
            kinds = [post.process for post in plans]
            for post, plan in plans.items():
                self._spawn(crew, post, kinds.count(post.process), plan, handlers)
            for child in crew.of(Process.KEYS) or crew.children.values():
                self._set_up(crew, child)
        except OSError:
            crew.patience.cancel()
            raise

    def _spawn(
        self, crew: Crew, post: Post, siblings: int, plan: SetupPlan, given: Callable[[Child], Handlers]
    ) -> None:
        process = post.process
        pid, sock = spawn(process, plan.common.foreground)
        child = Child(post, pid, crew.index, siblings, plan)
        handlers = dict(given(child))
        handlers[m.Ready] = lambda _message: self._on_ready(crew, child)
        handlers[m.Failed] = lambda message: self._on_failed(child, message)
        if process in _DRAINED_BY:
            handlers[m.Drained] = lambda _message: self._on_drained(child)
        child.channel = Channel(
            self.loop, sock, Process.PARENT, process, handlers, lambda why: self._on_close(crew, child, why),
            Phase.SETUP,
        )  # fmt: skip
        crew.children[post] = child
        self.living.append(child)

    def _set_up(self, crew: Crew, child: Child) -> None:
        """Raises OSError where a file cannot be opened."""
        plan = child.plan
        peers = [peer for post, peer in crew.inner_ends if post == child.post]
        programs: list[tuple[m.Program, tuple[int, ...]]] = []
        if child.process is Process.LOOKUP:
            programs, crew.programs = crew.programs, programs
        child.channel.send(_with_counts(plan.common, len(peers), len(plan.assets), len(programs)))
        child.channel.send(plan.setup)
        for peer in peers:
            seat = 0 if peer.process in LASTING else seat_of(crew.index, peer.instance)
            end = crew.inner_ends.pop((child.post, peer))
            child.channel.send(m.PeerChannel(peer.process, seat), end.detach())
        for asset, path in plan.assets:
            child.channel.send(asset, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        for program, fds in programs:
            child.channel.send(program, *fds)

    def _on_ready(self, crew: Crew, child: Child) -> None:
        child.ready = True
        if child.process is Process.KEYS:
            child.go()
            try:
                for other in crew.children.values():
                    if other is not child:
                        self._set_up(crew, other)
            except OSError as error:
                self._fail(crew, reason_of(error))
        if crew.ready and crew.starting:
            crew.on_ready()

    def _on_failed(self, child: Child, message: m.Failed) -> None:
        child.reason = message.text

    def _not_ready(self, crew: Crew, patience_secs: float) -> None:
        late = [child.name for child in crew.children.values() if not child.ready]
        self._fail(crew, f"not ready after {patience_secs:.0f} s: {', '.join(late)}")

    def _fail(self, crew: Crew, text: str) -> None:
        if crew.starting:
            crew.started()
            crew.on_failed(text)

    # Losing.

    def _on_close(self, crew: Crew, child: Child, reason: str) -> None:
        child.lost = True
        child.reason = child.reason or reason
        if self.ending or child.released:
            return
        if crew.starting:
            if not crew.judging:
                crew.judging = True
                self.loop.call_later(JUDGE_AFTER_SECS, lambda: self._judge_crew(crew))
        elif not self._judging:
            self._judging = True
            self.loop.call_later(JUDGE_AFTER_SECS, self._judge)

    def _judge_crew(self, crew: Crew) -> None:
        if not self.ending and crew.starting:
            self._fail(crew, self._verdict(list(crew.children.values())))

    def _judge(self) -> None:
        if not self.ending:
            self.on_lost(self._verdict(self.living))

    def _verdict(self, children: list[Child]) -> str:
        """Name who was lost first: the others only followed, with exit status 0."""
        suspects = [child for child in children if child.lost]
        for child in suspects:
            child.end = self._end_of(child)
        culprit = min(suspects, key=_innocence)
        how = "; ".join(text for text in (culprit.reason, culprit.end) if text)
        return f"lost child {culprit.name} (pid {culprit.pid}): {how}"

    def _end_of(self, child: Child) -> str:
        for _ in range(20):
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                child.reaped = True
                return describe_exit(status)
            self.loop.sleep(0.005)
        return "closed its channel"

    # Letting go.

    def _on_drained(self, child: Child) -> None:
        child.drained = True
        waiting, child.on_drained = child.on_drained, []
        for callback in waiting:
            callback()

    def release(self, crew: Crew, kill: bool = False) -> None:
        """Close a crew's channels, at which its children end; `kill`: those that never served."""
        crew.started()
        crew.close_ends()
        for child in crew.children.values():
            child.released, child.released_at = True, self.loop.now()
            child.channel.close()
            if not child.reaped:
                if kill:
                    os.kill(child.pid, 9)
                self._leaving.append(child)
        self.living = [child for child in self.living if not child.released]
        self.loop.call_later(EXIT_PATIENCE_SECS, self._hurry_leaving)
        self.reap()

    def reap(self) -> None:
        """Collect released children that have ended (after SIGCHLD)."""
        for child in list(self._leaving):
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                child.reaped = True
                self._leaving.remove(child)
                self.log.debug(f"{child.name} (pid {child.pid}) of generation {child.generation} ended: "
                               f"{describe_exit(status)}")  # fmt: skip

    def _hurry_leaving(self) -> None:
        if not self.ending:
            self.reap()
            for child in self._leaving:
                if self.loop.now() - child.released_at >= EXIT_PATIENCE_SECS:
                    self.log.warning(f"ending {child.name} (pid {child.pid}), which does not leave")
                    os.kill(child.pid, 9)

    def end(self) -> None:
        """Close every channel, wait a moment, then end by pid who is still there."""
        self.ending = True
        for child in self.living:
            child.channel.close()
        deadline = self.loop.now() + EXIT_PATIENCE_SECS
        waiting = [child for child in (*self.living, *self._leaving) if not child.reaped]
        while waiting:
            for child in list(waiting):
                if self._gone(child.pid):
                    waiting.remove(child)
            if waiting and self.loop.now() > deadline:
                for child in waiting:
                    self.log.warning(f"ending {child.name} (pid {child.pid}), which does not stop")
                    os.kill(child.pid, 9)
                    os.waitpid(child.pid, 0)
                return
            if waiting:
                self.loop.sleep(0.005)

    @staticmethod
    def _gone(pid: int) -> bool:
        return os.waitpid(pid, os.WNOHANG)[0] != 0


def reason_of(error: OSError) -> str:
    """The path, if it is about one, and what the system says."""
    text = os.strerror(error.errno or 0) if error.errno else str(error)
    return f"{error.filename}: {text}" if error.filename else text


def _innocence(child: Child) -> int:
    if child.end.startswith("killed"):
        return 0
    return 1 if child.reason or child.end != "exit status 0" else 2


def _with_counts(common: m.Common, peers: int, assets: int, programs: int) -> m.Common:
    return m.Common(
        common.root, common.uid, common.gid, common.verbose, common.foreground, common.privileged,
        common.user, common.groups, common.writable, peers, assets, programs,
    )  # fmt: skip
