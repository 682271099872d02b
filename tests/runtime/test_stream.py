"""Stream without TLS: writing, reading, pausing, and every way it can end."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest

from smtpd_ps.runtime import stream as stream_module
from smtpd_ps.runtime.loop import Loop
from smtpd_ps.runtime.stream import Stream, TlsError, TlsInfo


class Side:
    """A Stream with what it was told."""

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self.got = b""
        self.ends: list[str] = []
        self.stream = Stream(loop, sock, self._data, self.ends.append)

    def _data(self, data: bytes) -> None:
        self.got += data


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def pair(loop: Loop) -> Iterator[tuple[Side, socket.socket]]:
    ours, theirs = socket.socketpair()
    side = Side(loop, ours)
    theirs.settimeout(5)
    yield side, theirs
    side.stream.abort()
    theirs.close()


def until(loop: Loop, condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        loop.turn(0.05)
    raise AssertionError("did not happen")


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()
    return ours, theirs


def test_import_leaves_ssl_out() -> None:
    """A process without TLS does not load ssl by importing the stream."""
    code = "import sys, smtpd_ps.runtime.stream; sys.exit('ssl' in sys.modules or '_ssl' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_data_is_delivered(loop: Loop, pair: tuple[Side, socket.socket]) -> None:
    """What the peer sends reaches on_data unchanged."""
    side, peer = pair
    peer.sendall(b"EHLO x\r\n")
    until(loop, lambda: side.got == b"EHLO x\r\n")


def test_more_is_read_at_once_where_more_comes(loop: Loop) -> None:
    """After a read that was filled comes a larger one; when the peer slows down, the size is as before."""
    ours, theirs = socket.socketpair()
    blocks: list[int] = []
    stream = Stream(loop, ours, lambda data: blocks.append(len(data)), lambda _reason: None)
    theirs.send(b"x" * 150_000)
    loop.turn(1)
    loop.turn(1)
    theirs.send(b"QUIT\r\n")
    loop.turn(1)
    theirs.send(b"y" * 100_000)
    loop.turn(1)
    most = stream_module.READ_BYTES
    assert blocks == [most, 150_000 - most, 6, most]
    stream.abort()
    theirs.close()


def test_writes_of_a_turn_go_out_together(loop: Loop) -> None:
    """All writes of one turn make one send: a packet socket shows them as one packet."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    side = Side(loop, ours)
    side.stream.write(b"250-a\r\n")
    side.stream.write(b"250 b\r\n")
    assert side.stream.unsent_bytes == 14
    loop.turn(0)
    assert side.stream.unsent_bytes == 0
    assert theirs.recv(1000) == b"250-a\r\n250 b\r\n"
    side.stream.abort()
    theirs.close()


def test_large_write_is_finished_when_writable(loop: Loop, pair: tuple[Side, socket.socket]) -> None:
    """What the kernel does not take waits, is counted, keeps its order, and on_drained tells the end."""
    side, peer = pair
    drained: list[bool] = []
    side.stream.on_drained = lambda: drained.append(True)
    data = bytes(range(256)) * 16384
    side.stream.write(data)
    loop.turn(0)
    assert 0 < side.stream.unsent_bytes < len(data)
    side.stream.write(b"end")
    assert not drained
    peer.setblocking(False)
    got = bytearray()
    while len(got) < len(data) + 3:
        loop.turn(0.01)
        try:
            got += peer.recv(1 << 20)
        except BlockingIOError:
            continue
    assert got == data + b"end"
    assert side.stream.unsent_bytes == 0
    assert drained == [True]


def test_peer_eof_closes_once(loop: Loop, pair: tuple[Side, socket.socket]) -> None:
    """EOF is on_close(""), once; abort afterwards says nothing more."""
    side, peer = pair
    peer.sendall(b"QUIT\r\n")
    peer.shutdown(socket.SHUT_WR)
    until(loop, lambda: bool(side.ends))
    side.stream.abort()
    side.stream.write(b"late")
    loop.turn(0)
    assert side.got == b"QUIT\r\n"
    assert side.ends == [""]


def test_reset_is_an_error(loop: Loop) -> None:
    """A reset names the system's error."""
    ours, theirs = tcp_pair()
    side = Side(loop, ours)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    theirs.close()
    until(loop, lambda: bool(side.ends))
    assert side.ends == ["Connection reset by peer"]


def test_write_to_a_gone_peer_is_an_error(loop: Loop, pair: tuple[Side, socket.socket]) -> None:
    """A failing send closes with the system's error and does not raise."""
    side, peer = pair
    side.stream.pause_reading()
    peer.close()
    side.stream.write(b"x")
    loop.turn(0)
    assert side.ends == ["Broken pipe"]


def test_pause_holds_data_back(loop: Loop, pair: tuple[Side, socket.socket]) -> None:
    """A paused stream delivers nothing until it is resumed."""
    side, peer = pair
    side.stream.pause_reading()
    peer.sendall(b"data")
    loop.turn(0.01)
    assert side.got == b""
    side.stream.resume_reading()
    assert side.got == b""
    until(loop, lambda: side.got == b"data")


def test_close_when_sent_sends_first(loop: Loop, pair: tuple[Side, socket.socket]) -> None:
    """All that was written arrives before the EOF; later writes are ignored."""
    side, peer = pair
    side.stream.write(b"221 bye\r\n")
    side.stream.close_when_sent()
    side.stream.write(b"never")
    until(loop, lambda: side.ends == [""])
    assert peer.recv(100) == b"221 bye\r\n"
    assert peer.recv(100) == b""


def test_last_reply_survives_a_peer_that_still_sends(loop: Loop) -> None:
    """Bytes we never read must not turn the close into a reset that destroys our last reply."""
    ours, theirs = tcp_pair()
    side = Side(loop, ours)
    theirs.settimeout(5)
    side.stream.pause_reading()
    theirs.sendall(b"x" * 100_000)
    side.stream.write(b"421 too much\r\n")
    side.stream.close_when_sent()
    for _ in range(5):
        loop.turn(0.01)
    assert side.ends == []
    theirs.sendall(b"y" * 100_000)
    loop.turn(0.01)
    assert theirs.recv(100) == b"421 too much\r\n"
    assert theirs.recv(100) == b""
    theirs.close()
    until(loop, lambda: side.ends == [""])


def test_abort_drops_what_is_unsent(loop: Loop, pair: tuple[Side, socket.socket]) -> None:
    """abort closes at once and tells on_close."""
    side, peer = pair
    side.stream.write(b"never sent")
    side.stream.abort()
    loop.turn(0)
    assert side.ends == [""]
    assert peer.recv(100) == b""


def test_abort_within_on_data(loop: Loop) -> None:
    """A handler may close its own stream."""
    ours, theirs = socket.socketpair()
    ends: list[str] = []
    stream = Stream(loop, ours, lambda _data: stream.abort(), ends.append)
    theirs.sendall(b"x")
    loop.turn(0.1)
    assert ends == [""]
    theirs.close()


def test_a_peer_that_does_not_read_is_cut_off(
    loop: Loop, pair: tuple[Side, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """close_when_sent has a deadline, whether the kernel was full before or becomes so now."""
    monkeypatch.setattr(stream_module, "CLOSE_SECS", 0.02)
    side, _peer = pair
    side.stream.write(b"x" * 10_000_000)
    side.stream.close_when_sent()
    until(loop, lambda: bool(side.ends))
    assert side.ends == ["the peer does not read"]
    ours, theirs = socket.socketpair()
    other = Side(loop, ours)
    other.stream.write(b"x" * 10_000_000)
    loop.turn(0)
    other.stream.close_when_sent()
    until(loop, lambda: bool(other.ends))
    assert other.ends == ["the peer does not read"]
    theirs.close()


class FakePump:
    """A pump that marks what it encrypts, and says and raises what it is told to."""

    def __init__(self) -> None:
        self.info: TlsInfo | None = TlsInfo("TLSv1.3", "NONE", 0, False)
        self.out = b""
        self.plain: list[bytes | None] = []
        self.error = ""
        self.chatter = b""  # said on every read

    def feed(self, data: bytes) -> None:
        self.plain.append(data)

    def handshake(self) -> TlsInfo | None:
        return self.info

    def read(self) -> bytes | None:
        if self.error:
            raise TlsError(self.error)
        self.out += self.chatter
        return self.plain.pop(0) if self.plain else b""

    def write(self, data: bytes) -> None:
        if self.error:
            raise TlsError(self.error)
        self.out += b"<" + data + b">"

    def output(self) -> bytes:
        data, self.out = self.out, b""
        return data

    def output_bytes(self) -> int:
        return len(self.out)

    def close(self) -> None:
        self.out += b"|"


def test_tls_order_on_the_wire(loop: Loop, pair: tuple[Side, socket.socket]) -> None:
    """Plain text, handshake, encrypted data of a turn in one piece, close_notify: in that order."""
    side, peer = pair
    pump = FakePump()
    pump.out = b"(hello)"
    drained: list[bool] = []
    side.stream.on_drained = lambda: drained.append(True)
    side.stream.write(b"220 ")
    side.stream.write(b"go")
    side.stream.start_tls(pump)
    side.stream.write(b"a")
    side.stream.write(b"b")
    assert side.stream.unsent_bytes == 8
    loop.turn(0)
    assert side.stream.unsent_bytes == 0 and drained == [True]
    side.stream.write(b"c")
    side.stream.close_when_sent()
    loop.turn(0)
    assert peer.recv(100) == b"220 go(hello)<ab><c>|"


def test_a_peer_that_asks_for_records_and_reads_none(loop: Loop, pair: tuple[Side, socket.socket]) -> None:
    """Key updates or alerts that a peer provokes without reading them are bounded: it is cut off."""
    side, peer = pair
    pump = FakePump()
    side.stream.start_tls(pump)
    side.stream.write(b"x" * 10_000_000)
    loop.turn(0)
    pump.chatter = b"k" * 1000
    for _ in range(100):
        if side.ends:
            break
        peer.sendall(b"k")
        loop.turn(0)
    assert side.ends == ["tls: the peer asks for records that it does not read"]


def test_tls_errors_while_reading_and_writing(loop: Loop) -> None:
    """A pump's error ends the stream, whichever way the data went; the alert is sent."""
    for reading in (True, False):
        ours, theirs = socket.socketpair()
        side = Side(loop, ours)
        pump = FakePump()
        side.stream.start_tls(pump)
        loop.turn(0)
        pump.error, pump.out = "bad record", b"(alert)"
        if reading:
            theirs.sendall(b"x")
        else:
            side.stream.write(b"x")
        loop.turn(0.1)
        assert side.ends == ["tls: bad record"]
        assert theirs.recv(100) == b"(alert)"
        theirs.close()


def test_close_notify_ends_the_stream(loop: Loop, pair: tuple[Side, socket.socket]) -> None:
    """None from the pump is the peer's close_notify: data before it is delivered, then EOF."""
    side, peer = pair
    pump = FakePump()
    side.stream.start_tls(pump)
    loop.turn(0)
    pump.plain = [b"QUIT\r\n", None]
    peer.sendall(b"x")
    loop.turn(0.1)
    assert (side.got, side.ends) == (b"QUIT\r\n", [""])
