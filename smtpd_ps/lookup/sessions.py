"""What lookup remembers of each SMTP session: who connected, and as whom it authenticated.

Runs in lookup. The authentication recorded here is the only one that rules look at; smtp cannot
claim one.
"""

from smtpd_ps.contract.messages import RcptRequest
from smtpd_ps.contract.values import Client
from smtpd_ps.pure.match_rules import LOCAL, RuleBook, Source, View

MAX_SESSIONS = 65_536


class Session:
    """One connection of a client."""

    __slots__ = (
        "_client", "address", "allowed_sender", "auth_under_way", "direct", "held", "name", "name_asked", "name_told",
        "reinjected", "senders", "tag", "user", "valid_sender",
    )  # fmt: skip

    def __init__(self, address: str, tag: str) -> None:
        self.address = address
        self.tag = tag
        self.name = ""
        self.name_asked = True  # and no answer yet
        self.name_told = False  # DNS said the name, or that there is none
        self.held: list[RcptRequest] | None = None  # recipients that wait for the name, where rules look at it
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

    def __init__(self, rules: RuleBook) -> None:
        self._rules = rules
        self._sessions: dict[int, Session] = {}
        self.get = self._sessions.get

    def open(self, number: int, address: str, tag: str) -> Session | None:
        """A new session; None where there are too many."""
        if len(self._sessions) >= MAX_SESSIONS and number not in self._sessions:
            return None
        session = self._sessions[number] = Session(address, tag)
        self._look(session)
        return session

    def named(self, session: Session, name: str, told: bool) -> list[RcptRequest]:
        """Reverse DNS has answered, or given up; the recipients that waited for it."""
        session.name, session.name_asked, session.name_told = name, False, told
        if session.held is None:
            return []  # no rule looks at it
        held, session.held = session.held, None
        self._look(session)
        return held

    def authenticated(self, session: Session, user: str) -> None:
        """The session has proven to be `user`."""
        session.user = user
        session.allowed_sender = None
        self._look(session)

    def close(self, number: int) -> None:
        """Forget it."""
        self._sessions.pop(number, None)

    def ours(self) -> Session:
        """A session of ourselves, for bounces: local, and authenticated as nobody."""
        session = Session(LOCAL, "")
        session.name_asked, session.name_told = False, True
        self._look(session)
        return session

    def forget_senders(self) -> None:
        """Ask the tables again whether users may send as they do."""
        for session in self._sessions.values():
            session.allowed_sender = None

    def use(self, rules: RuleBook) -> None:
        """Judge all sessions by other rules from now on."""
        self._rules = rules
        for session in self._sessions.values():
            self._look(session)

    def _look(self, session: Session) -> None:
        """Decide the rules' conditions on the client."""
        name = session.name.lower() if session.name_told else None
        session.direct = self._rules.view(Source(session.address, session.tag, session.user, False, name))
        session.reinjected = self._rules.view(Source(session.address, session.tag, session.user, True, name))
        if session.name_asked and session.direct.unsure and session.held is None:
            session.held = []

    def __len__(self) -> int:
        return len(self._sessions)
