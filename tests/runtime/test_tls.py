"""TLS over Stream: handshakes, STARTTLS, failures, close_notify."""

import shutil
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keys.certificates import certificate, key_pem, rsa_key

from smtpd_ps.runtime.loop import Loop
from smtpd_ps.runtime.stream import PlaintextWaiting, Stream, TlsError, TlsInfo
from smtpd_ps.runtime.tls import client_pump, server_pump


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    (folder / "cert").write_bytes(certificate(rsa_key(), "mx.example.com"))
    (folder / "key").write_bytes(key_pem(rsa_key()))
    return folder / "cert", folder / "key"


@pytest.fixture
def server_context(files: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files)
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


@pytest.fixture
def client_context(files: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(files[0])
    return context


class Side:
    """A Stream with what it was told."""

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        self.got = b""
        self.ends: list[str] = []
        self.infos: list[TlsInfo] = []
        self.stream = Stream(loop, sock, self._data, self.ends.append)

    def _data(self, data: bytes) -> None:
        self.got += data


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def sides(loop: Loop) -> Iterator[tuple[Side, Side]]:
    a, b = socket.socketpair()
    made = Side(loop, a), Side(loop, b)
    yield made
    for side in made:
        side.stream.abort()


@pytest.fixture
def raw(loop: Loop) -> Iterator[tuple[Side, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    side = Side(loop, ours)
    yield side, theirs
    side.stream.abort()
    theirs.close()


def until(loop: Loop, condition: Callable[[], object]) -> None:
    for _ in range(500):
        if condition():
            return
        loop.turn(0.05)
    raise AssertionError("did not happen")


def handshake(loop: Loop, sides: tuple[Side, Side], server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    sides[0].stream.start_tls(server_pump(server), sides[0].infos.append)
    sides[1].stream.start_tls(client_pump(client, "mx.example.com"), sides[1].infos.append)
    until(loop, lambda: (sides[0].infos and sides[1].infos) or sides[0].ends or sides[1].ends)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_handshake_and_data(
    loop: Loop,
    sides: tuple[Side, Side],
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    version: ssl.TLSVersion,
) -> None:
    """Both ends learn version and cipher, the client that it verified, and data passes both ways."""
    server_context.maximum_version = version
    handshake(loop, sides, server_context, client_context)
    server, client = sides
    assert client.infos[0].version == version.name.replace("_", ".") == server.infos[0].version
    assert client.infos[0].bits in (128, 256)
    assert client.infos[0].verified
    assert client.infos[0].peer_subject == "mx.example.com"
    assert client.infos[0].fingerprint.startswith("SHA256:")
    assert client.infos[0].server_name == "mx.example.com"
    assert not server.infos[0].verified
    assert server.infos[0].fingerprint == ""
    assert server.stream.tls == server.infos[0]
    large = bytes(range(256)) * 4096
    client.stream.write(b"EHLO ")
    client.stream.write(b"x\r\n")
    server.stream.write(large)
    until(loop, lambda: server.got == b"EHLO x\r\n" and client.got == large)
    assert server.stream.unsent_bytes == 0


def test_starttls_reply_goes_out_in_plain(
    loop: Loop, raw: tuple[Side, socket.socket], server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    """What was written before start_tls is plain text, what is written after it is not."""
    side, peer = raw
    side.stream.write(b"220 go\r\n")
    side.stream.start_tls(server_pump(server_context), side.infos.append)
    side.stream.write(b"secret")
    loop.turn(0.05)
    assert peer.recv(100) == b"220 go\r\n"
    got: list[bytes] = []

    def talk() -> None:
        with client_context.wrap_socket(peer, server_hostname="mx.example.com") as tls:
            got.append(tls.recv(100))

    thread = threading.Thread(target=talk)
    thread.start()
    until(loop, lambda: got)
    thread.join()
    assert got == [b"secret"]


def test_injected_plaintext_is_refused(
    loop: Loop, raw: tuple[Side, socket.socket], server_context: ssl.SSLContext
) -> None:
    """RFC 3207: bytes sent before our 220 can only be an injection; start_tls raises."""
    side, peer = raw
    peer.sendall(b"MAIL FROM:<a@b>\r\n")
    with pytest.raises(PlaintextWaiting):
        side.stream.start_tls(server_pump(server_context))
    assert side.stream.tls is None


def test_implicit_tls_takes_an_early_hello(
    loop: Loop, raw: tuple[Side, socket.socket], server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    """On a port that speaks TLS from the start the client's hello may be there already."""
    side, peer = raw
    pump = client_pump(client_context, "mx.example.com")
    assert pump.handshake() is None
    peer.sendall(pump.output())
    side.stream.start_tls(server_pump(server_context), side.infos.append, implicit=True)
    loop.turn(0.05)
    pump.feed(peer.recv(65536))
    assert pump.handshake() is not None
    peer.sendall(pump.output())
    until(loop, lambda: side.infos)


@pytest.mark.parametrize("garbage", [b"MAIL FROM:<a@b>\r\n", b"\x16\x03\x01\x00\x05hello", bytes(300), b"\x80" * 64])
def test_garbage_ends_the_stream(
    loop: Loop, raw: tuple[Side, socket.socket], server_context: ssl.SSLContext, garbage: bytes
) -> None:
    """Rubbish instead of a handshake closes with "tls: ..."; none of it reaches on_data."""
    side, peer = raw
    side.stream.start_tls(server_pump(server_context))
    peer.sendall(garbage)
    until(loop, lambda: side.ends)
    assert side.ends[0].startswith("tls: ")
    assert side.got == b""


def test_eof_during_the_handshake(loop: Loop, raw: tuple[Side, socket.socket], server_context: ssl.SSLContext) -> None:
    """A peer that leaves in the middle of the handshake is a TLS failure."""
    side, peer = raw
    side.stream.start_tls(server_pump(server_context))
    peer.close()
    until(loop, lambda: side.ends)
    assert side.ends == ["tls: the peer closed during the handshake"]


def test_reset_during_the_handshake(loop: Loop, server_context: ssl.SSLContext) -> None:
    """So is a connection that breaks there."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        side = Side(loop, listener.accept()[0])
    side.stream.start_tls(server_pump(server_context))
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    until(loop, lambda: side.ends)
    assert side.ends == ["tls: Connection reset by peer"]


def test_handshake_has_a_deadline(loop: Loop, raw: tuple[Side, socket.socket], server_context: ssl.SSLContext) -> None:
    """A silent peer is cut off, even where reading is paused."""
    side, _peer = raw
    side.stream.pause_reading()
    side.stream.start_tls(server_pump(server_context), handshake_secs=0.02)
    until(loop, lambda: side.ends)
    assert side.ends == ["tls: handshake timed out"]


def test_wrong_name_fails_verification(
    loop: Loop, sides: tuple[Side, Side], server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    """A client that verifies refuses a certificate for another name, and says why."""
    sides[0].stream.start_tls(server_pump(server_context))
    sides[1].stream.start_tls(client_pump(client_context, "other.example.com"))
    until(loop, lambda: sides[0].ends and sides[1].ends)
    assert sides[1].ends[0].startswith("tls: certificate: ")
    assert sides[0].ends[0].startswith("tls: ")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl program; Python cannot renegotiate")
def test_renegotiation_is_refused(loop: Loop, server_context: ssl.SSLContext) -> None:
    """A client that renegotiates (TLS 1.2) is cut off."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = subprocess.Popen(
            ["openssl", "s_client", "-tls1_2", "-connect", f"127.0.0.1:{server.getsockname()[1]}"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        side = Side(loop, server.accept()[0])
    assert client.stdin is not None
    with client:
        side.stream.start_tls(server_pump(server_context), side.infos.append, implicit=True)
        until(loop, lambda: side.infos)
        client.stdin.write(b"R\n")
        client.stdin.flush()
        until(loop, lambda: side.ends)
        client.kill()
    assert side.ends == ["tls: renegotiation refused"]
    assert side.got == b""


def test_close_notify_is_eof(
    loop: Loop, sides: tuple[Side, Side], server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    """close_when_sent sends data and close_notify; the peer gets the data and then EOF."""
    handshake(loop, sides, server_context, client_context)
    sides[0].stream.write(b"221 bye\r\n")
    sides[0].stream.close_when_sent()
    until(loop, lambda: sides[0].ends and sides[1].ends)
    assert sides[1].got == b"221 bye\r\n"
    assert sides[0].ends == sides[1].ends == [""]


def test_pause_holds_decrypted_data(
    loop: Loop, sides: tuple[Side, Side], server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    """Pausing from within on_data keeps later records, resuming delivers them without new input."""
    handshake(loop, sides, server_context, client_context)
    server, client = sides
    got: list[bytes] = []

    def take(data: bytes) -> None:
        got.append(data)
        server.stream.pause_reading()

    server.stream._on_data = take
    client.stream.write(b"a" * 40_000)
    for _ in range(5):
        loop.turn(0.01)
    assert 0 < len(b"".join(got)) <= 16_384
    for _ in range(20):
        server.stream.resume_reading()
        loop.turn(0.01)
    assert b"".join(got) == b"a" * 40_000


def test_second_start_tls_is_refused(
    loop: Loop, sides: tuple[Side, Side], server_context: ssl.SSLContext, client_context: ssl.SSLContext
) -> None:
    """TLS inside TLS is a programming error."""
    handshake(loop, sides, server_context, client_context)
    with pytest.raises(TlsError):
        sides[0].stream.start_tls(server_pump(server_context))


def test_impossible_host_name_is_a_tls_error(client_context: ssl.SSLContext) -> None:
    """A name that cannot be in SNI is TlsError, whatever ssl raises."""
    for name in (".example.com", "", "x" * 300):
        with pytest.raises(TlsError):
            client_pump(client_context, name)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    before=st.booleans(), changes=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), max_size=5),
    rubbish=st.binary(max_size=300),
)  # fmt: skip
def test_damaged_records_never_raise(
    server_context: ssl.SSLContext,
    client_context: ssl.SSLContext,
    before: bool,
    changes: list[tuple[int, int]],
    rubbish: bytes,
) -> None:
    """Changed, cut or added bytes, in the handshake or after it: the pump goes on waiting or raises TlsError."""
    server, client = server_pump(server_context), client_pump(client_context, "mx.example.com")
    established = False
    if not before:
        for _ in range(3):
            client.handshake()
            server.feed(client.output())
            server.handshake()
            client.feed(server.output())
        client.write(b"MAIL FROM:<a@example.com>\r\n" * 20)
        established = True
    else:
        client.handshake()
    data = bytearray(client.output() + rubbish)
    for at, byte in changes:
        data[at % len(data)] = byte
    try:
        server.feed(bytes(data))
        if established:
            while server.read():
                pass
        else:
            server.handshake()
    except TlsError as error:
        assert str(error)
