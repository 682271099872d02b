"""Runs dialogue scripts (tests/dialogs/*.txt) against the SMTP server's core, with a fake lookup and queue.

A file holds cases, each begun by `=== title`. Lines of a case:

    set key=value ...       before anything else: fields of ListenerSettings or SmtpSettings
    connect ADDRESS         the client's address (192.0.2.1 if this line is missing)
    c -> LINE               the client sends LINE and CRLF
    c => BYTES              the client sends exactly this; \\r \\n \\0 \\t \\xNN \\\\ are escapes, `...*N` repeats
    c <- LINE               the server's next line is exactly LINE
    c <~ REGEX              the server's next line begins with a match of REGEX
    c <... REGEX            the server's next lines, up to one with a blank behind its code, the last matching
    c silent                the server has said nothing more
    c closed                the server has closed, and said nothing more
    c gone                  the client drops the connection
    tls                     the TLS handshake that was asked for succeeds
    hold KIND ...           answers of this kind wait: peer, name, sender, auth, rcpt, file, commit
    release KIND            let the oldest held answer go
    idle | drain | cut | wait    the event of that name
    sent TYPE FIELD=VALUE ...   a message of that type with these values was sent, and is now looked at
    dsn FIELD=VALUE ...     the first RcptRequest not yet looked at has these in its Dsn, and is now looked at
    count TYPE N            N messages of that type were sent and not yet looked at
    unsent TYPE             no message of that type is left
    filter PHASE DECISION TEXT...   what the filters answer in a phase; `proceed` in all others. Which phases are
                            asked about is the listener's `filter_phases`: a number, or `set filters=connect,data`
    log REGEX               some line of the log matches
    received REGEX          some part of the Received header of the body stored first matches
    body TEXT               the stored body, without its Received header, is TEXT (escapes as above)
    finished | unfinished   the session may be forgotten, or not

Recipients: local part `bad` is refused by lookup with 550, `later` with 451, `full` by queue with 452; all others
are taken. Sender `own` is allowed by a listener's `senders`, `broken` makes lookup fail, all others are not.
A listener with `hostnames` is named.example, but not to the client 192.0.2.2. Password `secret` is
right, `broken` makes lookup fail, all others are wrong.
"""

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from support.dialogue_cases import Case, unescape

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import FILTER_PHASES, ListenerSettings, SmtpSettings
from smtpd_ps.pure.smtp_service import Action, Close, Rest, Service, StartTls, Wait, WriteBody
from smtpd_ps.pure.smtp_session import ServerSession

SESSION = 0x1234
HOST = "mx.example.com"


def make_service(ids: list[int] | None = None, **changes: Any) -> Service:
    """A service whose listener and settings have the fields in `changes`."""
    listener = ListenerSettings(index=0, address="192.0.2.9", port=25, tls="offer", pki=("p",))
    settings = SmtpSettings(hostname=HOST, listeners=(listener,), pki=())
    for key, value in changes.items():
        if key == "stopped":
            continue
        if hasattr(listener, key):
            listener = msgspec.structs.replace(listener, **{key: value})
        else:
            settings = msgspec.structs.replace(settings, **{key: value})
    stopped = bool(changes.get("stopped"))
    lease = list(range(1, 1000)) if ids is None else ids
    return Service(
        settings=settings,
        listener=listener,
        take_id=lambda: lease.pop(0) if lease else None,
        give_back_id=lambda msgid: lease.insert(0, msgid),
        random=lambda: 0.5,
        passwords_stopped=lambda _address: stopped,
        random_bits=lambda: 0xFEED,
        date=lambda: "Thu, 1 Jan 1970 00:00:00 +0000 (UTC)",
    )


@dataclass
class FakeWorld:
    """Client, lookup and queue around one session."""

    service: Service
    address: str = "192.0.2.1"
    session: ServerSession = field(init=False)
    received: bytes = b""  # what the client got
    sent: list[m.Message] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    hold: set[str] = field(default_factory=set)
    held: dict[str, deque[Callable[[], list[Action]]]] = field(default_factory=dict)
    file: bytes = b""
    stored: list[bytes] = field(default_factory=list)
    closed: bool = False
    tls_wanted: bool = False
    waiting: int = 0
    due: deque[str] = field(default_factory=deque)  # kinds of answers that are on their way
    busy: bool = False
    filters: dict[str, tuple[str, str]] = field(default_factory=dict)  # answers by phase

    def __post_init__(self) -> None:
        self.session = ServerSession(self.service, SESSION, self.address)

    def start(self) -> None:
        self.do(self.session.begin())

    def say(self, data: bytes) -> None:
        self.do(self.session.receive(data))

    def do(self, actions: list[Action]) -> None:
        """Carry the actions out; answers come afterwards, as from another process."""
        self._carry_out(actions)
        if not self.busy:
            self.busy = True
            while self.due:
                self.release(self.due.popleft())
            self.busy = False

    def _carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case bytes():
                    assert not self.closed, f"sent after Close: {action!r}"
                    assert action.endswith(b"\r\n")
                    assert action.isascii()
                    self.received += action
                case str():
                    self.log.append(action)
                case StartTls():
                    self.tls_wanted = True
                case WriteBody():
                    self.file += action.data
                case Wait():
                    assert 0 <= action.secs <= 1
                    self.waiting += 1
                case Rest():
                    self._later("rest", self.session.go_on)
                case Close():
                    self.closed = True
                case _:
                    self.sent.append(action)
                    self._answer(action)

    def _answer(self, message: m.Message) -> None:
        session = self.session
        match message:
            case m.SenderQuery():
                local = message.sender.partition("@")[0]
                verdict = {"own": "ok", "broken": "error"}.get(local, "no")
                number = message.transaction
                self._later("sender", lambda: session.sender_reply(number, verdict))
            case m.PeerQuery():
                if self.service.listener.hostnames:
                    self._later("name", lambda: session.greeted("" if self.address == "192.0.2.2" else "named.example"))
                self._later("peer", lambda: session.peer_info("client.example"))
            case m.FilterRequest():
                said = self.filters.get(message.phase, ("proceed", ""))
                self._later("filter", lambda: session.filter_answer(message.number, *said))
            case m.AuthRequest():
                verdict = {"secret": "ok", "broken": "error"}.get(message.password, "no")
                self._later("auth", lambda: session.auth_reply(verdict))
            case m.RcptRequest():
                code, text, envelopes = {
                    "bad": (550, "Invalid recipient", None),
                    "later": (451, "Temporary failure", None),
                    "full": (452, "4.3.1 Mail system full", (0, 0)),
                }.get(
                    message.recipient.partition("@")[0],
                    (250, "", (0xFFFFFFFF, 2) if message.recipient.startswith("two@") else (7, 1)),
                )
                answer = (message.transaction, message.number, code, text, envelopes)
                self._later("rcpt", lambda: session.rcpt_answer(*answer))
            case m.BodyOpen():
                self._later("file", session.file_opened)
            case m.Commit():
                self.stored.append(message.body)
                self._later("commit", lambda: session.committed(message.transaction, 250, ""))
            case m.CommitFile():
                assert message.size_bytes == len(self.file)
                self.stored.append(self.file)
                self.file = b""
                self._later("commit", lambda: session.committed(message.transaction, 250, ""))
            case m.Abort():
                self.file = b""

    def _later(self, kind: str, answer: Callable[[], list[Action]]) -> None:
        self.held.setdefault(kind, deque()).append(answer)
        if kind not in self.hold:
            self.due.append(kind)

    def release(self, kind: str) -> None:
        self.do(self.held[kind].popleft()())

    def lines(self) -> list[str]:
        """Take what the client got."""
        data, self.received = self.received, b""
        return data.decode("ascii").split("\r\n")[:-1]


def _value(text: str) -> Any:
    if text.isdigit():
        return int(text)
    return {"true": True, "false": False}.get(text, text.replace("''", ""))


class Runner:
    """Runs one case."""

    def __init__(self, case: Case, segmented: bool = False, secured: str = "") -> None:
        self.case = case
        self.secured = secured  # "implicit" or "offer": all of it under TLS
        self.segmented = segmented  # each byte in a segment of its own
        self.changes: dict[str, Any] = {}
        self.ids: list[int] | None = None
        self.address = "192.0.2.1"
        self.hold: set[str] = set()
        self.filters: dict[str, tuple[str, str]] = {}
        self.got: list[str] = []
        self._world: FakeWorld | None = None

    @property
    def world(self) -> FakeWorld:
        if self._world is None:
            if self.secured:
                self.changes["tls"] = self.secured
            self._world = FakeWorld(
                make_service(self.ids, **self.changes), self.address, hold=self.hold, filters=self.filters
            )
            self._world.start()
            if self.secured:
                self._secure(self._world)
        return self._world

    def _secure(self, world: FakeWorld) -> None:
        """What comes before the first line of a case that is played under TLS."""
        if self.secured == "offer":
            self.got += world.lines()
            world.say(b"EHLO before\r\nSTARTTLS\r\n")
            world.lines()
        world.do(world.session.tls_started("TLSv1.3:TLS_AES_256_GCM_SHA384:256", False))

    def run(self) -> None:
        for number, line in self.case.lines:
            try:
                self._step(line)
            except AssertionError as error:
                world = self._world
                state = world.session.state if world else None
                raise AssertionError(
                    f"{self.case.file}.txt:{number}: {line}\n{error}\nunread: {self.got}, state {state}"
                ) from None

    def _step(self, line: str) -> None:
        head, _, rest = line.partition(" ")
        if head == "c":
            how, _, text = rest.partition(" ")
            self._client(how, text)
        else:
            getattr(self, f"_on_{head}")(rest)
        if self._world is not None:
            self.got += self._world.lines()

    def _client(self, how: str, text: str) -> None:
        match how:
            case "->":
                self._send(text.encode() + b"\r\n")
            case "=>":
                self._send(unescape(text))
            case "<-":
                assert self._next() == text
            case "<~":
                line = self._next()
                assert re.match(text, line), line
            case "<...":
                line = self._next()
                while line[3:4] == "-":
                    line = self._next()
                assert re.match(text, line), line
            case "silent":
                self.got += self.world.lines()
                assert not self.got
            case "closed":
                self.got += self.world.lines()
                assert not self.got
                assert self.world.closed, "not closed"
            case "gone":
                self.world.do(self.world.session.disconnected(text))
            case _:
                raise ValueError(how)

    def _send(self, data: bytes) -> None:
        if not self.segmented:
            self.world.say(data)
            return
        for at in range(len(data)):
            if not self.world.closed:
                self.world.say(data[at : at + 1])

    def _next(self) -> str:
        self.got += self.world.lines()
        assert self.got, "the server said nothing"
        return self.got.pop(0)

    def _on_set(self, rest: str) -> None:
        for pair in rest.split():
            key, _, value = pair.partition("=")
            if key == "ids":
                self.ids = list(range(1, int(value) + 1))
            elif key == "filters":
                self.changes["filter_phases"] = sum(1 << FILTER_PHASES.index(each) for each in value.split(","))
            else:
                self.changes[key] = _value(value)

    def _on_connect(self, rest: str) -> None:
        self.address = rest

    def _on_hold(self, rest: str) -> None:
        self.hold.update(rest.split())

    def _on_filter(self, rest: str) -> None:
        phase, decision, *text = rest.split(" ", 2)
        assert phase in FILTER_PHASES
        self.filters[phase] = decision, "".join(text)

    def _on_release(self, rest: str) -> None:
        self.world.release(rest)

    def _on_tls(self, _rest: str) -> None:
        assert self.world.tls_wanted, "no handshake was asked for"
        self.world.tls_wanted = False
        self.world.do(self.world.session.tls_started("TLSv1.3:TLS_AES_256_GCM_SHA384:256", False))

    def _on_idle(self, _rest: str) -> None:
        self.world.do(self.world.session.idle())

    def _on_drain(self, _rest: str) -> None:
        self.world.do(self.world.session.drain())

    def _on_cut(self, _rest: str) -> None:
        self.world.do(self.world.session.cut())

    def _on_wait(self, _rest: str) -> None:
        assert self.world.waiting, "nothing waits"
        self.world.waiting -= 1
        self.world.do(self.world.session.wait_over())

    def _on_sent(self, rest: str) -> None:
        name, *pairs = rest.split()
        wanted = {key: _value(value) for key, _, value in (pair.partition("=") for pair in pairs)}
        for message in self.world.sent:
            if type(message).__name__ == name and all(getattr(message, key) == wanted[key] for key in wanted):
                self.world.sent.remove(message)
                return
        raise AssertionError(f"not among {self.world.sent}")

    def _on_dsn(self, rest: str) -> None:
        wanted = {key: _value(value) for key, _, value in (pair.partition("=") for pair in rest.split())}
        message = next(one for one in self.world.sent if isinstance(one, m.RcptRequest))
        assert {key: getattr(message.dsn, key) for key in wanted} == wanted
        self.world.sent.remove(message)

    def _on_count(self, rest: str) -> None:
        name, count = rest.split()
        assert sum(type(one).__name__ == name for one in self.world.sent) == int(count)

    def _on_unsent(self, rest: str) -> None:
        assert not [one for one in self.world.sent if type(one).__name__ == rest], self.world.sent

    def _on_log(self, rest: str) -> None:
        assert any(re.search(rest, line) for line in self.world.log), "\n".join(self.world.log)

    def _on_body(self, rest: str) -> None:
        assert self.world.stored, "nothing was stored"
        body = self.world.stored.pop(0)
        top = re.match(rb"Received: [^\r\n]*\r\n(?:\t[^\r\n]*\r\n)*", body)
        assert top, body
        assert body[top.end() :] == unescape(rest)

    def _on_received(self, rest: str) -> None:
        assert self.world.stored, "nothing was stored"
        header = self.world.stored[0].decode()
        assert re.search(rest, header), header

    def _on_finished(self, _rest: str) -> None:
        assert self.world.session.finished

    def _on_unfinished(self, _rest: str) -> None:
        assert not self.world.session.finished
