"""smtp/acceptor and smtp/outside: accepting under pressure, ids, randomness, dates."""

import errno
import socket
import time
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from smtpd_ps.contract.values import Process
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop
from smtpd_ps.smtp import acceptor
from smtpd_ps.smtp.acceptor import Acceptor
from smtpd_ps.smtp.outside import Clock, MessageIds, Randomness


class FakeSocket:
    """A listening socket whose accept does what the test says."""

    family = socket.AF_INET

    def __init__(self, real: socket.socket) -> None:
        self.real = real
        self.errors: list[int] = []
        self.accepts = 0

    def setblocking(self, _flag: bool) -> None:
        """It is not blocking already."""

    def fileno(self) -> int:
        return self.real.fileno()

    def accept(self) -> tuple[socket.socket, Any]:
        self.accepts += 1
        if self.errors:
            raise OSError(self.errors.pop(0), "refused")
        return self.real.accept()


def test_out_of_descriptors(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """EMFILE stops accepting for a while, without a busy loop, and then the client is served."""
    monkeypatch.setattr(acceptor, "PAUSE_SECS", 1000.0)
    loop, got = Loop(), []
    with socket.create_server(("127.0.0.1", 0)) as real, socket.create_connection(real.getsockname()):
        real.setblocking(False)
        fake = FakeSocket(real)
        fake.errors = [errno.EMFILE]
        made = Acceptor(loop, Log(Process.SMTP, True), fake, lambda sock, address: got.append((sock, address)))  # type: ignore[arg-type]
        made.open()
        for _ in range(5):
            loop.turn(0.0)
        assert fake.accepts == 1
        monkeypatch.setattr(loop, "now", lambda: time.monotonic() + 1001.0)
        while not got:
            loop.turn(0.1)
        assert got[0][1] == "127.0.0.1"
        assert got[0][0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        got[0][0].close()
    assert "cannot accept" in capsys.readouterr().err
    loop.close()


def test_a_client_that_has_gone_does_not_stop_the_next() -> None:
    """ECONNABORTED is that client's affair."""
    loop, got = Loop(), []
    with socket.create_server(("127.0.0.1", 0)) as real, socket.create_connection(real.getsockname()):
        real.setblocking(False)
        fake = FakeSocket(real)
        fake.errors = [errno.ECONNABORTED, errno.EPROTO]
        Acceptor(loop, Log(Process.SMTP, True), fake, lambda sock, _address: got.append(sock)).open()  # type: ignore[arg-type]
        loop.turn(1.0)
        assert len(got) == 1
        got[0].close()
    loop.close()


def test_ids_are_used_once() -> None:
    """Each leased id comes once, in the order of the lease; one that was given back comes again, first."""
    ids = MessageIds()
    assert ids.take() is None
    ids.lease((1, 2))
    ids.lease((3,))
    assert [ids.take(), ids.take()] == [1, 2]
    ids.give_back(2)
    assert [ids.take(), ids.take()] == [2, 3]
    assert ids.take() is None
    ids.give_back(2)
    assert (ids.take(), ids.take()) == (2, None)


def test_randomness() -> None:
    """Bits have their width, do not repeat, and fractions lie between 0 and 1."""
    source = Randomness()
    values = [source.bits(7) for _ in range(2000)]
    assert len(set(values)) == 2000
    assert max(values) < 2**56
    assert max(values).bit_length() > 48
    assert all(0 <= source.fraction() < 1 for _ in range(1000))


def test_clock() -> None:
    """The date parses, and is the same object within a second."""
    clock = Clock()
    assert parsedate_to_datetime(clock.date()).tzinfo is not None
