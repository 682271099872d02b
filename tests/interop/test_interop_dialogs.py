"""The dialogues of tests/dialogs, played to Debian's OpenSMTPD 6.8 and to our session: the same codes.

What a case sets becomes a smtpd.conf, and the cases of one configuration share one server. It takes no
pipelining, so each command waits for the reply to the one before. What differs is listed, with its kind,
in decisions/dialog_differences.py, and each kind stands in DIFFERENCES.md.
"""

import functools
import re
import select
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from decisions.dialog_differences import DIFFERENT, KINDS
from support.certs import make_key, write_acme
from support.daemon import free_port
from support.dialogue_cases import Case, load_cases
from support.opensmtpd import opensmtpd

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pure"))
from smtp_dialogue import Runner

ANSWER_SECS = 5.0  # for a reply that must come
SILENCE_SECS = 0.4  # for one that only we send
CLOSED = "closed"
SILENCE = "silence"

# What cannot be played to a real server, or not to this one, and why.
_UNPLAYED = (
    (r"^(tls|set .*tls=implicit)", "no TLS handshake succeeds with OpenSSL 3"),
    (r"^set .*(auth=|senders=)", "AUTH needs TLS, and no handshake succeeds with OpenSSL 3"),
    (r"^(idle|drain|cut|wait)", "a moment that a client cannot choose"),
    (r"^set .*(ids|stopped)=", "a state of other processes"),
    (r"^set .*(max_errors|max_temporary_errors|max_idle_commands)=", "a limit that OpenSMTPD does not have"),
    (r"^set .*local=true", "a listener that is no TCP socket"),
    (r"^set .*proxy=", "the header comes first, from whoever connects"),
    (r"(later|full)@", "an answer of lookup or queue that no configuration gives"),
    (r"^c .*(BDAT|bdat)", "OpenSMTPD has no CHUNKING"),
    (r"^c => STARTTLS", "what must come with the command, and not after its reply"),
    (r"^c .*SMTPUTF8|^c .*smtputf8", "OpenSMTPD has no SMTPUTF8"),
    (r"^set filters=.*(starttls|auth)", "the filter's phase is within TLS"),
    (r"^filter \S+ reject (?![45])", "an answer that only a program could give"),
)  # fmt: skip
_GLOBAL = {
    "max_mails": "smtp limit max-mails {}",
    "max_recipients": "smtp limit max-rcpt {}",
    "max_message_bytes": "smtp max-message-size {}",
}
_LISTENER = {
    "hostname": "hostname {}",
    "hostnames=true": "hostnames <names>",
    "dsn=false": "no-dsn",
    "mask_source=true": "mask-src",
    "received_auth=true": "received-auth",
    "tls=none": "",
    "tls=offer": "",
    "tls=require": "tls-require pki p",
}
_IGNORED = {"address", "port", "tag", "filters"}  # no code depends on them here


class Event(NamedTuple):
    """What a case does, in order: the client sends, a reply comes, or the connection is closed."""

    kind: str  # "send", "reply", "closed", "gone"
    text: str = ""
    data: bytes = b""


class Recorder(Runner):
    """Runs a case with our own session, and notes what happens."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.events: list[Event] = []

    def _send(self, data: bytes) -> None:
        self.events.append(Event("send", data=data))
        super()._send(data)

    def _next(self) -> str:
        line = super()._next()
        if line[3:4] != "-":
            self.events.append(Event("reply", code_of(line)))
        return line

    def _client(self, how: str, text: str) -> None:
        super()._client(how, text)
        if how in ("closed", "gone"):
            self.events.append(Event(how))


def code_of(line: str) -> str:
    """Code and, where there is one, enhanced code of a reply."""
    found = re.match(r"(\d{3})(?: ([245]\.\d+\.\d+))?", line)
    assert found, line
    return " ".join(part for part in found.groups() if part)


def unplayable(case: Case) -> str:
    """Why a case is not played to OpenSMTPD; "" where it is."""
    text = "\n".join(line for _number, line in case.lines)
    for pattern, reason in _UNPLAYED:
        if re.search(pattern, text, re.MULTILINE):
            return reason
    first = next((at for at, (_number, line) in enumerate(case.lines) if line.startswith("c ")), 0)
    if any(line.startswith("filter ") for _number, line in case.lines[first:]):
        return "a filter that changes its mind"
    return ""


class Setup(NamedTuple):
    """What a server must be told to play some cases."""

    options: tuple[str, ...]  # global statements
    listener: tuple[str, ...]  # options
    filters: tuple[str, ...]  # statements

    def text(self, port: int, plain_port: int, folder: Path) -> str:
        """Its smtpd.conf."""
        tls = "" if any("tls" in option for option in self.listener) else "tls pki p"
        options = " ".join(option for option in self.listener if option)
        names = [f"f{number}" for number in range(len(self.filters))]
        chain = [f"filter all chain {{ {', '.join(names)} }}"] if names else []
        return "\n".join(
            [
                f'pki p cert "{folder}/acme/live/fullchain.pem"',
                f'pki p key "{folder}/acme/live/privkey.pem"',
                *self.options,
                'table everyone { "127.0.0.0/8" }',
                'table names { "127.0.0.1" = "named.example" }',
                *(f"filter f{number} {words}" for number, words in enumerate(self.filters)),
                *chain,
                f"listen on 127.0.0.1 port {port} {tls} {options} {'filter all' if names else ''}",
                f"listen on 127.0.0.1 port {plain_port}",  # where it greets everybody
                'action keep relay host "smtp+notls://127.0.0.1:9"',
                'match from any rcpt-to regex "^bad@" for any reject',
                "match from any for any action keep",
                "",
            ]
        )


def setup_of(case: Case) -> Setup:
    """What a case sets, in smtpd.conf's words. An unknown field is an error of this test."""
    options: list[str] = []
    listener: dict[str, str] = {"hostname": "hostname mx.example.com"}
    filters: list[str] = []
    for _number, line in case.lines:
        word, _, rest = line.partition(" ")
        if word == "filter":
            phase, decision, *text = rest.split(" ", 2)
            words = "" if not text else ' "{}"'.format(text[0].replace("\t", " "))
            filters.append(f"phase {phase} match src <everyone> {decision}{words}")
        for pair in rest.split() if word == "set" else ():
            key, _, value = pair.partition("=")
            if key in _GLOBAL:
                options.append(_GLOBAL[key].format(value))
            elif pair in _LISTENER or key in _LISTENER:
                listener[key] = _LISTENER.get(pair, _LISTENER.get(key, "")).format(value)
            elif key not in _IGNORED:
                raise AssertionError(f"{case.name}: no words of smtpd.conf for {pair}")
    if "hostnames" in listener:
        del listener["hostname"]
    return Setup(tuple(sorted(options)), tuple(listener.values()), tuple(filters))


class Peer:
    """A client of OpenSMTPD's, that sends a command when the one before is answered."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), ANSWER_SECS)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.unsent = b""
        self._got = b""
        self._open = True
        self._in_data = False
        self.greeting = self._read(ANSWER_SECS)

    def reply(self) -> str:
        """The next reply, having sent the next command where none is outstanding."""
        if self.greeting:
            greeting, self.greeting = self.greeting, ""
            return greeting
        sent = bool(self.unsent)
        if sent:
            self._send_one()
        told = self._read(ANSWER_SECS if sent else SILENCE_SECS)
        self._in_data = told.startswith("354")
        return told

    def _send_one(self) -> None:
        end = b"\r\n.\r\n" if self._in_data else b"\r\n"
        at = 0 if self._in_data and self.unsent.startswith(b".\r\n") else self.unsent.find(end)
        size = 3 if self._in_data and not at else len(self.unsent) if at < 0 else at + len(end)
        part, self.unsent = self.unsent[:size], self.unsent[size:]
        try:
            self.sock.sendall(part)
        except ConnectionError:
            self._open = False

    def _read(self, patience_secs: float) -> str:
        while True:
            line, end, rest = self._got.partition(b"\n")
            if end:
                self._got = rest
                if line[3:4] != b"-":
                    return code_of(line.decode())
                continue
            if not self._open:
                return CLOSED
            if not select.select([self.sock], [], [], patience_secs)[0]:
                return SILENCE
            try:
                data = self.sock.recv(65536)
            except ConnectionError:
                data = b""
            self._open = bool(data)
            self._got += data

    def flush(self) -> None:
        """Send what no reply was waited for."""
        while self.unsent:
            self._send_one()


def play(case: Case, port: int) -> tuple[str, ...]:
    """The steps at which OpenSMTPD's replies differ from ours, as "ours | theirs"."""
    recorder = Recorder(case)
    recorder.run()
    peer = Peer(port)
    differences = []
    with peer.sock:
        for event in recorder.events:
            if event.kind == "send":
                peer.unsent += event.data
            elif event.kind == "reply":
                theirs = peer.reply()
                if theirs != event.text:
                    differences.append(f"{event.text} | {theirs}")
                if theirs == CLOSED:
                    break
            elif event.kind == "closed":
                peer.flush()
                theirs = peer._read(SILENCE_SECS)
                if theirs != CLOSED:
                    differences.append(f"closed | {'open' if theirs == SILENCE else theirs}")
                break
            else:
                break
    return tuple(differences)


CASES = load_cases()
PLAYED = [case for case in CASES if not unplayable(case)]


def play_all(setup: Setup, scratch: Path) -> dict[str, tuple[str, ...]]:
    """Each case of one configuration, against one server."""
    port, plain_port = free_port(), free_port()
    with opensmtpd(scratch / "theirs", setup.text(port, plain_port, scratch), plain_port):
        return {case.name: play(case, port) for case in PLAYED if setup_of(case) == setup}


@pytest.fixture(scope="module")
def outcomes() -> Iterator[Callable[[Setup], dict[str, tuple[str, ...]]]]:
    """What differed, by case; each configuration is started once."""
    scratch = Path("/var/tmp") / f"sps-dialogs-{free_port()}"
    scratch.mkdir(mode=0o755)
    try:
        write_acme(scratch / "acme", make_key("ecdsa"))
        for path in scratch.rglob("privkey*"):
            path.chmod(0o600)
        yield functools.cache(lambda setup: play_all(setup, scratch))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_same_codes(outcomes: Callable[[Setup], dict[str, tuple[str, ...]]], case: Case) -> None:
    """The same code at every step, or the difference that is explained."""
    if reason := unplayable(case):
        pytest.skip(reason)
    found = outcomes(setup_of(case))[case.name]
    kind, wanted = DIFFERENT.get(case.name, ("none", ()))
    assert found == wanted, KINDS.get(kind, "not explained")


def test_table() -> None:
    """Every listed case is played, every kind is used, and most cases are played at all."""
    assert set(DIFFERENT) <= {case.name for case in PLAYED}
    assert {kind for kind, _steps in DIFFERENT.values()} == set(KINDS)
    assert len(PLAYED) >= 150
