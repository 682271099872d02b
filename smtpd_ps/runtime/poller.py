"""Which descriptors are ready: epoll where there is one, else what the selectors module has (kqueue).

Runs in every process; parses nothing. On its way to epoll, selectors makes an object an event, which
costs more than the system call where the loop wakes up for one event, as it mostly does.
"""

import select
import selectors
import sys
from typing import Protocol

READ = 1
WRITE = 2

Ready = list[tuple[int, int]]  # descriptor and READ, WRITE or both


class Poller(Protocol):
    """A set of watched descriptors; `mask` is READ, WRITE or both. An error or hang-up may be told as both."""

    def register(self, fd: int, mask: int) -> None:
        """Watch a descriptor that is not watched."""

    def share(self, fd: int) -> None:
        """Watch a listening socket that other processes watch too: where the system can, one of them wakes up."""

    def modify(self, fd: int, mask: int) -> None:
        """Watch it for something else."""

    def unregister(self, fd: int) -> None:
        """Watch it no more; it may be closed already."""

    def close(self) -> None:
        """Give its descriptor back."""

    def poll(self, patience_secs: float | None) -> Ready:
        """What is ready, waiting for it at most that long (None: without end; never negative)."""


def make_poller() -> Poller:
    """The system's best."""
    return _Epoll() if sys.platform.startswith("linux") else _Selector()


if sys.platform.startswith("linux"):
    _EVENTS = (0, select.EPOLLIN, select.EPOLLOUT, select.EPOLLIN | select.EPOLLOUT)
    # By epoll's answer: everything but EPOLLOUT lets a reader look, everything but EPOLLIN a writer.
    _MASKS = {select.EPOLLIN: READ, select.EPOLLOUT: WRITE}
    _MAX_EVENTS = 256  # a turn; the others are ready in the next one

    class _Epoll:
        """See Poller."""

        def __init__(self) -> None:
            self._epoll = select.epoll()
            self._poll = self._epoll.poll

        def register(self, fd: int, mask: int) -> None:
            self._epoll.register(fd, _EVENTS[mask])

        def share(self, fd: int) -> None:
            self._epoll.register(fd, select.EPOLLIN | select.EPOLLEXCLUSIVE)

        def modify(self, fd: int, mask: int) -> None:
            self._epoll.modify(fd, _EVENTS[mask])

        def unregister(self, fd: int) -> None:
            try:
                self._epoll.unregister(fd)
            except OSError:
                return  # closed: epoll has forgotten it by itself

        def close(self) -> None:
            self._epoll.close()

        def poll(self, patience_secs: float | None) -> Ready:
            masks = _MASKS
            return [(fd, masks.get(events) or _mask(events)) for fd, events in self._poll(patience_secs, _MAX_EVENTS)]

    def _mask(events: int) -> int:
        return (READ if events & ~select.EPOLLOUT else 0) | (WRITE if events & ~select.EPOLLIN else 0)


class _Selector:
    """See Poller."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def register(self, fd: int, mask: int) -> None:
        self._selector.register(fd, mask)

    def share(self, fd: int) -> None:
        self._selector.register(fd, READ)

    def modify(self, fd: int, mask: int) -> None:
        self._selector.modify(fd, mask)

    def unregister(self, fd: int) -> None:
        self._selector.unregister(fd)

    def close(self) -> None:
        self._selector.close()

    def poll(self, patience_secs: float | None) -> Ready:
        return [(key.fd, mask) for key, mask in self._selector.select(patience_secs)]
