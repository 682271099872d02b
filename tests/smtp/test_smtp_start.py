"""When smtp begins to accept clients."""

import socket
from collections.abc import Iterator

import pytest

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ListenerSettings, SmtpSettings
from smtpd_ps.contract.values import Process
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop
from smtpd_ps.smtp.server import SmtpServer


class Said:
    """Keeps what was sent."""

    def __init__(self) -> None:
        self.messages: list[m.Message] = []
        self.pending_bytes = 0

    def send(self, message: m.Message, *_fds: int) -> None:
        self.messages.append(message)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """A listener as the parent hands it over."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def server(listening: socket.socket, request: pytest.FixtureRequest) -> Iterator[SmtpServer]:
    """A started server that no one has told anything; with the parameter True it starts paused."""
    settings = SmtpSettings(
        hostname="mx.example.com", listeners=(ListenerSettings(index=0, address="127.0.0.1", port=25),), pki=()
    )
    made = SmtpServer(
        Loop(), Log(Process.SMTP, foreground=True), settings, 0, {}, pytest.fail, getattr(request, "param", False)
    )
    made.lookup, made.queue, made.control = Said(), Said(), Said()
    made.listen(0, listening)
    made.start()
    yield made
    for connection in list(made._open):
        if connection.stream is not None:
            connection.stream.abort()
    made.loop.close()


def asked(server: SmtpServer) -> list[m.Message]:
    """What lookup has been asked after some turns."""
    for _ in range(5):
        server.loop.turn(0.01)
    assert isinstance(server.lookup, Said)
    return server.lookup.messages


def test_clients_wait_until_queue_is_ready(server: SmtpServer, listening: socket.socket) -> None:
    """Before queue has leased message ids a MAIL could only be refused: clients wait in the backlog instead."""
    with socket.create_connection(listening.getsockname()):
        assert asked(server) == []
        server.queue_handlers()[m.IdLease](m.IdLease((1, 2, 3)))
        assert [type(message) for message in asked(server)] == [m.PeerQuery]


def test_a_pause_before_queue_is_ready_holds(server: SmtpServer, listening: socket.socket) -> None:
    """`pause smtp` right after the start is not forgotten when queue becomes ready; resume then serves who waits."""
    pause = server.control_handlers()[m.Pause]
    pause(m.Pause(1, "smtp", True))
    with socket.create_connection(listening.getsockname()):
        server.queue_handlers()[m.IdLease](m.IdLease((1, 2, 3)))
        assert asked(server) == []
        pause(m.Pause(1, "smtp", False))
        assert [type(message) for message in asked(server)] == [m.PeerQuery]


@pytest.mark.parametrize("server", [True], indirect=True)
def test_started_paused(server: SmtpServer, listening: socket.socket) -> None:
    """-P smtp: nobody is accepted before the operator says so, whatever queue says."""
    with socket.create_connection(listening.getsockname()):
        server.queue_handlers()[m.IdLease](m.IdLease((1, 2, 3)))
        assert asked(server) == []
        server.control_handlers()[m.Pause](m.Pause(1, "smtp", False))
        assert [type(message) for message in asked(server)] == [m.PeerQuery]
