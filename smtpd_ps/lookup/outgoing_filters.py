"""Tells filter programs of the sessions in which mail goes out.

Runs in lookup, on what delivery says of its sessions: `relay ... filter`. Programs decide nothing there.
"""

from collections.abc import Callable, Mapping

from smtpd_ps.contract.messages import OutgoingHooks, OutgoingReport
from smtpd_ps.contract.settings import FILTER_EVENTS, LookupSettings
from smtpd_ps.contract.values import outgoing_session
from smtpd_ps.lookup.filter_program import FilterProgram

MAX_SESSIONS = 10_000  # of one delivery
_ALL_EVENTS = (1 << len(FILTER_EVENTS)) - 1


class OutgoingFilters:
    """The programs of each relay action that has a filter, and the sessions that they know."""

    def __init__(
        self, settings: LookupSettings, programs: Mapping[str, FilterProgram], warn: Callable[[str], None]
    ) -> None:
        self._warn = warn
        filters = {each.name: each for each in settings.filters}
        self._programs: dict[str, tuple[FilterProgram, ...]] = {}  # by action
        for action in settings.actions:
            if action.relay_filter:
                members = filters[action.relay_filter].members or (action.relay_filter,)
                names = [filters[member].program for member in members]
                self._programs[action.name] = tuple(programs[name] for name in names if name)
        incoming = {name for _listener, name in settings.listener_filters}
        incoming |= {member for name in incoming for member in filters[name].members}
        listened = {filters[name].program for name in incoming}
        for program in {each for several in self._programs.values() for each in several}:
            program.subsystems = ("smtp-in", "smtp-out") if program.name in listened else ("smtp-out",)
        # Which session it is to each program: one that has started since knows nothing of it.
        self._sessions: dict[int, dict[int, dict[FilterProgram, int]]] = {}  # by delivery's seat

    def hooks(self, action: str, seat: int) -> OutgoingHooks | None:
        """What delivery is to tell of the sessions of `action`; None where it has no programs."""
        programs = self._programs.get(action)
        if not programs:
            return None
        events = 0
        for program in programs:
            events |= program.outgoing if program.known else _ALL_EVENTS
        return OutgoingHooks(action, events, seat)

    def reported(self, seat: int, message: OutgoingReport) -> None:
        """Something happened in a session of the delivery with that seat."""
        sessions = self._sessions.setdefault(seat, {})
        if message.event == "link-connect" and message.session not in sessions:
            if len(sessions) >= MAX_SESSIONS:
                self._warn("too many sessions of mail that goes out: filters are not told of this one")
                return
            programs = self._programs.get(message.action, ())
            sessions[message.session] = {program: program.session_number() for program in programs}
        session = outgoing_session(seat, message.session)
        for program, number in sessions.get(message.session, {}).items():
            program.report(number, message.event, session, message.parameters, "smtp-out")
        if message.event == "link-disconnect":
            sessions.pop(message.session, None)
