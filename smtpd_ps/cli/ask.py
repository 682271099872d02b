"""One request to the running daemon over its control socket, and the stream of its answers.

Runs in the operator's command; parses what the control process answers.
"""

import socket
from collections.abc import Iterator
from typing import Self, TypeVar

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.installation import paths
from smtpd_ps.contract.values import Phase, Process
from smtpd_ps.runtime.channel import BlockingChannel
from smtpd_ps.runtime.codec import ContractViolation

TIMEOUT_SECS = 60.0
T = TypeVar("T", bound=m.Message)


class DaemonError(Exception):
    """The daemon cannot be reached, refuses, or answers nonsense; the text says which."""


class NoDaemon(DaemonError):
    """Nobody listens on the control socket."""


class Conversation:
    """A connection for several requests, one after the other; a context manager. Raises DaemonError."""

    def __init__(self, state_dir: str | None, timeout_secs: float | None = TIMEOUT_SECS) -> None:
        self._sock = _connect(state_dir)
        self._channel = BlockingChannel(self._sock, Process.CLIENT, Process.CONTROL, Phase.RUN, timeout_secs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._sock.close()

    def ask(self, request: m.Message) -> Iterator[m.Message]:
        """Every part of the answer, Done last; to be read to its end before the next request."""
        try:
            self._channel.send(request)
            while True:
                part, _fds = self._channel.receive()
                yield part
                if isinstance(part, m.Done):
                    return
        except (EOFError, ConnectionError):
            raise DaemonError("the daemon closed the connection") from None
        except (TimeoutError, ContractViolation) as error:
            raise DaemonError(f"no answer from the daemon: {error}") from None

    def counters(self) -> dict[str, int]:
        """What `show stats` shows."""
        values: dict[str, int] = {}
        for part in self.ask(m.ShowStats(0)):
            if isinstance(part, m.Counters):
                values |= dict(part.values)
        return values


def _connect(state_dir: str | None) -> socket.socket:
    path = paths(state_dir).control_socket
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except PermissionError:
        raise DaemonError(f"{path}: only root may give orders to smtpd_ps") from None
    except OSError as error:
        raise NoDaemon(f"{path}: {error.strerror}; is smtpd_ps running?") from None
    return sock


def answers(state_dir: str | None, request: m.Message) -> Iterator[m.Message]:
    """Every part of the answer, Done last. Raises DaemonError."""
    with Conversation(state_dir) as conversation:
        yield from conversation.ask(request)


def parts(state_dir: str | None, request: m.Message, *kinds: type[T]) -> Iterator[T]:
    """The parts of these kinds; a Done that says failure is a DaemonError."""
    for part in answers(state_dir, request):
        if isinstance(part, kinds):
            yield part
        elif isinstance(part, m.Done) and not part.ok:
            raise DaemonError(part.text or "refused")


def order(state_dir: str | None, request: m.Message) -> m.Done:
    """The Done of a request without other parts. Raises DaemonError."""
    done = m.Done(0, False, "no answer")
    for part in answers(state_dir, request):
        if isinstance(part, m.Done):
            done = part
    if not done.ok:
        raise DaemonError(done.text or "refused")
    return done
