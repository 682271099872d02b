"""The blocking driver of the SMTP client: what it makes of servers that refuse, stop, or talk nonsense."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from smtpd_ps.contract.values import Status
from smtpd_ps.pure.smtp_client_events import Answer, ClientOptions, Mail
from smtpd_ps.runtime.smtp_dialogue import Dialogue, DialogueError

OK = b"250 ok\r\n"
GREETING = b"220 mx ESMTP\r\n"
BODY = (b"Subject: x\r\n\r\n", b".dot\r\n")


class Server:
    """Says its lines, each after something was received; keeps what it got."""

    def __init__(self, sock: socket.socket, lines: list[bytes]) -> None:
        self.got = b""
        self._sock, self._lines = sock, lines
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        with self._sock as sock:
            for number, line in enumerate(self._lines):
                if number:
                    data = sock.recv(65536)
                    if not data:
                        return
                    self.got += data
                sock.sendall(line)
            sock.shutdown(socket.SHUT_WR)
            while data := sock.recv(65536):
                self.got += data


@contextmanager
def dialogue(lines: list[bytes], **more: object) -> Iterator[tuple[Dialogue, Server]]:
    """A driver and a server that says these lines."""
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    server = Server(theirs, lines)
    talk = Dialogue(ours, ClientOptions("me.test"), **more)  # type: ignore[arg-type]
    try:
        yield talk, server
    finally:
        talk.close()
        server.thread.join(20)
        assert not server.thread.is_alive()


def mail(*recipients: str) -> Mail:
    return Mail("a@x.test", list(recipients), None, sum(map(len, BODY)))


def test_a_message() -> None:
    """The commands, the body with its dots stuffed, the goodbye."""
    with dialogue([GREETING, OK, OK, OK, b"354 go\r\n", OK]) as (talk, server):
        talk.open()
        assert talk.send(mail("b@y.test"), BODY).answers == [(Status.OK, "250 ok")]
    head = b"EHLO me.test\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@y.test>\r\nDATA\r\n"
    assert server.got == head + b"Subject: x\r\n\r\n..dot\r\n.\r\nQUIT\r\n"


def test_nobody_gets_what_is_abandoned() -> None:
    """Before the body it is asked with the refusals; the message then has no end, and nobody was decided for."""
    asked: list[list[Answer]] = []

    def abandon(refusals: list[Answer]) -> bool:
        asked.append(refusals)
        return True

    lines = [GREETING, OK, OK, OK, b"550 no\r\n", b"354 go\r\n"]
    with dialogue(lines, abandon=abandon) as (talk, server):
        talk.open()
        finished = talk.send(mail("b@y.test", "c@y.test"), BODY)
        assert finished.answers == [None, (Status.PERMFAIL, "550 no")]
        with pytest.raises(DialogueError, match="has ended"):
            talk.send(mail("b@y.test"), BODY)
    assert asked == [[(Status.PERMFAIL, "550 no")]] and server.got.endswith(b"DATA\r\n")


@pytest.mark.parametrize(
    ("lines", "temporary"),
    [
        ([b"554 go away\r\n"], False),
        ([b"421 later\r\n"], True),
        ([b"HTTP/1.1 400\r\n"], True),
        ([GREETING], True),
        ([], True),
    ],
)
def test_no_session(lines: list[bytes], temporary: bool) -> None:
    """Why there is none, and whether there may be one later."""
    with dialogue(lines) as (talk, _server):
        with pytest.raises(DialogueError) as refused:
            talk.open()
        assert refused.value.temporary is temporary and str(refused.value).isprintable()


@pytest.mark.parametrize("last", [b"354 go\r\n", OK])
def test_a_server_that_goes(last: bytes) -> None:
    """Within a transaction nobody is decided for, or all for now once the final dot was sent."""
    with dialogue([GREETING, OK, OK, OK, last]) as (talk, _server):
        talk.open()
        if last == OK:  # no answer to DATA
            with pytest.raises(DialogueError):
                finished = talk.send(mail("b@y.test"), BODY)
                raise DialogueError(str(finished.answers), temporary=True)
            return
        (answer,) = talk.send(mail("b@y.test"), BODY).answers
        assert answer is None or answer[0] is Status.TEMPFAIL


def test_a_body_with_bare_line_ends() -> None:
    """It is refused for good, and its end never sent."""
    with dialogue([GREETING, OK, OK, OK, b"354 go\r\n"]) as (talk, server):
        talk.open()
        (answer,) = talk.send(mail("b@y.test"), (b"Subject: x\r\n", b"\nbare\r\n")).answers
        assert answer is not None and answer[0] is Status.PERMFAIL
    assert not server.got.endswith(b".\r\n")


def test_a_server_that_is_silent() -> None:
    """The timeout of the socket bounds the wait."""
    ours, theirs = socket.socketpair()
    ours.settimeout(0.01)
    with theirs, pytest.raises(DialogueError) as refused:
        Dialogue(ours, ClientOptions("me.test")).open()
    ours.close()
    assert refused.value.temporary
