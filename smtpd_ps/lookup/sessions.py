"""What lookup remembers of each SMTP session: who connected, and as whom it authenticated.

Runs in lookup. The authentication recorded here is the only one that rules look at; smtp cannot
claim one.
"""

from collections.abc import Callable

from smtpd_ps.contract.messages import RcptRequest
from smtpd_ps.contract.values import Client
from smtpd_ps.lookup.table_asking import TableAsking
from smtpd_ps.pure.match_rules import LOCAL, UNDECIDED, RuleBook, Source, View
from smtpd_ps.pure.table import TableUnreadable

MAX_SESSIONS = 65_536


class Session:
    """One connection of a client."""

    __slots__ = (
        "_client", "address", "allowed_sender", "auth_under_way", "direct", "held", "look", "looking", "name",
        "name_asked", "name_told", "reinjected", "senders", "tag", "user", "valid_sender",
    )  # fmt: skip

    def __init__(self, address: str, tag: str) -> None:
        self.address = address
        self.tag = tag
        self.name = ""
        self.name_asked = True  # and no answer yet
        self.name_told = False  # DNS said the name, or that there is none
        # Recipients that wait for the name, where rules look at it, or for a table program.
        self.held: list[RcptRequest] | None = None
        self.look = 0  # number of the newest decision of the rules' conditions on the client
        self.looking = False  # and it is not there yet
        self.user: str | None = None
        self.auth_under_way = False
        self.valid_sender: str | None = None  # the last one that was checked
        self.senders = ""  # the listener's table of who may send as whom
        self.allowed_sender: str | None = None  # the last one that the table allowed
        self.direct: View
        self.reinjected: View
        self._client = Client()

    def client(self, helo: str) -> Client:
        """The client as envelopes carry it."""
        made = self._client
        if made.helo != helo or not made.address or made.name != self.name or made.user != (self.user or ""):
            made = self._client = Client(self.address, self.name, helo, self.user or "", self.tag)
        return made


class Sessions:
    """All sessions by number."""

    def __init__(
        self, rules: RuleBook, asking: TableAsking, decide: Callable[[Session, RcptRequest], None] | None = None
    ) -> None:
        """`decide` gets the recipients that were held, once all is known."""
        self._rules, self._asking = rules, asking
        self.decide = decide
        self._sessions: dict[int, Session] = {}
        self.get = self._sessions.get

    def open(self, number: int, address: str, tag: str) -> Session | None:
        """A new session; None where there are too many."""
        if len(self._sessions) >= MAX_SESSIONS and number not in self._sessions:
            return None
        session = self._sessions[number] = Session(address, tag)
        self._look(session)
        return session

    def named(self, session: Session, name: str, told: bool) -> None:
        """Reverse DNS has answered, or given up; the recipients that waited for it are decided."""
        session.name, session.name_asked, session.name_told = name, False, told
        if session.held is not None:  # else no rule looks at it
            self._look(session)

    def authenticated(self, session: Session, user: str) -> None:
        """The session has proven to be `user`."""
        session.user = user
        session.allowed_sender = None
        self._look(session)

    def close(self, number: int) -> None:
        """Forget it."""
        self._sessions.pop(number, None)

    def ours(self, ready: Callable[[Session], None]) -> None:
        """A session of ourselves, for bounces: local, and authenticated as nobody."""
        session = Session(LOCAL, "")
        session.name_asked, session.name_told = False, True
        self._look(session, ready)

    def forget_senders(self) -> None:
        """Ask the tables again whether users may send as they do."""
        for session in self._sessions.values():
            session.allowed_sender = None

    def use(self, rules: RuleBook) -> None:
        """Judge all sessions by other rules from now on."""
        self._rules = rules
        for session in self._sessions.values():
            self._look(session)

    def _look(self, session: Session, ready: Callable[[Session], None] | None = None) -> None:
        """Decide the rules' conditions on the client; recipients are held while a table program is asked."""
        name = session.name.lower() if session.name_told else None
        session.look += 1
        number = session.look

        def look() -> tuple[View, View]:
            return (
                self._rules.view(Source(session.address, session.tag, session.user, False, name)),
                self._rules.view(Source(session.address, session.tag, session.user, True, name)),
            )

        def seen(result: tuple[View, View] | TableUnreadable, _known: object) -> None:
            if session.look != number:
                return  # there was more to know meanwhile
            session.looking = False
            views = (UNDECIDED, UNDECIDED) if isinstance(result, TableUnreadable) else result
            session.direct, session.reinjected = views
            self._hold_or_release(session)
            if ready is not None:
                ready(session)

        session.looking = True
        self._asking.run(look, seen)
        if session.looking and session.held is None:
            session.held = []

    def _hold_or_release(self, session: Session) -> None:
        if session.name_asked and session.direct.unsure:
            session.held = [] if session.held is None else session.held
        elif session.held is not None:
            held, session.held = session.held, None
            for request in held:
                assert self.decide is not None
                self.decide(session, request)

    def __len__(self) -> int:
        return len(self._sessions)
