"""The tables of listeners: the names they greet with, and who may send as whom.

Runs in lookup, on addresses that strangers gave smtp. `senders` is decided here alone: smtp asks in
order to refuse MAIL, and each recipient is held to the same answer (lookup/recipients).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Literal

from smtpd_ps.contract.messages import Greet, SenderQuery, SenderReply
from smtpd_ps.contract.settings import ListenerTables
from smtpd_ps.lookup.sessions import Session, Sessions
from smtpd_ps.lookup.table_asking import TableAsking
from smtpd_ps.pure.address import mailbox_valid
from smtpd_ps.pure.match_tables import match_mailaddrs
from smtpd_ps.pure.table import Table, TableUnreadable
from smtpd_ps.pure.table_program import ProgramTable
from smtpd_ps.pure.table_values import parse_address, parse_host_name, parse_mailaddrs

Verdict = Literal["ok", "no", "error"]


class ListenerDesk:
    """Answers SenderQuery, and says Greet. Raises KeyError for a missing table."""

    def __init__(
        self,
        listeners: Iterable[ListenerTables],
        sessions: Sessions,
        tables: Mapping[str, Table],
        delimiter: str,
        asking: TableAsking,
        reply: Callable[[Greet | SenderReply], None],
        warn: Callable[[str], None],
    ) -> None:
        self._listeners = {listener.index: listener for listener in listeners}
        for listener in self._listeners.values():
            for name in filter(None, (listener.hostnames, listener.senders)):
                tables[name]  # is there
        self._sessions, self._tables, self._delimiter = sessions, tables, delimiter
        self._asking, self._reply, self._warn = asking, reply, warn

    def use(self, tables: Mapping[str, Table]) -> None:
        """Look into other tables from now on; what was allowed by the old ones is asked again."""
        self._tables = tables
        self._sessions.forget_senders()

    def opened(self, number: int, session: Session | None, index: int) -> None:
        """A client connected to listener `index`; no session where there were too many."""
        listener = self._listeners.get(index)
        if listener is None:
            return
        if session is not None:
            session.senders = listener.senders
        if not listener.hostnames:
            return

        def named(name: str | TableUnreadable, _heard: object) -> None:
            if isinstance(name, TableUnreadable):
                self._warn(str(name))
                name = ""
            self._reply(Greet(number, name))

        self._asking.run(lambda: self._name(listener), named)

    def _name(self, listener: ListenerTables) -> str:
        """What the table has for the listener's address, however that is written. Raises TableUnreadable."""
        table = self._tables[listener.hostnames]
        wanted = parse_address(listener.address)
        if isinstance(table, ProgramTable):
            name = table.serving("addrname").get(f"[{wanted}]" if ":" in wanted else wanted)
            try:
                return parse_host_name(name) if name is not None else ""
            except ValueError as error:
                raise TableUnreadable(f"table {table.name}: {error}") from None
        entries = table.entries
        if wanted in entries:
            return entries[wanted]
        return next((name for key, name in entries.items() if parse_address(key) == wanted), "")

    def requested(self, query: SenderQuery) -> None:
        """Always answered by one SenderReply."""
        session = self._sessions.get(query.session)
        if session is None or (query.sender and not mailbox_valid(query.sender)):
            self._warn(f"sender out of place in session {query.session:016x}")
            self._reply(SenderReply(query.session, query.transaction, "error"))
            return
        self.judge(
            session, query.sender,
            lambda verdict: self._reply(SenderReply(query.session, query.transaction, verdict)),
        )  # fmt: skip

    def judge(self, session: Session, sender: str, done: Callable[[Verdict], None]) -> None:
        """Tell whether the session's user may send as `sender`. Who is not authenticated is not asked (QUIRKS 11)."""

        def judged(allowed: bool | TableUnreadable, _heard: object) -> None:
            if isinstance(allowed, TableUnreadable):
                self._warn(f"table {session.senders}, user {session.user}: {allowed}")
                done("error")
            else:
                done("ok" if allowed else "no")

        self._asking.run(lambda: self._allows(session, sender), judged)

    def _allows(self, session: Session, sender: str) -> bool:
        if session.user is None or not session.senders or session.allowed_sender == sender:
            return True
        allowed = self._tables[session.senders].serving("mailaddrmap").get(session.user)
        if allowed is None:
            return False
        try:
            addresses = parse_mailaddrs(allowed)
        except ValueError as error:  # an entry of a database, or of a program
            raise TableUnreadable(str(error)) from None
        if not match_mailaddrs(addresses, self._delimiter)(sender.lower()):
            return False
        session.allowed_sender = sender
        return True
