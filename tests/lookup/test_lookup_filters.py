"""Filters of sessions in lookup: who waits for what, and whom that holds up (nobody else)."""

from collections.abc import Iterator

import pytest
from support.dns_server import DnsServer, run_until
from support.programs import Far

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import FILTER_EVENTS, FILTER_PHASES, FilterSettings, LookupSettings
from smtpd_ps.lookup.dns_exchange import Servers
from smtpd_ps.lookup.filters import FilterDesk
from smtpd_ps.lookup.program_pipe import LinePipe
from smtpd_ps.lookup.programs import Programs
from smtpd_ps.lookup.resolver import Resolver
from smtpd_ps.lookup.sessions import Session
from smtpd_ps.lookup.table_asking import TableAsking
from smtpd_ps.pure.table import Table
from smtpd_ps.runtime.loop import Loop

FILTERS = (
    FilterSettings("listed", condition="dnsbl", table="zones", decision="reject", text="550 listed"),
    FilterSettings("named", (), "ehlo", "rdns", True, decision="reject", text="550 no name"),
    FilterSettings("fast", (), "ehlo", "src", table="nets", decision="junk"),
    FilterSettings("p", program="prog"),
    FilterSettings("lenient", program="prog", accept_on_failure=True),
    FilterSettings("both", ("p", "named")),
)
TABLES = {
    "zones": Table("zones", "list", {"bl.example": ""}),
    "nets": Table("nets", "list", {"192.0.2.0/24": ""}),
}
LISTENERS = ((0, "listed"), (1, "fast"), (2, "named"), (3, "p"), (4, "lenient"), (5, "both"))


class World:
    """The filters, a name server, and what smtp is told."""

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.dns = DnsServer(loop)
        self.sent: list[m.FilterAnswer | m.FilterData | m.FilterCredit] = []
        self.hooks: list[tuple[int, m.FilterHooks]] = []
        self.log: list[str] = []
        settings = LookupSettings(
            "mx.example", (), (), (), (), (), filters=FILTERS, listener_filters=LISTENERS, procs=("prog",)
        )
        self.desk = FilterDesk(
            loop, settings, TABLES, Resolver(loop, Servers(loop, self.dns.settings)),
            Programs(loop, self.log.append), TableAsking(), self.sent.append,
            lambda seat, hooks: self.hooks.append((seat, hooks)),
            self.log.append, self.log.append,
        )  # fmt: skip

    def open(self, number: int, listener: int, address: str = "192.0.2.7", told: bool = True, name: str = "") -> None:
        session = Session(address, "")
        session.name, session.name_told, session.name_asked = name, told, False
        self.desk.opened(number, listener, session)
        self.desk.named(number, False)

    def ask(self, number: int, phase: str, parameter: str = "x") -> None:
        self.desk.requested(m.FilterRequest(number, 1, phase, parameter, "", ""))  # type: ignore[arg-type]

    def answers(self) -> list[tuple[int, str, str]]:
        made = [(each.session, each.decision, each.text) for each in self.sent if isinstance(each, m.FilterAnswer)]
        self.sent.clear()
        return made

    def run_program(self) -> Far:
        """A run that registers for ehlo and tx-mail."""
        far = self.far = Far()
        program = self.desk.programs["prog"]
        program.opened(LinePipe(self.loop, *far.take(), program.line, program.gone))
        far.write(b"register|filter|smtp-in|ehlo\nregister|report|smtp-in|tx-mail\nregister|ready\n")
        for _ in range(4):
            self.loop.turn(0)
        far.read_lines()
        return far


@pytest.fixture
def world(loop: Loop) -> Iterator[World]:
    made = World(loop)
    yield made
    made.dns.close()


def test_a_dns_list_holds_up_nobody_else(world: World) -> None:
    """While one list is silent, other sessions are answered; a list that stays silent has nobody."""
    world.dns.zone["7.2.0.192.bl.example", "A"] = ["127.0.0.2"]
    world.dns.silent.add("8.2.0.192.bl.example")
    world.open(1, 0, "192.0.2.8")
    world.open(2, 0)
    world.open(3, 1)
    world.open(4, 0, "192.0.2.9")
    for number in (1, 2, 4):
        world.ask(number, "connect", "192.0.2.0")
    world.ask(3, "ehlo")
    assert world.answers() == [(3, "junk", "")]
    run_until(world.loop, lambda: len(world.sent) == 3)
    assert sorted(world.answers()) == [(1, "proceed", ""), (2, "reject", "550 listed"), (4, "proceed", "")]
    assert any("8.2.0.192.bl.example does not answer" in line for line in world.log)


def test_a_request_waits_for_the_name(world: World) -> None:
    """Until DNS has told it, or given up: then a refusal that depends on it is temporary."""
    for told, text in ((True, "550 no name"), (False, "451 4.4.3 Temporary failure, try again later")):
        session = Session("192.0.2.7", "")
        world.desk.opened(1, 2, session)
        world.ask(1, "ehlo")
        assert world.answers() == []
        session.name_told = told
        world.desk.named(1, False)
        assert world.answers() == [(1, "reject", text)]


def test_sessions_without_a_filter_and_those_that_are_over(world: World) -> None:
    """A question about one is refused, and a late one is not answered at all."""
    session = Session("192.0.2.7", "")
    world.desk.opened(1, 9, session)
    world.ask(1, "ehlo")
    assert world.answers() == [(1, "reject", "451 4.3.0 Temporary failure, try again later")]
    world.desk.reported(m.FilterReport(1, "timeout"))
    world.desk.data(m.FilterData(1, 1, b"x", True))
    assert world.sent == []
    assert len(world.log) == 3


def test_hooks_are_told_before_the_first_session_that_has_them(world: World) -> None:
    """Once for each smtp process and listener, and again when the program has said something else."""
    every = (1 << len(FILTER_PHASES)) - 1, (1 << len(FILTER_EVENTS)) - 1
    world.open(1, 3)
    world.open(2, 3)
    world.open(3 + (1 << 56), 3)
    world.open(4, 1)
    assert [(seat, hooks.phases, hooks.events) for seat, hooks in world.hooks] == [(0, *every), (1, *every)]
    world.run_program()
    world.open(5, 5)
    ehlo, tx_mail = 1 << FILTER_PHASES.index("ehlo"), 1 << FILTER_EVENTS.index("tx-mail")
    assert world.hooks[-1] == (0, m.FilterHooks(5, ehlo, tx_mail))


def test_a_chain_of_a_program_and_a_builtin_filter(world: World) -> None:
    """The builtin one decides once the program has nothing against it; reports go to the program alone."""
    far = world.run_program()
    world.open(1, 5)
    world.ask(1, "ehlo", "x.example")
    world.desk.reported(m.FilterReport(1, "tx-mail", ("0000000a", "ok", "a@b")))
    world.desk.reported(m.FilterReport(1, "timeout"))
    world.loop.turn(0)
    asked, told = far.read_lines()
    assert asked.endswith("|x.example")
    assert told.endswith("|tx-mail|0000000000000001|0000000a|ok|a@b")
    far.write(f"filter-result|{'|'.join(asked.split('|')[5:7])}|proceed\n".encode())
    run_until(world.loop, lambda: bool(world.sent))
    assert world.answers() == [(1, "reject", "550 no name")]


def test_a_program_that_is_not_there(world: World) -> None:
    """451, 421 before the greeting, nothing for a client that leaves; or what on-failure says."""
    for number, listener, phase in (
        (1, 3, "ehlo"), (2, 3, "connect"), (3, 3, "quit"), (4, 3, "rset"), (5, 4, "ehlo"), (6, 4, "connect"),
    ):  # fmt: skip
        world.open(number, listener)
        world.ask(number, phase)
    failure = "4.3.0 Temporary failure, try again later"
    assert world.answers() == [
        (1, "reject", f"451 {failure}"), (2, "disconnect", f"421 {failure}"), (3, "proceed", ""), (4, "proceed", ""),
        (5, "proceed", ""), (6, "proceed", ""),
    ]  # fmt: skip
    world.desk.data(m.FilterData(1, 1, b"x\r\n", False))
    assert world.sent == [m.FilterData(1, 1, b"", True, f"451 {failure}")]


def test_a_message_where_no_program_is_left(world: World) -> None:
    """With on-failure accept it comes back as it went in."""
    world.open(1, 4)
    world.desk.data(m.FilterData(1, 1, b"a\r\n.b\r\n", False))
    world.desk.data(m.FilterData(1, 1, b"c\r\n", True))
    data = [each for each in world.sent if isinstance(each, m.FilterData)]
    assert b"".join(each.data for each in data) == b"a\r\n.b\r\nc\r\n"
    assert data[-1].last
