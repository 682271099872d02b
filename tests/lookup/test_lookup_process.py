"""The real process: booted by a parent, confined as far as an unprivileged one can be, asked."""

import os
import socket
from pathlib import Path

import msgspec
import pytest
from desk_world import SETTINGS

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import LookupSettings, TableSettings
from smtpd_ps.contract.values import Dsn, Phase, Process
from smtpd_ps.runtime.channel import BlockingChannel
from smtpd_ps.runtime.spawn import spawn

PEERS = (Process.SMTP, Process.QUEUE, Process.DELIVERY, Process.CONTROL)


class Running:
    """A lookup process that has its set-up; `parent` and `peers` are our ends of its channels."""

    def __init__(self, settings: LookupSettings, *assets: tuple[m.Asset, Path]) -> None:
        self.pid, ours = spawn(Process.LOOKUP, keep_stderr=True)
        self.parent = BlockingChannel(ours, Process.PARENT, Process.LOOKUP, Phase.SETUP, 20)
        user = (os.getuid(), os.getgid())
        self.parent.send(m.Common("", *user, 0, True, False, peers=len(PEERS), assets=len(assets)))
        self.parent.send(m.LookupSetup(settings))
        self.peers: dict[Process, BlockingChannel] = {}
        for peer in PEERS:
            end, theirs = socket.socketpair()
            self.peers[peer] = BlockingChannel(end, peer, Process.LOOKUP, Phase.RUN, 20)
            self.parent.send(m.PeerChannel(peer), theirs.fileno())
            theirs.close()
        for asset, path in assets:
            fd = os.open(path, os.O_RDONLY)
            self.parent.send(asset, fd)
            os.close(fd)

    def go(self) -> None:
        assert self.parent.receive() == (m.Ready(), ())
        self.parent.send(m.Go())
        ours = self.parent.sock.dup()
        self.parent.sock.close()
        self.parent = BlockingChannel(ours, Process.PARENT, Process.LOOKUP, Phase.RUN, 20)

    def end(self) -> int:
        self.parent.sock.close()
        for channel in self.peers.values():
            channel.sock.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_serves_and_ends(tmp_path: Path) -> None:
    """From the set-up to an accepted recipient of an authenticated session, and a clean end."""
    table = tmp_path / "virtuals"
    table.write_text("# of the test\nJohn.Doe@example.com cyrus\n")
    tables = tuple(t for t in SETTINGS.tables if t.name != "virtuals")
    virtuals = TableSettings("virtuals", "file", "map", path=str(table))
    settings = msgspec.structs.replace(SETTINGS, tables=(*tables, virtuals), resolver="127.0.0.1:9")
    running = Running(settings, (m.Asset("table", "virtuals"), table))
    running.go()
    smtp, queue = running.peers[Process.SMTP], running.peers[Process.QUEUE]
    smtp.send(m.PeerQuery(1, 0, "127.0.0.1"))
    assert smtp.receive()[0] == m.PeerInfo(1, "localhost", True)
    smtp.send(m.AuthRequest(1, "submitters", "alice", "secret"))
    assert smtp.receive()[0] == m.AuthReply(1, "ok")
    smtp.send(m.RcptRequest(1, 1, 1, "h", True, "", "john.doe@example.com", Dsn()))
    query = running.parent.receive()[0]
    assert isinstance(query, m.ForwardOpen)
    running.parent.send(m.ForwardNone(query.query, "none"))
    accept = queue.receive()[0]
    assert isinstance(accept, m.RcptAccept)
    assert (accept.envelopes[0].user, accept.envelopes[0].client.user) == ("cyrus", "alice")
    running.peers[Process.DELIVERY].send(m.RouteQuery(1, "send", "example.net"))
    route = running.peers[Process.DELIVERY].receive()[0]
    assert isinstance(route, m.Route)
    assert route.temporary  # nobody answers on that port
    assert running.end() == 0


def test_bad_table_ends_it_with_a_reason(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A table that cannot be read stops the start, and every bad line is in the log."""
    table = tmp_path / "t"
    table.write_text("a b\nlonely\n: x\n")
    settings = LookupSettings("h", (), (), (TableSettings("t", "file", "map", path="/etc/mail/t"),), (), ())
    running = Running(settings, (m.Asset("table", "t"), table))
    failed, _fds = running.parent.receive()
    assert isinstance(failed, m.Failed)
    assert "/etc/mail/t:2: expected a value after the key" in failed.text
    assert "/etc/mail/t:3: expected a key" in failed.text
    with pytest.raises(EOFError):
        running.parent.receive()
    assert running.end() == 71
    said = capfd.readouterr().err
    assert "lookup: /etc/mail/t:2: expected a value after the key" in said
    assert "lookup: /etc/mail/t:3: expected a key" in said
    assert "Traceback" not in said
