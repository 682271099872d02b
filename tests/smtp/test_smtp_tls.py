"""smtp/: STARTTLS and TLS from the start, on real sockets with a real client."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from smtp_glue import World
from support.certs import make_key, write_acme

from smtpd_ps.contract import messages as m
from smtpd_ps.runtime.tls import server_pump


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A server's context with a certificate of its own."""
    directory = tmp_path_factory.mktemp("pki")
    chain, key = write_acme(directory, make_key("ecdsa"))
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(chain, key)
    return made


@pytest.fixture
def make_world(context: ssl.SSLContext) -> Iterator[Callable[..., World]]:
    """Servers with that certificate."""
    made: list[World] = []

    def make(**changes: Any) -> World:
        made.append(World(pumps={0: lambda: server_pump(context)}, pki=("p",), **changes))
        return made[-1]

    yield make
    for world in made:
        world.close()


def in_thread(world: World, work: Callable[[socket.socket], None]) -> None:
    """Run a blocking client beside the server's loop."""
    client = world.connect()
    client.sock.settimeout(10)
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work(client.sock)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    world.spin(lambda: not thread.is_alive())
    thread.join()
    if errors:
        raise errors[0]


def client_context() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


def talk(sock: socket.socket, line: bytes, code: bytes) -> bytes:
    sock.sendall(line)
    data = b""
    while not (data.endswith(b"\r\n") and data.split(b"\r\n")[-2][3:4] == b" "):
        got = sock.recv(65536)
        assert got, data
        data += got
    assert data.split(b"\r\n")[-2].startswith(code), data
    return data


def test_starttls_auth_and_mail(make_world: Callable[..., World]) -> None:
    """A submission: STARTTLS, EHLO again, AUTH, mail; Received names TLS."""
    world = make_world(tls="require", auth="require", auth_table="users", port=587)

    def work(sock: socket.socket) -> None:
        talk(sock, b"", b"220")
        assert b"AUTH" not in talk(sock, b"EHLO x\r\n", b"250")
        talk(sock, b"STARTTLS\r\n", b"220")
        with client_context().wrap_socket(sock, do_handshake_on_connect=False) as tls:
            tls.do_handshake()
            reply = talk(tls, b"EHLO x\r\n", b"250")
            assert b"AUTH PLAIN LOGIN" in reply
            assert b"STARTTLS" not in reply
            talk(tls, b"AUTH PLAIN AHVzZXIAc2VjcmV0\r\n", b"235")
            talk(tls, b"MAIL FROM:<a@b.example>\r\n", b"250")
            talk(tls, b"RCPT TO:<b@example.com>\r\n", b"250")
            talk(tls, b"DATA\r\n", b"354")
            talk(tls, b"To: x\r\n\r\n" + b"x" * 70 + b"\r\n.\r\n", b"250")
            talk(tls, b"QUIT\r\n", b"221")

    in_thread(world, work)
    (body,) = world.bodies.values()
    assert b" with ESMTPSA id " in body
    assert b" (TLSv1.3:TLS_" in body
    assert b":NO)\r\n\tfor <b@example.com>;" in body
    assert b"\r\nMessage-ID: <" in body
    assert world.failures == []
    request = next(one for one in world.lookup.sent if isinstance(one, m.AuthRequest))
    assert (request.table, request.user, request.password) == ("users", "user", "secret")


def test_tls_from_the_start(make_world: Callable[..., World]) -> None:
    """smtps: the greeting comes after the handshake, and the session counts as smtps."""
    world = make_world(tls="implicit")
    counted: list[m.Message] = []

    def work(sock: socket.socket) -> None:
        with client_context().wrap_socket(sock) as tls:
            talk(tls, b"", b"220")
            talk(tls, b"EHLO x\r\n", b"250")
            world.server.control_handlers()[m.ShowStats](m.ShowStats(1))
            counted.extend(world.control.sent)
            talk(tls, b"QUIT\r\n", b"221")

    in_thread(world, work)
    assert isinstance(counted[0], m.Counters)
    assert dict(counted[0].values)["smtp.smtps"] == 1


def test_injected_plain_text_is_not_taken_into_the_session(make_world: Callable[..., World]) -> None:
    """CVE-2011-0411: bytes behind STARTTLS end the session, in one segment or waiting in the socket."""
    world = make_world(tls="offer")
    client = world.connect()
    client.reply()
    client.command("EHLO x")
    client.send(b"STARTTLS\r\nMAIL FROM:<evil@example.com>\r\n")
    assert client.reply().startswith("554 5.5.1")
    assert client.closed()

    client = world.connect()
    client.reply()
    client.command("EHLO x")
    (connection,) = world.server._open
    client.sock.setblocking(True)
    client.sock.sendall(b"NOOP\r\n")  # waits in the socket while the session hears STARTTLS
    connection.perform(connection.session.receive(b"STARTTLS\r\n"))
    client.sock.setblocking(False)
    assert client.reply().startswith("220")
    assert client.reply().startswith("554 5.5.1")
    assert client.closed()


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\x00\x02\x01\x00", b"\0" * 500])
def test_handshake_garbage_ends_the_session(make_world: Callable[..., World], garbage: bytes) -> None:
    """Rubbish instead of a ClientHello closes that connection, and nothing else."""
    world = make_world(tls="implicit")
    client = world.connect()
    client.send(garbage)
    client.sock.shutdown(socket.SHUT_WR)
    assert client.closed()
    world.spin(lambda: not world.server._open and not world.server._sessions)
    assert world.failures == []


def test_input_that_ends_early_under_tls(make_world: Callable[..., World]) -> None:
    """A client may close its sending side and read on: the delayed 535 and what is behind it still come."""
    world = make_world(tls="implicit", auth="optional")

    def work(sock: socket.socket) -> None:
        with client_context().wrap_socket(sock, suppress_ragged_eofs=True) as tls:
            tls.sendall(b"EHLO x\r\nAUTH PLAIN AGEAYg==\r\nNOOP\r\n")
            socket.socket.shutdown(tls, socket.SHUT_WR)
            said = b""
            while data := tls.recv(65536):
                said += data
            codes = [line[:3] for line in said.split(b"\r\n") if line[3:4] == b" "]
            assert codes == [b"220", b"250", b"535", b"250"]

    in_thread(world, work)
    world.spin(lambda: not world.server._open and not world.server._sessions)
