"""The lookup process as a whole: every message it takes, and the part that answers it.

Runs in lookup. Built before confinement from the settings and files; the channels are attached
afterwards.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import NoReturn, Protocol

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import LookupSettings
from smtpd_ps.contract.values import Process, SrsSecrets, seat_of_session
from smtpd_ps.lookup.addresses import AddressBook, has_global_ipv6
from smtpd_ps.lookup.checking import Checking
from smtpd_ps.lookup.credentials import Credentials
from smtpd_ps.lookup.dns_exchange import Servers
from smtpd_ps.lookup.explain import Explanations
from smtpd_ps.lookup.files import Files
from smtpd_ps.lookup.filters import FilterDesk
from smtpd_ps.lookup.knowledge import Knowledge
from smtpd_ps.lookup.listener_tables import ListenerDesk
from smtpd_ps.lookup.mail_hosts import MailExchangers
from smtpd_ps.lookup.password_hash import PasswordHashes
from smtpd_ps.lookup.peers import Peers
from smtpd_ps.lookup.programs import Programs
from smtpd_ps.lookup.recipients import Recipients, SrsReader
from smtpd_ps.lookup.relay_routes import RelayRoutes
from smtpd_ps.lookup.resolver import Resolver
from smtpd_ps.lookup.sessions import Sessions
from smtpd_ps.lookup.table_asking import TableAsking
from smtpd_ps.lookup.table_programs import TablePrograms
from smtpd_ps.lookup.table_updates import TableUpdates
from smtpd_ps.pure.expand import Action, Expander, account_in
from smtpd_ps.pure.match_rules import RuleBook
from smtpd_ps.pure.table import Table, TableUnreadable
from smtpd_ps.runtime.loop import Loop

_ToSession = (
    m.Greet | m.PeerInfo | m.SenderReply | m.AuthReply | m.RcptRefuse | m.FilterAnswer | m.FilterData | m.FilterCredit
)  # fmt: skip
_OfSession = (
    m.PeerQuery | m.SenderQuery | m.AuthRequest | m.RcptRequest | m.FilterRequest | m.FilterReport | m.FilterData
    | m.FilterCredit | m.SessionEnd
)  # fmt: skip


class Sender(Protocol):
    """A channel, as far as it is used here."""

    def send(self, message: m.Message, *fds: int) -> None:
        """Send `message` at the end of the turn."""


def _srs_reader(secrets: SrsSecrets | None) -> SrsReader | None:
    """Reads SRS addresses; None where smtpd.conf has no key for them."""
    if secrets is None:
        return None
    from smtpd_ps.pure.srs import Srs  # brings in hashes, which others do without

    srs = Srs(secrets)
    return lambda address: srs.decode(address, time.time())


class Desk:
    """Takes messages of smtp, queue, delivery and the parent. Raises KeyError for a missing table."""

    def __init__(
        self,
        loop: Loop,
        settings: LookupSettings,
        files: Files,
        hashes: PasswordHashes,
        checking: Checking,
        warn: Callable[[str], None],
        fail: Callable[[str], NoReturn],
        programs: Programs | None = None,
        inform: Callable[[str], None] = lambda _text: None,
    ) -> None:
        self._peers: dict[tuple[Process, int], Sender] = {}  # by process and seat
        self._fail = fail
        self._programs = programs or Programs(loop, warn)
        self._settings = settings
        self._tables = files.tables
        resolver = Resolver(loop, Servers(loop, files.resolver))
        book = AddressBook(loop, resolver, files.hosts, has_global_ipv6(settings.local_addresses))
        to = self._to
        self._table_programs = TablePrograms(loop, settings, self._programs, warn)
        self._asking = asking = TableAsking(files.asked, self._table_programs.clients)
        rules, expander = self._rules(), self._expander()
        self._expander_now = expander
        srs = _srs_reader(settings.srs)
        self.sessions = Sessions(rules, asking)
        self._listeners = ListenerDesk(
            settings.listeners, self.sessions, files.tables, settings.sub_address_delimiter, asking, self._to_smtp, warn
        )
        self._knowledge = Knowledge(loop, to(Process.PARENT), warn)
        self._recipients = Recipients(
            loop, self.sessions, asking, expander, self._knowledge, self._listeners.judge,
            to(Process.QUEUE), self._to_smtp, to(Process.QUEUE), warn, srs,
        )  # fmt: skip
        self.sessions.decide = self._recipients.decide
        self._credentials = Credentials(
            loop, self.sessions, files.tables, checking, asking, self._to_smtp, to(Process.PARENT), warn
        )
        self._names = Peers(loop, resolver, book)
        self._routes = RelayRoutes(
            loop, settings.actions, files.tables, MailExchangers(loop, resolver, book), book, warn, asking,
            settings.own_exchangers, settings.local_addresses,
        )  # fmt: skip
        self._updates = TableUpdates(settings, files.tables, hashes, checking, self._swap, to(Process.PARENT))
        self._explanations = Explanations(
            settings,
            rules,
            expander,
            self._names,
            self._knowledge,
            self._routes,
            to(Process.CONTROL),
            srs,
            asking,
        )
        self._filters = FilterDesk(
            loop, settings, files.tables, resolver, self._programs, asking, self._to_smtp, self._to_seat, inform, warn
        )  # fmt: skip
        self._warn = warn

    def await_programs(self) -> tuple[str, ...]:
        """Give programs their time to register; what is wrong then. For the set-up."""
        return self._table_programs.await_services()

    def _rules(self) -> RuleBook:
        settings = self._settings
        return RuleBook(
            settings.rules, self._tables, settings.local_addresses, settings.local_names,
            settings.sub_address_delimiter,
        )  # fmt: skip

    def _expander(self) -> Expander:
        actions = {action.name: Action.of(action, self._tables) for action in self._settings.actions}
        return Expander(actions, self._settings.sub_address_delimiter)

    def _swap(self, table: Table) -> None:
        """Use `table` in place of the one of its name, in all that is decided from now on."""
        self._tables = {**self._tables, table.name: table}
        rules, expander = self._rules(), self._expander()
        self._expander_now = expander
        self.sessions.use(rules)
        self._recipients.use(expander)
        self._explanations.use(rules, expander)
        self._credentials.use(self._tables)
        self._listeners.use(self._tables)
        self._routes.use(self._tables)
        self._filters.use(self._tables)

    def attach(self, process: Process, channel: Sender, seat: int = 0) -> None:
        """Where messages for `process` go from now on; smtp and delivery may be several."""
        self._peers[process, seat] = channel
        if process is Process.PARENT:
            self._programs.attach(channel.send)

    def _to_smtp(self, message: _ToSession) -> None:
        """To the process that has the session."""
        self._peers[Process.SMTP, seat_of_session(message.session)].send(message)

    def _to_seat(self, seat: int, message: m.FilterHooks) -> None:
        self._peers[Process.SMTP, seat].send(message)

    def _to(self, process: Process) -> Callable[[m.Message], None]:
        peers = self._peers
        return lambda message: peers[process, 0].send(message)

    def _handlers_for_smtp(self, seat: int) -> Mapping[type[m.Message], Callable[..., None]]:
        """What an smtp process may say: of its own sessions only."""

        def own(handler: Callable[..., None]) -> Callable[..., None]:
            def handle(message: _OfSession) -> None:
                if seat_of_session(message.session) != seat:
                    self._fail(f"smtp {seat} names a session of smtp {seat_of_session(message.session)}")
                handler(message)

            return handle

        return {
            m.PeerQuery: own(self._peer),
            m.AuthRequest: own(self._credentials.requested),
            m.SenderQuery: own(self._listeners.requested),
            m.RcptRequest: own(self._recipients.requested),
            m.FilterRequest: own(self._filters.requested),
            m.FilterReport: own(self._filters.reported),
            m.FilterData: own(self._filters.data),
            m.FilterCredit: own(self._filters.credit),
            m.SessionEnd: own(self._session_end),
        }

    def handlers(self, process: Process, seat: int = 0) -> Mapping[type[m.Message], Callable[..., None]]:
        """What is taken from `process`; smtp and delivery are told apart by their seats."""
        match process:
            case Process.SMTP:
                return self._handlers_for_smtp(seat)
            case Process.DELIVERY:
                return {
                    m.RouteQuery: lambda query: self._route(query, self._peers[process, seat].send, seat),
                    m.OutgoingReport: partial(self._filters.outgoing.reported, seat),
                }
            case Process.QUEUE:
                return {m.BounceQuery: self._recipients.bounced}
            case Process.CONTROL:
                return {m.Explain: self._explanations.requested, m.ShowPrograms: self._show_programs}
            case Process.PARENT:
                return {
                    m.UserInfo: self._knowledge.user_info,
                    m.ForwardFile: self._knowledge.forward_file,
                    m.ForwardNone: self._knowledge.forward_none,
                    m.IncludeFile: self._knowledge.include_file,
                    m.IncludeNone: self._knowledge.include_none,
                    m.UserbaseQuery: self._userbase,
                    m.SystemAuthReply: self._credentials.system_replied,
                    m.TableFile: self._updates.requested,
                    m.TableUpdate: self._update_table,
                    m.Program: self._programs.started,
                    m.ProgramGone: self._programs.ended,
                }
            case _:
                return {}

    def _route(self, query: m.RouteQuery, send: Callable[[m.Message], None], seat: int) -> None:
        hooks = self._filters.outgoing.hooks(query.action, seat)
        if hooks is not None:
            send(hooks)
        self._routes.find(query, send)

    def _peer(self, query: m.PeerQuery) -> None:
        session = self.sessions.open(query.session, query.address, query.tag)
        self._listeners.opened(query.session, session, query.listener)
        if session is None:
            self._warn("too many sessions")
            self._to_smtp(m.PeerInfo(query.session, "", False))
            return
        self._filters.opened(query.session, query.listener, session)

        def done(name: str, confirmed: bool, told: bool) -> None:
            self.sessions.named(session, name, told)
            if self.sessions.get(query.session) is session:
                self._to_smtp(m.PeerInfo(query.session, name, confirmed))
                self._filters.named(query.session, confirmed)

        self._names.ask(query.address, done)

    def _session_end(self, message: m.SessionEnd) -> None:
        self.sessions.close(message.session)
        self._filters.closed(message.session)

    def _userbase(self, query: m.UserbaseQuery) -> None:
        """The parent starts an agent for a user of a userbase."""
        action = self._expander_now.actions.get(query.action)
        userbase = action.userbase if action is not None else None
        unsure = m.UserbaseInfo(query.query, temporary=True)

        def find() -> m.UserbaseInfo:
            if userbase is None:
                return unsure
            try:
                return m.UserbaseInfo(query.query, account_in(userbase, query.user))
            except ValueError as error:
                raise TableUnreadable(f"table {userbase.name}, user {query.user}: {error}") from None

        def found(info: m.UserbaseInfo | TableUnreadable, _heard: object) -> None:
            if isinstance(info, TableUnreadable):
                self._warn(str(info))
                info = unsure
            self._to(Process.PARENT)(info)

        self._asking.run(find, found)

    def _update_table(self, request: m.TableUpdate) -> None:
        self._table_programs.update(request, self._to(Process.PARENT))

    def _show_programs(self, request: m.ShowPrograms) -> None:
        states = self._programs.states(request.client, request.kind)
        for state in states:
            self._to(Process.CONTROL)(state)
        self._to(Process.CONTROL)(m.Done(request.client, True, count=len(states)))
