"""The dialogue scripts of tests/dialogs, played to real daemons: as they are, after STARTTLS and under implicit TLS.

What only the processes of the daemon see of each other (`sent`, `unsent`, `count`, `dsn`, `finished`) is left to
tests/pure/test_smtp_dialogs.py; replies, log lines and the messages that arrive at a sink are looked at here.
"""

import contextlib
import ipaddress
import re
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Iterator

import pytest
from dialogue_stage import HOST, WAYS, Needs, Stage, cannot_play, needs_of, stages
from support.daemon import wait_until
from support.dialogue_cases import Case, load_cases, plays_under_tls, unescape
from support.dns_zone import zone
from support.hostile import insecure_context

pytestmark = pytest.mark.timeout(60)

CASES = load_cases()
PLAYS = [
    (case, way)
    for way in WAYS
    for case in CASES
    if not cannot_play(case) and (way == "as written" or plays_under_tls(case))
]
_INSIDE = {"sent", "unsent", "count", "dsn", "finished", "unfinished", "set", "connect", "filter", "wait"}
_CONTEXT = insecure_context()
_DATE = r"Date: \w{3}, [ 0-9]\d? \w{3} \d{4} \d\d:\d\d:\d\d [-+]\d{4} \(\w+\)\r\n"
_ID = rf"Message-ID: <[0-9a-f]{{16}}@{re.escape(HOST)}>\r\n"
_FAKE_DATE, _FAKE_ID = "Date: Thu, 1 Jan 1970 00:00:00 +0000 (UTC)\r\n", f"Message-ID: <000000000000feed@{HOST}>\r\n"


class Player:
    """One case, in one way, on its stage."""

    def __init__(self, case: Case, way: str, stage: Stage) -> None:
        self.case, self.way, self.stage = case, way, stage
        self.needs = needs_of(case, way)
        self.host = socket.gethostname() if self.needs.local else HOST
        self.msgids: list[str] = []  # as the daemon gave them
        self.looked_at = 0  # stored messages whose body was
        self.got = b""
        self.unread: list[str] = []  # lines that came before the case began
        self.ended = False
        self.log_at = stage.daemon.log_path.stat().st_size
        client = [line.partition(" ")[2] for _number, line in case.lines if line.startswith("connect ")]
        self.sock = stage.connect(self.needs, client[0] if client else "192.0.2.1")

    def play(self) -> None:
        """The case from its first line to its last, and silence after it."""
        with contextlib.closing(self):
            if self.way == "implicit TLS":
                self.secure()
            elif self.way == "STARTTLS":
                greeting = self.line()
                self.sock.sendall(b"EHLO before\r\nSTARTTLS\r\n")
                while self.line()[3:4] == "-":
                    pass
                assert self.line().startswith("220 ")
                self.secure()
                self.unread.append(greeting)
            for at, (number, line) in enumerate(self.case.lines):
                following = self.case.lines[at + 1][1] if at + 1 < len(self.case.lines) else ""
                try:
                    self.step(line, following)
                except AssertionError as error:
                    raise AssertionError(f"{self.case.file}.txt:{number}: {line}\n{error}") from None
            if not self.ended:
                socket.socket.shutdown(self.sock, socket.SHUT_WR)
                assert self.rest() == b"", "more was said"

    def close(self) -> None:
        self.sock.close()

    def secure(self) -> None:
        """The client's side of a handshake."""
        assert not self.got, self.got
        self.sock = _CONTEXT.wrap_socket(self.sock, server_hostname=HOST)

    def step(self, line: str, following: str) -> None:
        head, _, rest = line.partition(" ")
        match head:
            case "c":
                how, _, text = rest.partition(" ")
                if how != "silent" or following != "wait":
                    self.client(how, text)
            case "tls":
                self.secure()
            case "log":
                self.logged(rest)
            case "body":
                self.body(unescape(rest).decode("latin-1"))
            case "received":
                assert re.search(rest, self.as_written(self.stored()).decode()), self.stored()
            case _:
                assert head in _INSIDE, head

    def client(self, how: str, text: str) -> None:
        match how:
            case "->":
                self.send(text.encode() + b"\r\n")
            case "=>":
                self.send(unescape(text))
            case "<-":
                assert self.line() == text.replace(HOST, self.host)
            case "<~":
                line = self.line()
                assert re.match(text, line.replace(self.host, HOST)), line
            case "<...":
                line = self.line()
                while line[3:4] == "-":
                    line = self.line()
                assert re.match(text, line), line
            case "silent":
                assert not self.unread
                assert self.available() == b""
            case "closed":
                assert self.rest() == b""
                self.ended = True
            case "gone":
                if text:
                    self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.sock.close()
                self.ended = True
            case _:
                raise ValueError(how)

    def send(self, data: bytes) -> None:
        with contextlib.suppress(ConnectionError):  # a server that has had enough may have closed already
            self.sock.sendall(data)

    def receive(self) -> bytes:
        try:
            return self.sock.recv(65536)
        except ConnectionError:
            return b""

    def line(self) -> str:
        """The server's next line, with message ids as the script has them."""
        if self.unread:
            return self.unread.pop(0)
        while b"\r\n" not in self.got:
            data = self.receive()
            assert data, f"the server closed after {self.got!r}"
            self.got += data
        raw, _, self.got = self.got.partition(b"\r\n")
        line = raw.decode("ascii")
        if found := re.match(r"250 2\.0\.0 ([0-9a-f]{8}) Message", line):
            self.msgids.append(found[1])
        return self.as_written(line.encode()).decode()

    def as_written(self, data: bytes) -> bytes:
        """The ids that the daemon gave, in the order of their messages as 00000001, 00000002 ..."""
        for at, msgid in enumerate(self.msgids, 1):
            data = data.replace(msgid.encode(), b"%08x" % at)
        return data

    def available(self) -> bytes:
        """What has come already."""
        self.sock.setblocking(False)
        try:
            with contextlib.suppress(BlockingIOError, ssl.SSLWantReadError):
                self.got += self.receive()
        finally:
            self.sock.settimeout(20)
        return self.got

    def rest(self) -> bytes:
        """All that comes until the server closes."""
        while data := self.receive():
            self.got += data
        return self.got

    def stored(self) -> bytes:
        """The first stored message whose body was not looked at."""
        assert len(self.msgids) > self.looked_at, "nothing was stored"
        msgid = self.msgids[self.looked_at]
        wait_until(f"{msgid} arrives", lambda: self.stage.stored(msgid) is not None)
        return self.stage.stored(msgid) or b""

    def body(self, wanted: str) -> None:
        """The listeners are on loopback and make submissions of all: what that adds counts where the script has it."""
        data = self.stored().decode("latin-1")
        self.looked_at += 1
        top = re.match(r"Received: [^\r\n]*\r\n(?:\t[^\r\n]*\r\n)*", data)
        assert top, data
        body = data[top.end() :]
        for pattern, fake in ((_DATE, _FAKE_DATE), (_ID, _FAKE_ID)):
            body = re.sub(pattern, fake if fake in wanted else "", body, count=1)
        assert body == wanted

    def logged(self, pattern: str) -> None:
        """Some line since the session began."""
        pattern = pattern.replace("0000000000001234", "[0-9a-f]{16}")
        pattern = re.sub(r"size=\d+", r"size=\\d+", pattern)  # a submission has a longer header

        def found() -> bool:
            with self.stage.daemon.log_path.open("rb") as file:
                file.seek(self.log_at)
                lines = self.as_written(file.read()).decode("utf-8", "replace").splitlines()
            return any(re.search(pattern, line) for line in lines)

        wait_until(f"the log has {pattern}", found, 10)


@pytest.fixture(scope="module")
def stage_of() -> Iterator[dict[Needs, Stage]]:
    """The daemons, and a name server that knows the clients."""
    client = "2001:db8::1"
    with zone(A_client_example=["192.0.2.1"], AAAA_client_example=[client]) as names:
        for address in ("192.0.2.1", client):
            name = ipaddress.ip_address(address).reverse_pointer
            names.zone[name, "PTR"] = ["client.example."]
        with stages((needs_of(case, way) for case, way in PLAYS), f"127.0.0.1:{names.port}") as found:
            yield found


@pytest.mark.parametrize("case,way", PLAYS, ids=[f"{way} - {case.name}" for case, way in PLAYS])
def test_dialogue(stage_of: dict[Needs, Stage], case: Case, way: str) -> None:
    """The daemon says what the script says."""
    Player(case, way, stage_of[needs_of(case, way)]).play()


def test_most_dialogues_can_be_played() -> None:
    """Of each way; why the others are left to the core alone is printed."""
    reasons = Counter(cannot_play(case) for case in CASES)
    for reason, count in reasons.most_common():
        print(f"{count:4} {reason or 'are played'}")
    ways = Counter(way for _case, way in PLAYS)
    print(
        ways, f"of {len(CASES)}; {sum(not plays_under_tls(case) for case in CASES)} are about clear text, TLS or AUTH"
    )
    assert min(ways.values()) >= 150
    assert reasons[""] >= 240
