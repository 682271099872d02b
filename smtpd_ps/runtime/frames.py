"""Sans-I/O reader of frames: bytes and descriptors in, checked messages out.

Runs in every process; parses bytes of the peer process. Everything a peer may get wrong is a
ContractViolation: a type it may not send, the wrong phase, a bad length, a wrong number of
descriptors, a malformed payload.
"""

import os
from collections import deque

from smtpd_ps.contract.messages import Message
from smtpd_ps.contract.routes import BY_TYPE, ROUTES, Route
from smtpd_ps.contract.values import Phase, Process
from smtpd_ps.runtime.codec import FD_MARK, HEADER, HEADER_BYTES, ContractViolation, decode

Received = tuple[Message, tuple[int, ...]]
_Bounds = tuple[int, int, Route]  # the least and the most that the header's length field may say, the mark included


def incoming(sender: Process, receiver: Process) -> dict[int, Route]:
    """The routes by number that `receiver` takes from `sender`."""
    return {route.number: route for route in ROUTES if (sender, receiver) in route.hops}


def outgoing(sender: Process, receiver: Process, phase: Phase) -> dict[type[Message], int]:
    """What `sender` may send `receiver` in that phase, with how many descriptors."""
    return {
        route.message: len(route.fds)
        for route in ROUTES if (sender, receiver) in route.hops and route.phase & phase
    }  # fmt: skip


def check_outgoing(message: Message, hop: tuple[Process, Process], phase: Phase, fds: int) -> None:
    """Raise ContractViolation unless `message` may travel `hop` now with that many descriptors."""
    route = BY_TYPE.get(type(message))
    if route is None or hop not in route.hops:
        raise ContractViolation(f"{type(message).__name__} has no route {hop[0].title} to {hop[1].title}")
    if not route.phase & phase:
        raise ContractViolation(f"{type(message).__name__} is not allowed in phase {phase.name}")
    if fds != len(route.fds):
        raise ContractViolation(f"{type(message).__name__} carries {len(route.fds)} descriptors, not {fds}")


def close_all(fds: tuple[int, ...] | deque[int] | list[int]) -> None:
    """Close descriptors that nobody will use."""
    for fd in fds:
        os.close(fd)


class FrameReader:
    """Cuts what one peer sends into messages, and checks each against the contract."""

    __slots__ = ("_allowed", "_buffer", "_fds", "_now", "_phase", "sender")

    def __init__(self, sender: Process, receiver: Process, phase: Phase) -> None:
        self.sender = sender
        self._allowed = incoming(sender, receiver)
        self._buffer = b""
        self._fds: deque[int] = deque()
        self.phase = phase

    @property
    def phase(self) -> Phase:
        """Which messages may come; set it when the process enters another one."""
        return self._phase

    @phase.setter
    def phase(self, phase: Phase) -> None:
        # What a phase allows is worked out here and not a message at a time: IntFlag's operators are slow.
        self._phase = phase
        self._now = {number: _bounds(route) for number, route in self._allowed.items() if route.phase & phase}

    @property
    def takes_fds(self) -> bool:
        """Whether any message of this hop carries a descriptor."""
        return any(route.fds for route in self._allowed.values())

    @property
    def empty(self) -> bool:
        """Whether nothing is half received."""
        return not self._buffer and not self._fds

    @property
    def missing_bytes(self) -> int:
        """How much of the frame under way, or of its header, is still to come; at least 1."""
        have = len(self._buffer)
        if have < HEADER_BYTES:
            return HEADER_BYTES - have
        _number, length, _peer, _pid = HEADER.unpack_from(self._buffer)
        return int(length & ~FD_MARK) - have

    def feed(self, data: bytes, fds: list[int] | None = None) -> list[Received]:
        """Take bytes (and descriptors received with them); return the messages now complete."""
        if fds:
            self._fds.extend(fds)
        buffer = self._buffer + data if self._buffer else data
        view = memoryview(buffer)
        at, end = 0, len(buffer)
        out: list[Received] = []
        try:
            while end - at >= HEADER_BYTES:
                number, length, _peer, _pid = HEADER.unpack_from(buffer, at)
                bounds = self._now.get(number)
                if bounds is None or not bounds[0] <= length <= bounds[1]:
                    raise self._violation(number, length)
                size = length & ~FD_MARK
                if end - at < size:
                    break
                message = decode(number, view[at + HEADER_BYTES : at + size])
                at += size
                out.append((message, self._take(bounds[2]) if length & FD_MARK else ()))
        except ContractViolation:
            self.close()
            for _message, held in out:
                close_all(held)
            raise
        view.release()
        self._buffer = buffer[at:] if at < end else b""
        return out

    def close(self) -> None:
        """Close descriptors that no message took."""
        close_all(self._fds)
        self._fds.clear()

    def _violation(self, number: int, length: int) -> ContractViolation:
        """What is wrong with a header."""
        sender, route = self.sender.title, self._allowed.get(number)
        if route is None:
            return ContractViolation(f"{sender} may not send message type {number}")
        name = route.message.__name__
        if number not in self._now:
            return ContractViolation(f"{sender} sent {name} in phase {self.phase.name}")
        if bool(length & FD_MARK) != bool(route.fds):
            return ContractViolation(f"{sender} sent {name} with a wrong descriptor mark")
        return ContractViolation(f"{sender} sent {name} with length {length & ~FD_MARK}")

    def _take(self, route: Route) -> tuple[int, ...]:
        if len(self._fds) < len(route.fds):
            raise ContractViolation(f"{self.sender.title} sent {route.message.__name__} without its descriptor")
        return tuple(self._fds.popleft() for _ in route.fds)


def _bounds(route: Route) -> _Bounds:
    mark = FD_MARK if route.fds else 0
    return mark | HEADER_BYTES, mark | (HEADER_BYTES + route.max_bytes), route
