"""What filter programs are told of mail that goes out, as delivery tells it."""

import msgspec
import pytest
from support.still_loop import StillLoop

from smtpd_ps.contract.messages import OutgoingHooks, OutgoingReport
from smtpd_ps.contract.settings import FILTER_EVENTS, ActionSettings, FilterSettings, LookupSettings
from smtpd_ps.contract.values import seat_of_session
from smtpd_ps.lookup import outgoing_filters
from smtpd_ps.lookup.filter_program import FilterProgram
from smtpd_ps.lookup.outgoing_filters import OutgoingFilters


class Pipe:
    """A program that takes all."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def send(self, line: bytes) -> bool:
        self.lines.append(line.decode())
        return True


def made(*lines: bytes) -> tuple[OutgoingFilters, Pipe, list[str]]:
    """A filter with a program that registered so, on the action `out`."""
    program = FilterProgram(StillLoop(), "p", "", lambda *_said: None)  # type: ignore[arg-type]
    pipe = Pipe()
    filters = (
        FilterSettings("f", program="p"), FilterSettings("b"), FilterSettings("<chain:0001>", ("f", "b")),
        FilterSettings("none", ("b",)),
    )  # fmt: skip
    actions = (
        ActionSettings("out", "relay", relay_filter="<chain:0001>"), ActionSettings("plain", "relay"),
        ActionSettings("built", "relay", relay_filter="none"),
    )  # fmt: skip
    settings = LookupSettings("h", (), actions, (), (), (), filters=filters, procs=("p",))
    warned: list[str] = []
    outgoing = OutgoingFilters(settings, {"p": program}, warned.append)
    program.opened(pipe)  # type: ignore[arg-type]
    for line in lines:
        program.line(line)
    return outgoing, pipe, warned


def test_delivery_learns_what_is_wanted() -> None:
    """All until the program has registered, then that; nothing for an action without a program."""
    every = (1 << len(FILTER_EVENTS)) - 1
    assert made()[0].hooks("out", 3) == OutgoingHooks("out", every, 3)
    outgoing, _pipe, _warned = made(b"register|report|smtp-out|link-connect", b"register|ready")
    assert outgoing.hooks("out", 3) == OutgoingHooks("out", 1, 3)
    assert outgoing.hooks("plain", 3) is None
    assert outgoing.hooks("built", 3) is None


def test_a_delivery_tells_of_its_own_sessions_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever number it says, the session is one of its seat and none of smtp's; their number has a bound."""
    outgoing, pipe, warned = made(b"register|report|smtp-out|*", b"register|ready")
    del pipe.lines[:]
    for seat in (0, 3, 127):
        outgoing.reported(seat, OutgoingReport(2**56 - 1, "out", "link-connect", ("x",)))
        session = int(pipe.lines[-1].split("|")[5], 16)
        assert seat_of_session(session) == 0x80 | seat
        assert f"|smtp-out|link-connect|{session:016x}|x" in pipe.lines[-1]
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"session": 2**56, "action": "out", "event": "timeout"}, OutgoingReport, from_attributes=True)
    told = len(pipe.lines)
    outgoing.reported(5, OutgoingReport(2**56 - 1, "out", "tx-reset", ("1",)))  # of another seat: not known here
    assert len(pipe.lines) == told
    monkeypatch.setattr(outgoing_filters, "MAX_SESSIONS", 1)
    outgoing.reported(3, OutgoingReport(1, "out", "link-connect"))
    assert len(pipe.lines) == told
    assert len(warned) == 1
    outgoing.reported(3, OutgoingReport(2**56 - 1, "out", "link-disconnect"))
    outgoing.reported(3, OutgoingReport(2**56 - 1, "out", "timeout"))
    outgoing.reported(3, OutgoingReport(1, "out", "link-connect"))
    assert [line.split("|")[4] for line in pipe.lines[told:]] == ["link-disconnect", "link-connect"]
