"""May this recipient be taken, and where does it go?

Runs in lookup, on what strangers gave smtp. Rules and expansion are pure (pure/match_rules,
pure/expand); here is what they need from outside: users, the cache of decisions, and the
envelopes made of the outcome.
"""

from collections.abc import Callable

from smtpd_ps.contract.messages import BounceQuery, BounceRoute, RcptAccept, RcptRefuse, RcptRequest
from smtpd_ps.contract.values import Envelope
from smtpd_ps.lookup.cache import FOREVER, Cache
from smtpd_ps.lookup.sessions import Session, Sessions
from smtpd_ps.lookup.users import Answers, Users
from smtpd_ps.pure.address import mailbox_valid
from smtpd_ps.pure.expand import TEMPORARY, Accepted, Expander, Refused, UsersNeeded, UserState
from smtpd_ps.pure.match_rules import Facts
from smtpd_ps.pure.table import TableUnreadable
from smtpd_ps.runtime.loop import Loop

CACHE_ENTRIES = 50_000
MAX_HELD = 1000  # recipients of a session that wait for the client's name
DECISION_SECS = 10.0  # of one that depends on a user, who may come or go

NOT_THAT_SENDER = Refused(530, "Sender rejected")

Decision = Accepted | Refused
_Key = tuple[int, int, str, str | None, str | None, bool | None]


class Recipients:
    """Answers RcptRequest and BounceQuery."""

    def __init__(
        self,
        loop: Loop,
        sessions: Sessions,
        expander: Expander,
        users: Users,
        may_send: Callable[[Session, str], bool],
        accept: Callable[[RcptAccept], None],
        refuse: Callable[[RcptRefuse], None],
        bounce: Callable[[BounceRoute], None],
        warn: Callable[[str], None],
    ) -> None:
        self._loop, self._sessions, self._expander, self._users = loop, sessions, expander, users
        self._may_send = may_send
        self._accept, self._refuse, self._bounce, self._warn = accept, refuse, bounce, warn
        self._decisions: Cache[_Key, Decision] = Cache(CACHE_ENTRIES)

    def use(self, expander: Expander) -> None:
        """Decide anew from now on, with another expander; what was decided is forgotten."""
        self._expander = expander
        self._decisions = Cache(CACHE_ENTRIES)

    def requested(self, request: RcptRequest) -> None:
        """Always answered: by RcptAccept to queue or RcptRefuse to smtp."""
        session = self._sessions.get(request.session)
        if session is None:
            self._warn(f"recipient of an unknown session {request.session:016x}")
            self._answer(request, None, TEMPORARY)
            return
        if session.held is not None:
            if len(session.held) < MAX_HELD:
                session.held.append(request)
            else:
                self._answer(request, session, TEMPORARY)
            return
        self.decide(session, request)

    def decide(self, session: Session, request: RcptRequest) -> None:
        """Answer a recipient of a session of which all is known that can be."""
        if session.valid_sender != request.sender:
            if request.sender and not mailbox_valid(request.sender):
                self._warn(f"smtp sent an invalid sender <{request.sender}>")
                self._answer(request, session, TEMPORARY)
                return
            session.valid_sender = request.sender
        if session.senders and not self._may_send(session, request.sender):
            self._answer(request, session, NOT_THAT_SENDER)
            return
        key = self._key(session, request)
        decision = self._decisions.get(key, self._loop.now())
        if decision is not None:
            self._answer(request, session, decision)
            return
        if not mailbox_valid(request.recipient):
            self._warn(f"smtp sent an invalid recipient <{request.recipient}>")
            self._answer(request, session, TEMPORARY)
            return
        facts = Facts(request.helo.lower(), request.tls, request.sender.lower(), "", "")
        self._decide(session, request.recipient, facts, key, lambda made: self._answer(request, session, made))

    @staticmethod
    def _key(session: Session, request: RcptRequest) -> _Key:
        """All that the decision depends on: what no rule reads is left out."""
        direct, inner = session.direct, session.reinjected
        reads = direct.reads | inner.reads if direct.reads or inner.reads else direct.reads
        if not reads:
            return (direct.number, inner.number, request.recipient, None, None, None)
        return (
            direct.number,
            inner.number,
            request.recipient,
            request.sender if "sender" in reads else None,
            request.helo if "helo" in reads else None,
            request.tls if "tls" in reads else None,
        )

    def _decide(
        self,
        session: Session,
        recipient: str,
        facts: Facts,
        key: _Key | None,
        done: Callable[[Decision], None],
        answers: Answers | None = None,
    ) -> None:
        """Expand; where users must be asked for, again once they are known."""
        known = answers or {}
        asked_users = False

        def state(user: str) -> UserState:
            nonlocal asked_users
            asked_users = True
            return known.get(user) or self._users.state(user)

        try:
            outcome = self._expander.expand(recipient, facts, session.direct, session.reinjected, state)
        except TableUnreadable as error:
            outcome = Refused(TEMPORARY.code, TEMPORARY.text, str(error))
        if isinstance(outcome, UsersNeeded):
            self._users.ask(
                outcome.users,
                lambda more: self._decide(session, recipient, facts, key, done, {**known, **more}),
            )
            return
        if isinstance(outcome, Refused) and outcome.why:
            self._warn(outcome.why)
        if key is not None and (isinstance(outcome, Accepted) or outcome.code >= 500):
            expires = self._loop.now() + DECISION_SECS if asked_users else FOREVER
            self._decisions.put(key, outcome, expires)
        done(outcome)

    def _answer(self, request: RcptRequest, session: Session | None, decision: Decision) -> None:
        if isinstance(decision, Refused):
            self._refuse(
                RcptRefuse(request.session, request.transaction, request.number, decision.code, decision.text)
            )  # fmt: skip
            return
        assert session is not None
        client = session.client(request.helo)
        self._accept(
            RcptAccept(
                request.session,
                request.transaction,
                request.number,
                tuple(
                    Envelope(
                        delivery.action, request.sender, request.recipient, delivery.dest, delivery.user,
                        client, request.dsn,
                    )
                    for delivery in decision.deliveries
                ),
            )
        )  # fmt: skip

    def bounced(self, query: BounceQuery) -> None:
        """Where a bounce to `query.recipient` goes: as a local client with the null sender."""
        if not mailbox_valid(query.recipient):
            self._bounce(BounceRoute(query.query, (), False, "Invalid recipient"))
            return
        ours = self._sessions.ours()

        def done(decision: Decision) -> None:
            if isinstance(decision, Refused):
                text = f"{decision.code} {decision.text}"
                self._bounce(BounceRoute(query.query, (), decision.code < 500, text))
                return
            client = ours.client("")
            envelopes = tuple(
                Envelope(each.action, "", query.recipient, each.dest, each.user, client, internal=True)
                for each in decision.deliveries
            )
            self._bounce(BounceRoute(query.query, envelopes))

        self._decide(ours, query.recipient, Facts("localhost", False, "", "", ""), None, done)
