"""Lookup's desk between recorders, for the tests of tests/lookup."""

from typing import Literal, NoReturn

from support.dns_server import DnsServer, run_until

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.routes import ROUTES
from smtpd_ps.contract.settings import (
    ActionSettings,
    ConditionSettings,
    LookupSettings,
    RuleSettings,
    TableSettings,
)  # fmt: skip
from smtpd_ps.contract.values import Dsn, Process
from smtpd_ps.lookup.checking import Checking
from smtpd_ps.lookup.desk import Desk
from smtpd_ps.lookup.files import Files, read_files
from smtpd_ps.lookup.password_hash import PasswordHashes
from smtpd_ps.osdep import crypt_r
from smtpd_ps.pure.hosts_file import NO_HOSTS
from smtpd_ps.pure.table import Table
from smtpd_ps.runtime.loop import Loop

# "secret", 1000 rounds
HASH = "$6$rounds=1000$abcdefgh$nhYjN017qxiYztzyUpZtPnUQcnLy62KsunSLHNeLahp2EHPlAKmFFlrjEwSXGo2kgY5hR2.peKEg2VGUqIJJu1"


def condition(kind: str, table: str = "") -> ConditionSettings:
    return ConditionSettings(kind.lstrip("!"), kind.startswith("!"), table)  # type: ignore[arg-type]


SETTINGS = LookupSettings(
    "mx.example.com",
    (
        RuleSettings((condition("from-any"), condition("for-domain", "ours")), "receive", 1),
        RuleSettings((condition("from-any"), condition("for-any"), condition("mail-from", "vip")), "vip", 2),
        RuleSettings((condition("from-auth"), condition("for-any")), "send", 3),
        RuleSettings((condition("from-local"), condition("for-any")), "outbound", 4),
    ),
    (
        ActionSettings("receive", "lmtp", virtual_table="virtuals", lmtp_destination="/run/lmtp"),
        ActionSettings("vip", "relay"),
        ActionSettings("send", "relay"),
        ActionSettings("outbound", "relay"),
    ),
    (
        TableSettings("ours", "inline", "list", (("example.com", ""),)),
        TableSettings("vip", "inline", "list", (("boss@vip.org", ""),)),
        TableSettings(
            "virtuals", "inline", "map",
            (("john.doe@example.com", "cyrus"), ("new@example.com", "newcomer"), ("list@example.com", "cyrus, a@b.org"),
             ("pipe@example.com", "|x")),
        ),
        TableSettings("submitters", "inline", "map", (("alice", HASH), ("empty", "-"), ("bad", "$6$abc$def"))),
    ),
    ("127.0.0.1", "192.0.2.9"),
    ("localhost", "mx.example.com"),
)  # fmt: skip


class Box:
    """Stands for a channel, and checks that the contract allows what is sent."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.messages: list[m.Message] = []

    def send(self, message: m.Message, *fds: int) -> None:
        assert not fds
        assert any(
            route.message is type(message) and (Process.LOOKUP, self.process) in route.hops for route in ROUTES
        )  # fmt: skip
        self.messages.append(message)

    def take(self) -> m.Message:
        (message,) = self.messages
        self.messages.clear()
        return message


class Violated(Exception):
    """The process would end."""


class World:
    def __init__(
        self,
        loop: Loop,
        server: DnsServer,
        settings: LookupSettings = SETTINGS,
        tables: dict[str, Table] | None = None,
    ) -> None:
        self.loop, self.server = loop, server
        self.warnings: list[str] = []
        tables = read_files(settings, ()).tables if tables is None else tables
        hashes = PasswordHashes(crypt_r.load())
        self.checking = Checking(loop, hashes)
        self.checking.start()
        files = Files(tables, server.settings, NO_HOSTS)
        self.desk = Desk(loop, settings, files, hashes, self.checking, self.warnings.append, self._fail)
        self.boxes = {p: Box(p) for p in (Process.SMTP, Process.QUEUE, Process.DELIVERY, Process.PARENT)}
        for process, box in self.boxes.items():
            self.desk.attach(process, box)
        self.smtp, self.queue, self.delivery, self.parent = self.boxes.values()

    def _fail(self, text: str) -> NoReturn:
        raise Violated(text)

    def give(self, process: Process, message: m.Message) -> None:
        self.desk.handlers(process)[type(message)](message)

    def connect(self, session: int = 1, address: str = "127.0.0.1", tag: str = "") -> None:
        self.give(Process.SMTP, m.PeerQuery(session, 0, address, tag))

    def rcpt(self, recipient: str, sender: str = "s@far.org", session: int = 1, number: int = 1) -> None:
        dsn = Dsn(4, "rfc822;x", "FULL", "e")
        self.give(Process.SMTP, m.RcptRequest(session, 2, number, "helo.far.org", False, sender, recipient, dsn))

    def user(self, found: bool, temporary: bool = False) -> str:
        query = self.parent.take()
        assert isinstance(query, m.ForwardOpen)
        verdict: Literal["unsure", "none", "absent"] = "unsure" if temporary else "none" if found else "absent"
        self.give(Process.PARENT, m.ForwardNone(query.query, verdict))
        return query.user

    def auth(self, user: str, password: str, table: str = "submitters", session: int = 1) -> str:
        self.give(Process.SMTP, m.AuthRequest(session, table, user, password))
        run_until(self.loop, lambda: bool(self.smtp.messages or self.parent.messages))
        if self.parent.messages:
            return "asked"
        reply = self.smtp.take()
        assert isinstance(reply, m.AuthReply)
        assert reply.session == session
        return reply.verdict


def refused(message: m.Message) -> tuple[int, str]:
    assert isinstance(message, m.RcptRefuse)
    return message.code, message.text
