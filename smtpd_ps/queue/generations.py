"""The smtp, lookup and delivery processes that queue talks to, and their changing over a reload.

Runs in queue. New work goes to the generation that serves; the processes of older ones are heard
until they leave, which takes back what they had and did not finish (docs/decisions/0004).
"""

from collections.abc import Callable
from typing import Protocol

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Process, generation_of, seat_of
from smtpd_ps.queue.core import Handlers, Queue
from smtpd_ps.queue.shared import Sender, Shared


class Join(Protocol):
    """As runtime.child.Child.join: takes the descriptor, gives the sending end."""

    def __call__(self, peer: Process, fd: int, handlers: Handlers, on_gone: Callable[[], bool], /) -> Sender:
        """Make the channel."""


class Generations:
    """`join` makes a channel; `begin` is called once, when the first generation serves."""

    def __init__(self, queue: Queue, shared: Shared, join: Join, begin: Callable[[], None]) -> None:
        self._queue = queue
        self._s = shared
        self._join = join
        self._begin = begin
        self._serving: int | None = None
        self._channels: dict[tuple[Process, int], Sender] = {}

    def new_peer(self, message: m.NewPeer, fd: int) -> None:
        """A process of the generation that is about to serve."""
        process, seat = message.process, message.seat
        handlers = {
            Process.SMTP: self._queue.smtp_handlers,
            Process.LOOKUP: self._queue.lookup_handlers,
            Process.DELIVERY: self._queue.delivery_handlers,
        }[process](seat)
        channel = self._join(process, fd, handlers, lambda: self._gone(process, seat))
        self._channels[process, seat] = channel
        if process is Process.SMTP:
            self._s.peers.smtp[seat] = channel
            if self._serving is not None:
                self._queue.intake.join(seat)

    def reload(self, message: m.QueueReload) -> None:
        """This generation serves from now on, with these settings."""
        first = self._serving is None
        generation = self._serving = message.generation
        peers = self._s.peers
        peers.lookup = self._channels[Process.LOOKUP, seat_of(generation, 0)]
        peers.deliveries = tuple(
            (seat, channel)
            for (process, seat), channel in self._channels.items()
            if process is Process.DELIVERY and generation_of(seat) == generation
        )
        peers.generation = generation
        if first:
            self._begin()
        else:
            self._queue.configure(message.settings)

    def _gone(self, process: Process, seat: int) -> bool:
        """A process left; False when that may not be."""
        if generation_of(seat) == self._serving:
            return False
        self._channels.pop((process, seat), None)
        self._queue.forget(process, seat)
        return True
