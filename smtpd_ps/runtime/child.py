"""How every child starts: receive the set-up on descriptor 3, be confined, report ready, serve.

Runs in every process but the parent, first as root (or as whoever started an unprivileged
daemon) and then confined. Each process's `__main__` is a recipe over `Child`:

    child = Child.boot(Process.QUEUE)   # the set-up is here, nothing is confined yet
    ...                                 # open and import whatever will ever be needed
    child.confine()                     # chroot, uid, sandbox, self-check, Ready; waits for Go
    ...                                 # make channels with child.channel(peer, handlers)
    child.serve(parent_handlers)        # returns when the daemon stops
"""

import gc
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import NoReturn

from smtpd_ps import osdep
from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Phase, Process
from smtpd_ps.runtime import tracing
from smtpd_ps.runtime.channel import BlockingChannel, Channel, Handlers
from smtpd_ps.runtime.codec import ContractViolation
from smtpd_ps.runtime.following import Following
from smtpd_ps.runtime.late_imports import watch_imports
from smtpd_ps.runtime.log import Log, escape
from smtpd_ps.runtime.loop import Loop
from smtpd_ps.runtime.title import set_title

PARENT_FD = 3
SETUP_TIMEOUT_SECS = 60.0
MAX_FAILURE = 1024  # characters of the reason that the parent hears
EXIT_VIOLATION = 70  # EX_SOFTWARE
EXIT_FAILED = 71  # EX_OSERR

_SETUPS: dict[Process, type[m.Message]] = {
    Process.KEYS: m.KeysSetup,
    Process.CONTROL: m.ControlSetup,
    Process.SMTP: m.SmtpSetup,
    Process.LOOKUP: m.LookupSetup,
    Process.QUEUE: m.QueueSetup,
    Process.DELIVERY: m.DeliverySetup,
    Process.AGENT: m.AgentSetup,
}


class Child:
    """What a child has from its parent."""

    parent: Channel  # there from `serve` on

    def __init__(self, process: Process, channel: BlockingChannel, common: m.Common, setup: m.Message) -> None:
        self.process = process
        self.common = common
        self.setup = setup
        self.peers: dict[Process, dict[int, socket.socket]] = {}  # by process and seat
        self.assets: list[tuple[m.Asset, int]] = []
        self.mailbox_fd: int | None = None
        self.submission: tuple[str, int, socket.socket] | None = None  # the name of a kept message, it, and where to
        self.programs: list[tuple[m.Program, tuple[int, ...]]] = []
        self.listeners: list[tuple[m.Listener, socket.socket]] = []
        self.log = Log(process, common.foreground, common.verbose)
        self.loop = Loop()
        self._channels: list[Channel] = []
        self._boot_channel = channel
        self._draining = False
        self._serving = False  # let go
        self._joined: set[Channel] = set()

    @classmethod
    def boot(cls, process: Process) -> "Child":
        """Read the set-up. Exits with a line on standard error where there is none."""
        sock = socket.socket(fileno=os.dup(PARENT_FD))
        os.close(PARENT_FD)
        sock.set_inheritable(False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        channel = BlockingChannel(sock, process, Process.PARENT, Phase.SETUP, SETUP_TIMEOUT_SECS)
        try:
            common, _ = channel.receive()
            if not isinstance(common, m.Common):
                raise ContractViolation("the first message is not Common")
            setup, _ = channel.receive()
            if not isinstance(setup, _SETUPS[process]):
                raise ContractViolation(f"the second message is not {_SETUPS[process].__name__}")
            child = cls(process, channel, common, setup)
            sys.excepthook = child.log.uncaught
            child._receive_descriptors()
            set_title(f"agent {common.user}" if process is Process.AGENT else process.title)
        except (ContractViolation, EOFError, OSError) as error:
            sys.exit(f"smtpd_ps: {process.title}: no set-up: {error}")
        return child

    def _receive_descriptors(self) -> None:
        for _ in range(self.common.peers + self.common.assets + self.common.programs):
            message, fds = self._boot_channel.receive()
            match message:
                case m.PeerChannel():
                    self.peers.setdefault(message.process, {})[message.seat] = socket.socket(fileno=fds[0])
                case m.Asset():
                    self.assets.append((message, fds[0]))
                case m.AgentMailbox():
                    self.mailbox_fd = fds[0]
                case m.AgentSubmit():
                    self.submission = (message.name, fds[0], socket.socket(fileno=fds[1]))
                case m.Program():
                    self.programs.append((message, fds))
                case _:
                    raise ContractViolation(f"{type(message).__name__} among the descriptors")

    def confine(self, before_ready: Callable[[], None] | None = None) -> None:
        """Give everything up, say Ready, and wait for Go (with the listeners before it).

        `before_ready` runs in between, confined; it may still say that this process cannot be used (`fail`).
        """
        try:
            warnings = osdep.confine(self.process, self.common)
        except osdep.ConfineError as error:
            self.fail(f"cannot confine myself: {error}")
        for warning in warnings:
            self.log.warning(warning)
        if before_ready is not None:
            before_ready()
        try:
            self._boot_channel.send(m.Ready())
            if self.process is not Process.AGENT:
                self._await_go()
        except (ContractViolation, EOFError, OSError) as error:
            self.fail(f"no Go from the parent: {error}", EXIT_VIOLATION)
        watch_imports(self.log.error)
        gc.collect()
        gc.freeze()
        osdep.give_back()

    def _await_go(self) -> None:
        while True:
            message, fds = self._boot_channel.receive()
            match message:
                case m.Listener():
                    self.listeners.append((message, socket.socket(fileno=fds[0])))
                case m.Go():
                    self._serving = True
                    return
                case _:
                    raise ContractViolation(f"{type(message).__name__} before Go")

    def peer(self, process: Process) -> socket.socket:
        """This process's end of the channel to the only process of that kind."""
        (sock,) = self.peers[process].values()
        return sock

    def channel(self, peer: Process, handlers: Handlers) -> Channel:
        """The channel to the only process of that kind. Its loss ends this process: half-alive separation
        hides attacks.
        """
        return self._channel(peer, self.peer(peer), handlers)

    def channels(self, peer: Process, handlers: Callable[[int], Handlers]) -> dict[int, Channel]:
        """The channels to all processes of that kind, by their seats; `handlers` is asked with a seat."""
        return {seat: self._channel(peer, sock, handlers(seat)) for seat, sock in self.peers[peer].items()}

    def _channel(self, peer: Process, sock: socket.socket, handlers: Handlers) -> Channel:
        following = Following(self.process, self.log)
        if peer is Process.CONTROL:  # handled here, for all of them
            handlers = {**handlers, m.Follow: following.asked}
        made = Channel(self.loop, sock, self.process, peer, handlers, lambda why: self._lost(peer, why))
        following.channel = made
        self._channels.append(made)
        return made

    def join(self, peer: Process, fd: int, handlers: Handlers, on_gone: Callable[[], bool]) -> Channel:
        """A channel that came at run time (NewPeer). `on_gone` hears that the peer left without a
        violation, and says whether this process can go on.
        """

        def lost(reason: str) -> None:
            self._joined.discard(made)
            if reason or not on_gone():
                self._lost(peer, reason)

        made = Channel(self.loop, socket.socket(fileno=fd), self.process, peer, handlers, lost)
        self._joined.add(made)
        return made

    def serve(self, parent_handlers: Handlers, on_parent: Callable[[Channel], None] | None = None) -> None:
        """Run the loop until the parent closes its channel. LogLevel and TraceMask are handled here.

        `parent_handlers` names what the contract lets the parent send at run time, those two
        left out; `on_parent` is told the channel before the loop runs.
        """
        self._boot_channel.sock.settimeout(None)
        handlers = dict(parent_handlers)
        if self.process is not Process.AGENT:
            handlers[m.LogLevel] = self._log_level
            handlers[m.TraceMask] = self._trace_mask
        self.parent = self._channel(Process.PARENT, self._boot_channel.sock, handlers)
        if on_parent is not None:
            on_parent(self.parent)
        if self.process is not Process.AGENT:  # which makes others of itself
            self.log.gather(self.loop.at_turn_end)
        try:
            self.loop.run()
        finally:
            self.log.gather(None)

    def enter_drain(self) -> None:
        """All channels enter the DRAIN phase: loss of a peer is expected from now on."""
        self._draining = True
        for made in (*self._channels, *self._joined):
            made.phase = Phase.DRAIN

    def enter_retirement(self) -> None:
        """The parent wants to hear Drained some time. The peers stay, and their loss ends this process."""
        self.parent.phase = Phase.DRAIN

    def _log_level(self, message: m.LogLevel) -> None:
        self.log.verbose = message.verbose

    def _trace_mask(self, message: m.TraceMask) -> None:
        tracing.attach(self.log.trace)
        tracing.set_mask(message.mask)

    def _lost(self, peer: Process, reason: str) -> None:
        if peer is Process.PARENT or self._draining:
            self.loop.stop()
            return
        if reason:
            self.fail(f"{peer.title}: {reason}", EXIT_VIOLATION)
        self.loop.stop()  # the peer died; the parent names it and stops everything

    def fail(self, text: str, code: int = EXIT_FAILED) -> NoReturn:
        """Log why and end this process; the parent then stops the daemon, or what it has just started."""
        self.log.critical(text)
        if not self._serving and self.process is not Process.AGENT:
            try:
                self._boot_channel.send(m.Failed(escape(text)[:MAX_FAILURE]))
            except (ContractViolation, OSError) as error:
                self.log.debug(f"cannot tell the parent: {error}")
        os._exit(code)
