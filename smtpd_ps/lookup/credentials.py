"""Authentication of clients: the listener's table, or the system's own passwords.

Runs in lookup, on user names and passwords of strangers. A failure takes the same time whether
or not the user exists: where there is no hash to check, another one of the same table is
checked, always the same for a name, and the result thrown away.
"""

from collections.abc import Callable, Mapping
from itertools import islice
from typing import Literal

from smtpd_ps.contract.messages import AuthReply, AuthRequest, SystemAuth, SystemAuthReply
from smtpd_ps.lookup.checking import Checking
from smtpd_ps.lookup.password_hash import Verdict, scheme_by_start, scheme_of
from smtpd_ps.lookup.sessions import Sessions
from smtpd_ps.lookup.table_asking import TableAsking
from smtpd_ps.lookup.table_client import Answer
from smtpd_ps.pure.table import Table, TableUnreadable
from smtpd_ps.pure.table_program import ProgramTable
from smtpd_ps.runtime import tracing
from smtpd_ps.runtime.loop import Loop, Timer

SYSTEM_PATIENCE_SECS = 30.0
MAX_SYSTEM_UNDER_WAY = 64
MAX_SAMPLE = 64  # of the entries of a database
# Checked where a table has no good hash at all; nobody knows a password for it.
DUMMY = "$6$nobodynobody$4Ye/sMDhRQ1NnQn6hw5J7T6WdLj2Rt3Wb3PbE5Z0Y6d8uE3cqzpPzFzUu5sBqC0v0xk1yX9jS7m2k4h6g8f0e."

Say = Literal["ok", "no", "error"]


def stored_hash(value: str) -> str:
    """The hash in a credentials entry; "user:hash" is taken as OpenSMTPD does."""
    return value.partition(":")[2] if ":" in value else value


def schemes_in(tables: Mapping[str, Table]) -> frozenset[str]:
    """The hash schemes that tables hold, so that what they need can be loaded in time."""
    in_memory = (table for table in tables.values() if table.kind == "map" and table.patterns is None)
    values = (value for table in in_memory for value in table.entries.values())
    found = {scheme for value in values if "$" in value and (scheme := scheme_of(stored_hash(value)))}
    return frozenset(found.union(scheme_by_start(start) for table in tables.values() for start in table.hash_starts))


class _Hashes:
    """The good hashes of one table, to check in place of those that are not there."""

    def __init__(self, table: Table) -> None:
        entries = islice(table.entries.values(), None if table.patterns is None else MAX_SAMPLE)
        stored = (stored_hash(value) for value in entries)
        self._good = tuple(each for each in stored if scheme_of(each)) or (DUMMY,)

    def stand_in(self, user: str) -> str:
        """Always the same for a user while this process lives, and unpredictable (str hashes are salted)."""
        return self._good[hash(user) % len(self._good)]


class Credentials:
    """Answers AuthRequest."""

    def __init__(
        self,
        loop: Loop,
        sessions: Sessions,
        tables: Mapping[str, Table],
        checking: Checking,
        asking: TableAsking,
        reply: Callable[[AuthReply], None],
        ask_system: Callable[[SystemAuth], None],
        warn: Callable[[str], None],
    ) -> None:
        self._loop, self._sessions, self._tables, self._checking = loop, sessions, tables, checking
        self._asking, self._reply, self._ask_system, self._warn = asking, reply, ask_system, warn
        self._stand_ins: dict[str, _Hashes] = {}
        self._seen_hashes: dict[str, str] = {}  # a good one of each table of a program
        self._system: dict[int, tuple[Callable[[Say], None], Timer]] = {}
        self._last = 0

    def use(self, tables: Mapping[str, Table]) -> None:
        """Check against other tables from now on."""
        self._tables = tables
        self._stand_ins.clear()

    def requested(self, request: AuthRequest) -> None:
        """Answered by one AuthReply, unless the session ends first."""
        session = self._sessions.get(request.session)
        if session is None or session.auth_under_way or session.user is not None:
            self._warn(f"authentication out of place in session {request.session:016x}")
            self._reply(AuthReply(request.session, "error"))
            return
        session.auth_under_way = True

        def conclude(say: Say) -> None:
            if tracing.mask & tracing.TABLES:
                where = f"table {request.table}" if request.table else "the system"
                tracing.write("tables", f"{request.session:016x} {where}: user {request.user}: {say}")
            session.auth_under_way = False
            if self._sessions.get(request.session) is not session:
                return  # it went away meanwhile
            if say == "ok":
                self._sessions.authenticated(session, request.user)
            self._reply(AuthReply(request.session, say))

        if request.table:
            self._by_table(request, conclude)
        else:
            self._by_system(request, conclude)

    def _by_table(self, request: AuthRequest, conclude: Callable[[Say], None]) -> None:
        table = self._tables.get(request.table)
        if table is None:
            self._warn(f"smtp asked for a table that is not there: {request.table}")
            conclude("error")
            return
        if isinstance(table, ProgramTable):
            self._by_program(table.name, request, conclude)
            return
        try:
            value = table.get(request.user) if request.user else None
            self._check(request, value, lambda: self._stand_in(request.table, table, request.user), conclude)
        except TableUnreadable as error:
            self._warn(str(error))
            conclude("error")

    def _by_program(self, table: str, request: AuthRequest, conclude: Callable[[Say], None]) -> None:
        """Let the program check the password itself, if it offers that; else ask it for the hash.

        The password goes to it as the client gave it, and nowhere else.
        """

        def failed(answer: Answer) -> bool:
            if answer.status == "error":
                self._warn(answer.why)
                conclude("error")
            return answer.status == "error"

        def checked(answer: Answer) -> None:
            if not failed(answer):
                conclude("ok" if answer.status == "found" else "no")

        def found(answer: Answer) -> None:
            if failed(answer):
                return
            value = answer.value if answer.status == "found" else None
            if value is not None and scheme_of(stored_hash(value)):
                self._seen_hashes.setdefault(table, stored_hash(value))
            self._check(request, value, lambda: self._seen_hashes.get(table, DUMMY), conclude)

        client = self._asking.clients[table]
        if "auth" not in client.services:
            client.lookup("credentials", request.user.lower(), found)
        elif not request.user or ":" in request.user:
            conclude("no")  # the colon ends the user's name
        else:
            client.check("auth", f"{request.user}:{request.password}", checked)

    def _check(
        self, request: AuthRequest, value: str | None, stand_in: Callable[[], str], conclude: Callable[[Say], None]
    ) -> None:
        """Check the password with the entry `value`; `stand_in` gives a hash to check where it has none.

        Raises what `stand_in` raises.
        """
        stored = stored_hash(value) if value is not None else ""
        known = scheme_of(stored) != ""
        if not known:
            stored = stand_in()
        if value is not None and not known:
            self._warn(f"table {request.table}: the hash of {request.user} is malformed; it never matches")

        def done(verdict: Verdict) -> None:
            if not known:
                conclude("no")
                return
            match verdict:
                case Verdict.MATCH:
                    conclude("ok")
                case Verdict.NO_MATCH:
                    conclude("no")
                case Verdict.MALFORMED:
                    self._warn(f"table {request.table}: the hash of {request.user} is malformed; it never matches")
                    conclude("no")
                case Verdict.UNSUPPORTED:
                    self._warn(f"table {request.table}: nothing here can check the hash of {request.user}")
                    conclude("error")

        if not self._checking.submit(request.password, stored, done):
            conclude("error")

    def _stand_in(self, name: str, table: Table, user: str) -> str:
        hashes = self._stand_ins.get(name)
        if hashes is None:
            hashes = self._stand_ins[name] = _Hashes(table)
        return hashes.stand_in(user)

    def _by_system(self, request: AuthRequest, conclude: Callable[[Say], None]) -> None:
        if len(self._system) >= MAX_SYSTEM_UNDER_WAY:
            conclude("error")
            return
        self._last = self._last % (2**32 - 1) + 1
        number = self._last
        timer = self._loop.call_later(
            SYSTEM_PATIENCE_SECS, lambda: self.system_replied(SystemAuthReply(number, "error"))
        )
        self._system[number] = (conclude, timer)
        self._ask_system(SystemAuth(number, request.user, request.password))

    def system_replied(self, reply: SystemAuthReply) -> None:
        """The parent's verdict."""
        waiting = self._system.pop(reply.query, None)
        if waiting is not None:
            conclude, timer = waiting
            timer.cancel()
            conclude(reply.verdict)
