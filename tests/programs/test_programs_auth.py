"""filter-auth as a program: it asks a real resolver, serves others meanwhile, refuses what policies want refused."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import pytest
from support.auth_corpus import ZONE, Signature, sign
from support.name_server import NameServer

from smtpd_ps.filterkit.answers import Reject
from smtpd_ps.filterkit.data_stream import Message
from smtpd_ps.filterkit.events import Commit
from smtpd_ps.filterkit.session import Session
from smtpd_ps.programs.filter_auth import AuthFilter, UsageError, made


@pytest.fixture
def names() -> Iterator[NameServer]:
    server = NameServer(ZONE)
    yield server
    server.stop()


class Program:
    """filter-auth after its handshake."""

    def __init__(self, *words: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-m", "smtpd_ps.programs.filter_auth", *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.say("config|protocol|0.7", "config|subsystem|smtp-in", "config|admd|here.example", "config|ready")
        while self.line() != "register|ready":
            pass

    def say(self, *lines: str) -> None:
        assert self._process.stdin
        self._process.stdin.write("".join(line + "\n" for line in lines).encode())
        self._process.stdin.flush()

    def line(self) -> str:
        assert self._process.stdout
        read = self._process.stdout.readline().decode()
        assert read, "it has ended"
        return read.rstrip("\n")

    def connect(self, session: str, source: str = "192.0.2.1:9", sender: str = "anna@example.org") -> None:
        head = "report|0.7|1.0|smtp-in|"
        self.say(f"{head}link-connect|{session}|x|pass|{source}|127.0.0.1:25",
                 f"{head}link-identify|{session}|EHLO|mail.example.org",
                 f"{head}tx-begin|{session}|01", f"{head}tx-mail|{session}|01|ok|{sender}")  # fmt: skip

    def message(self, session: str, message: bytes) -> None:
        lines = [*message.decode().split("\r\n")[:-1], "."]
        self.say(*(f"filter|0.7|1.0|smtp-in|data-line|{session}|t|{line}" for line in lines))

    def read_message(self) -> tuple[str, list[str]]:
        """Whose, and its lines."""
        lines: list[str] = []
        while True:
            _word, session, _token, text = self.line().split("|", 3)
            if text == ".":
                return session, lines
            lines.append(text)

    def end(self) -> str:
        _out, errors = self._process.communicate(timeout=60)
        assert self._process.returncode == 0
        return errors.decode()


PLAIN = b"From: anna@example.org\r\nSubject: x\r\n\r\nbody\r\n"


def test_results_and_refusals(names: NameServer) -> None:
    """With the id of the server's admd; forged results are gone; a policy of reject refuses at the commit."""
    program = Program("-r", "--resolver", names.address)
    program.connect("a1")
    forged = b"Authentication-Results: here.example; dmarc=pass\r\n"
    program.message("a1", sign(PLAIN, Signature()) + forged + PLAIN)
    _session, lines = program.read_message()
    assert lines[:2] == ["Authentication-Results: here.example;", "\tspf=pass smtp.mailfrom=example.org;"]
    assert lines[2].startswith("\tdkim=pass header.d=example.org header.s=s header.a=rsa-sha256 header.b=")
    assert lines[3] == "\tdmarc=pass (p=reject) header.from=example.org" and lines[4].startswith("DKIM-Signature:")
    assert lines.count("From: anna@example.org") == 1 and not any(line[-10:] == "dmarc=pass" for line in lines)
    program.say("filter|0.7|1.0|smtp-in|commit|a1|t|")
    assert program.line() == "filter-result|a1|t|proceed"
    program.connect("a2", "203.0.113.9:9")
    program.message("a2", PLAIN)
    _session, lines = program.read_message()
    assert lines[1:4] == [
        "\tspf=fail smtp.mailfrom=example.org;", "\tdkim=none;", "\tdmarc=fail (p=reject) header.from=example.org",
    ]  # fmt: skip
    program.say("filter|0.7|1.0|smtp-in|commit|a2|t|")
    assert program.line() == "filter-result|a2|t|reject|550 5.7.26 Refused by the DMARC policy of example.org"
    errors = program.end().splitlines()
    assert errors[0] == "session a1: removed 1 Authentication-Results that were not ours"
    assert errors[1] == "session a2: refused by the policy of example.org"


def test_a_slow_name_server_keeps_nobody_else_waiting(names: NameServer) -> None:
    """The message that waits comes when its answer has come."""
    names.held = "slow.example"
    program = Program("--resolver", names.address)
    program.connect("a1", sender="x@slow.example")
    program.message("a1", PLAIN)
    program.connect("a2")
    program.message("a2", PLAIN)
    assert program.read_message()[0] == "a2"
    names.go.set()
    session, lines = program.read_message()
    assert (session, lines[1]) == ("a1", "\tspf=none smtp.mailfrom=slow.example;")
    program.end()


class Silent:
    """Nobody may be asked."""


def auth(**more: object) -> AuthFilter:
    return AuthFilter(Silent(), lambda domain: domain, "here.example", **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("source, user, expected", [
    ("unix:/run/x", "", b"none"), ("192.0.2.1:5", "an na", b'auth=pass smtp.auth="an na"'),
])  # fmt: skip
def test_our_own_users_are_not_verified(source: str, user: str, expected: bytes) -> None:
    """Forged results of theirs are removed all the same."""
    session, message = Session("a1", "smtp-in"), Message()
    session.source, session.user = source, user
    message.data += b"Authentication-Results: here.example; spf=pass\r\n" + PLAIN
    whole = b"".join(asyncio.run(auth().filter_message(session, message)))
    assert whole == b"Authentication-Results: here.example;\r\n\t" + expected + b"\r\n" + PLAIN


def test_what_is_too_large_is_refused() -> None:
    """It went by unread, perhaps with forged results."""
    session = Session("a1", "smtp-in")
    session.too_large = True
    answer = auth().filter_commit(session, Commit(1.0, "smtp-in", "a1", "t"))
    assert isinstance(answer, Reject) and answer.reply.startswith("552 ")


@pytest.mark.parametrize("words, text", [
    (["-i", "a b"], "no authserv-id"), (["--resolver", "x"], "does not appear"), (["what"], "unexpected"),
    (["--resolver", "127.0.0.1:x"], "invalid literal"), (["-s", "/none"], "No such file"), (["-q"], "not recognized"),
])  # fmt: skip
def test_arguments_that_are_none(words: list[str], text: str) -> None:
    """Each says what is wrong."""
    with pytest.raises(UsageError, match=text):
        made(words)
