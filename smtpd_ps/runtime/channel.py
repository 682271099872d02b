"""A channel to another process: checked messages over a socketpair.

Runs in every process; what arrives is checked by runtime/frames before a handler sees it.
All frames of one loop turn go out with one send; a frame with descriptors has a sendmsg of its
own, so that the kernel keeps descriptors and bytes in step.
"""

import array
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping

from smtpd_ps.contract.messages import Message
from smtpd_ps.contract.values import Phase, Process
from smtpd_ps.runtime import tracing
from smtpd_ps.runtime.codec import ContractViolation, encode
from smtpd_ps.runtime.frames import FrameReader, Received, check_outgoing, close_all, incoming, outgoing
from smtpd_ps.runtime.loop import Loop

Handler = Callable[..., None]  # called with the message and then its descriptors
Handlers = Mapping[type[Message], Handler]

READ_BYTES = 262_144
NO_ROOM_SECS = 0.05  # until looking again for a free descriptor
_buffer = bytearray(READ_BYTES)  # every read goes here first; a fresh one each time would be mapped and unmapped
_view = memoryview(_buffer)
MAX_FDS = 16
# As numbers: the operators of socket's flags are slow.
_CLOSED_BY_EXEC = int(socket.MSG_CMSG_CLOEXEC)
_TRUNCATED = int(socket.MSG_CTRUNC)
_FD_SPACE = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)


def receive(sock: socket.socket, takes_fds: bool, most_bytes: int = READ_BYTES) -> tuple[bytes, list[int]]:
    """Read once: bytes (empty at the end) and the descriptors that came along.

    Raises ContractViolation when the kernel had to drop descriptors, OSError as recv does.
    """
    if not takes_fds:
        return bytes(_view[: sock.recv_into(_buffer, most_bytes)]), []
    into = _buffer if most_bytes == READ_BYTES else _view[:most_bytes]
    size, ancillary, flags, _address = sock.recvmsg_into([into], _FD_SPACE, _CLOSED_BY_EXEC)
    data = bytes(_view[:size])
    if not ancillary and not flags & _TRUNCATED:
        return data, []
    fds = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    if flags & _TRUNCATED:
        close_all(list(fds))
        raise ContractViolation("descriptors were truncated")
    return data, list(fds)


def _has_room(fd: int, spare_fds: int) -> bool:
    """Whether this process may hold that many more descriptors."""
    held: list[int] = []
    try:
        for _ in range(spare_fds):
            held.append(os.dup(fd))
    except OSError:
        return False
    finally:
        close_all(held)
    return True


class Channel:
    """One end of a channel, in the loop.

    `handlers` must name exactly the messages that the contract lets `peer` send at run time.
    `on_close` is called once, with "" at a clean end or else what went wrong.
    """

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        me: Process,
        peer: Process,
        handlers: Handlers,
        on_close: Callable[[str], None],
        phase: Phase = Phase.RUN,
    ) -> None:
        expected = {r.message for r in incoming(peer, me).values() if r.phase & (Phase.RUN | Phase.DRAIN)}
        if set(handlers) - {r.message for r in incoming(peer, me).values()} or expected - set(handlers):
            names = sorted(kind.__name__ for kind in expected ^ set(handlers))
            raise ContractViolation(f"handlers of {me.title} for {peer.title} differ from the contract: {names}")
        self.me, self.peer = me, peer
        self._loop, self._sock = loop, sock
        self._handlers = handlers
        self._on_close = on_close
        self._reader = FrameReader(peer, me, phase)
        self._takes_fds = self._reader.takes_fds
        self._hop = (me, peer)
        self._may_send = outgoing(me, peer, phase)
        self._out: list[bytes] = []  # frames of this turn without descriptors
        self._blocked: deque[tuple[bytes, tuple[int, ...]]] = deque()  # what the kernel did not take yet
        self._waiting = False  # for the kernel to take more
        self.pending_bytes = 0
        self.spare_fds = 1  # to be free before reading: more than one descriptor never comes with one read
        self.closed = False
        sock.setblocking(False)
        loop.read_on(sock.fileno(), self._on_readable)

    @property
    def phase(self) -> Phase:
        """SETUP, RUN or DRAIN; set it when the process enters another one."""
        return self._reader.phase

    @phase.setter
    def phase(self, phase: Phase) -> None:
        self._reader.phase = phase
        self._may_send = outgoing(self.me, self.peer, phase)

    def send(self, message: Message, *fds: int) -> None:
        """Queue `message` for the end of the turn. Descriptors are closed once they are sent.

        Raises ContractViolation when the contract does not allow it.
        """
        if self._may_send.get(type(message)) != len(fds):
            check_outgoing(message, self._hop, self._reader.phase, len(fds))
        if self.closed:
            close_all(fds)
            return
        frame = encode(message)
        if tracing.mask & tracing.IMSG:
            self._trace("->", message)
        self.pending_bytes += len(frame)
        if not self._out:
            self._loop.at_turn_end(self.flush)
        if fds:
            self._gather()
            self._blocked.append((frame, fds))
        else:
            self._out.append(frame)

    def flush(self) -> None:
        """Write what is queued, as far as the kernel takes it."""
        if self.closed:
            return
        self._gather()
        while self._blocked:
            data, fds = self._blocked[0]
            try:
                if fds:
                    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
                    sent = self._sock.sendmsg([data], [rights])
                    close_all(fds)
                else:
                    sent = self._sock.send(data)
            except BlockingIOError:
                if not self._waiting:
                    self._waiting = True
                    self._loop.write_on(self._sock.fileno(), self.flush)
                return
            except (BrokenPipeError, ConnectionResetError):
                self.close()  # the peer is gone; who was lost first, the parent finds out
                return
            except OSError as error:
                self.close(os.strerror(error.errno or 0))
                return
            self.pending_bytes -= sent
            if sent < len(data):
                self._blocked[0] = (data[sent:], ())
            else:
                self._blocked.popleft()
        if self._waiting:
            self._waiting = False
            self._loop.write_off(self._sock.fileno())

    def _gather(self) -> None:
        if self._out:
            self._blocked.append((b"".join(self._out), ()))
            self._out.clear()

    def _on_readable(self) -> None:
        if self._takes_fds and not _has_room(self._sock.fileno(), self.spare_fds):
            # The kernel would drop the descriptor and keep the message: let both wait.
            self._loop.read_off(self._sock.fileno())
            self._loop.call_later(NO_ROOM_SECS, self._read_again)
            return
        try:
            data, fds = receive(self._sock, self._takes_fds)
            if not data:
                close_all(fds)
                self.close("" if self._reader.empty else "closed in the middle of a message")
                return
            messages = self._reader.feed(data, fds)
        except BlockingIOError:
            return
        except ContractViolation as error:
            self.close(str(error))
            return
        except ConnectionResetError:
            self.close()
            return
        except OSError as error:
            self.close(os.strerror(error.errno or 0))
            return
        if tracing.mask:
            messages = self._traced(messages, len(data))
        for at, received in enumerate(messages):
            if self.closed:
                for _message, held in messages[at:]:
                    close_all(held)
                return
            self._handlers[type(received[0])](received[0], *received[1])

    def _trace(self, way: str, message: Message) -> None:
        tracing.write("imsg", f"{self.me.title} {way} {self.peer.title} {type(message).__name__}")

    def _traced(self, messages: list[Received], size_bytes: int) -> list[Received]:
        """Hand over what was received, saying so; nothing is left to hand over."""
        if tracing.mask & tracing.MPROC:
            tracing.write("mproc", f"{self.me.title} <- {self.peer.title} {size_bytes} bytes, {len(messages)} messages")
        at = 0
        while at < len(messages) and not self.closed:
            message, fds = messages[at]
            at += 1
            if tracing.mask & tracing.IMSG:
                self._trace("<-", message)
            begun = tracing.clock()
            self._handlers[type(message)](message, *fds)
            if tracing.mask & tracing.PROFILE_IMSG:
                ms = (tracing.clock() - begun) * 1000
                tracing.write(
                    "profile-imsg", f"{self.me.title} <- {self.peer.title} {type(message).__name__} {ms:.3f} ms"
                )
        return messages[at:]  # whose descriptors are to be closed

    def _read_again(self) -> None:
        if not self.closed:
            self._loop.read_on(self._sock.fileno(), self._on_readable)

    def close(self, reason: str = "") -> None:
        """Close this end; `on_close` hears the reason. Harmless when closed."""
        if self.closed:
            return
        self.closed = True
        self._loop.forget(self._sock.fileno())
        self._reader.close()
        for _data, fds in self._blocked:
            close_all(fds)
        self._blocked.clear()
        self._out.clear()
        self._sock.close()
        self._on_close(reason)


class BlockingChannel:
    """One end of a channel before there is a loop: set-up, and the signing requests.

    It reads a message at a time and not a byte further: what follows Go is for the Channel that takes over.
    `timeout_secs` bounds every wait; TimeoutError is raised when it passes.
    """

    def __init__(
        self, sock: socket.socket, me: Process, peer: Process, phase: Phase, timeout_secs: float | None
    ) -> None:
        self.me, self.peer = me, peer
        self.sock = sock
        self.phase = phase
        self._reader = FrameReader(peer, me, phase)
        self._ready: deque[Received] = deque()
        sock.settimeout(timeout_secs)

    def send(self, message: Message, *fds: int) -> None:
        """Send now; the caller keeps the descriptors. Raises ContractViolation, OSError."""
        check_outgoing(message, (self.me, self.peer), self.phase, len(fds))
        frame = encode(message)
        if fds:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
            sent = self.sock.sendmsg([frame], [rights])
            frame = frame[sent:]
        if frame:
            self.sock.sendall(frame)

    def receive(self) -> Received:
        """The next message with its descriptors. Raises ContractViolation, EOFError, OSError."""
        while not self._ready:
            data, fds = receive(self.sock, True, min(self._reader.missing_bytes, READ_BYTES))
            if not data:
                close_all(fds)
                raise EOFError(f"{self.peer.title} closed the channel")
            self._ready.extend(self._reader.feed(data, fds))
        return self._ready.popleft()

    @property
    def settled(self) -> bool:
        """Whether nothing was received beyond what `receive` has returned."""
        return not self._ready and self._reader.empty
