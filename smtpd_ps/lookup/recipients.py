"""May this recipient be taken, and where does it go?

Runs in lookup, on what strangers gave smtp. Rules and expansion are pure (pure/match_rules,
pure/expand); here is what they need from outside: what the parent knows, the cache of decisions, and
the envelopes made of the outcome.
"""

from collections.abc import Callable

from smtpd_ps.contract.messages import BounceQuery, BounceRoute, RcptAccept, RcptRefuse, RcptRequest
from smtpd_ps.contract.values import Client, Dsn, Envelope
from smtpd_ps.lookup.cache import FOREVER, Cache
from smtpd_ps.lookup.knowledge import Answers, Knowledge
from smtpd_ps.lookup.listener_tables import Verdict
from smtpd_ps.lookup.sessions import Session, Sessions
from smtpd_ps.lookup.table_asking import Known, TableAsking
from smtpd_ps.pure.address import mailbox_valid
from smtpd_ps.pure.expand import Expander
from smtpd_ps.pure.expand_outcome import TEMPORARY, Accepted, Delivery, Needed, Outcome, Refused
from smtpd_ps.pure.expand_questions import Answer, Question, UserQuestion
from smtpd_ps.pure.match_rules import Facts
from smtpd_ps.pure.table import TableUnreadable
from smtpd_ps.runtime import tracing
from smtpd_ps.runtime.loop import Loop

CACHE_ENTRIES = 50_000
MAX_HELD = 1000  # recipients of a session that wait for the client's name
DECISION_SECS = 10.0  # of one that depends on a user, who may come or go
FILES_SECS = 2.0  # of one that depends on a .forward, or on there being none, or on an included file

NOT_THAT_SENDER = Refused(530, "Sender rejected")

Decision = Accepted | Refused
SrsReader = Callable[[str], str | None]  # the address that a recipient of a bounce stands for
_Key = tuple[int, int, str, str | None, str | None, bool | None]


class Recipients:
    """Answers RcptRequest and BounceQuery."""

    def __init__(
        self,
        loop: Loop,
        sessions: Sessions,
        asking: TableAsking,
        expander: Expander,
        knowledge: Knowledge,
        judge_sender: Callable[[Session, str, Callable[[Verdict], None]], None],
        accept: Callable[[RcptAccept], None],
        refuse: Callable[[RcptRefuse], None],
        bounce: Callable[[BounceRoute], None],
        warn: Callable[[str], None],
        srs: SrsReader | None = None,
    ) -> None:
        self._srs = srs
        self._loop, self._sessions, self._asking = loop, sessions, asking
        self._expander, self._knowledge = expander, knowledge
        self._judge_sender = judge_sender
        self._accept, self._refuse, self._bounce, self._warn = accept, refuse, bounce, warn
        self._decisions: Cache[_Key, Decision] = Cache(CACHE_ENTRIES)

    def use(self, expander: Expander) -> None:
        """Decide anew from now on, with another expander; what was decided is forgotten."""
        self._expander = expander
        self._decisions = Cache(CACHE_ENTRIES)
        self._knowledge.forget_files()

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
        if not session.senders:
            self._decide_recipient(session, request)
            return

        def judged(verdict: Verdict) -> None:
            if verdict == "ok":
                self._decide_recipient(session, request)
            else:
                self._answer(request, session, NOT_THAT_SENDER if verdict == "no" else TEMPORARY)

        self._judge_sender(session, request.sender, judged)

    def _decide_recipient(self, session: Session, request: RcptRequest) -> None:
        key: _Key | None = self._key(session, request)
        if self._srs is not None and request.recipient[:3].lower() == "srs":
            key = None  # what it stands for depends on the sender, and ends
        decision = None if key is None else self._decisions.get(key, self._loop.now())
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
        heard: Known | None = None,
    ) -> None:
        """Expand; where something must be asked, again once it is known."""
        told = answers or {}
        keep_secs = FOREVER
        direct, original = session.direct, None
        if self._srs is not None and not facts.sender:
            original = self._srs(recipient)
            direct = direct if original is None else session.reinjected

        def known(question: Question) -> Answer | None:
            nonlocal keep_secs
            keep_secs = min(keep_secs, DECISION_SECS if isinstance(question, UserQuestion) else FILES_SECS)
            return told.get(question) or self._knowledge.known(question)

        def expand() -> Outcome:
            return self._expander.expand(original or recipient, facts, direct, session.reinjected, known)

        def expanded(outcome: Outcome | TableUnreadable, heard: Known) -> None:
            if isinstance(outcome, Needed):
                self._knowledge.ask(
                    outcome.questions,
                    lambda more: self._decide(session, recipient, facts, key, done, {**told, **more}, heard),
                )
                return
            if isinstance(outcome, TableUnreadable):
                outcome = Refused(TEMPORARY.code, TEMPORARY.text, str(outcome))
            if isinstance(outcome, Refused) and outcome.why:
                self._warn(outcome.why)
            # What a table program said holds for this one request.
            if key is not None and not heard and (isinstance(outcome, Accepted) or outcome.code >= 500):
                self._decisions.put(key, outcome, self._loop.now() + keep_secs)
            done(outcome)

        self._asking.run(expand, expanded, heard)

    def _answer(self, request: RcptRequest, session: Session | None, decision: Decision) -> None:
        if tracing.mask & (tracing.RULES | tracing.EXPAND):
            _trace(request, decision)
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
                    _envelope(delivery, request.sender, request.recipient, client, request.dsn)
                    for delivery in decision.deliveries
                ),
            )
        )  # fmt: skip

    def bounced(self, query: BounceQuery) -> None:
        """Where a bounce to `query.recipient` goes: as a local client with the null sender."""
        if not mailbox_valid(query.recipient):
            self._bounce(BounceRoute(query.query, (), False, "Invalid recipient"))
            return
        self._sessions.ours(lambda ours: self._bounced(query, ours))

    def _bounced(self, query: BounceQuery, ours: Session) -> None:
        def done(decision: Decision) -> None:
            if isinstance(decision, Refused):
                text = f"{decision.code} {decision.text}"
                self._bounce(BounceRoute(query.query, (), decision.code < 500, text))
                return
            client = ours.client("")
            envelopes = tuple(
                _envelope(each, "", query.recipient, client, Dsn(), internal=True) for each in decision.deliveries
            )
            self._bounce(BounceRoute(query.query, envelopes))

        self._decide(ours, query.recipient, Facts("localhost", False, "", "", ""), None, done)


def _envelope(
    delivery: Delivery, sender: str, recipient: str, client: Client, dsn: Dsn, internal: bool = False
) -> Envelope:
    return Envelope(
        delivery.action, sender, recipient, delivery.dest, delivery.user, client, dsn, internal,
        delivery.target, delivery.source, delivery.forwarded, delivery.extension,
    )  # fmt: skip


def _trace(request: RcptRequest, decision: Decision) -> None:
    what = f"{request.session:016x} from=<{request.sender}> to=<{request.recipient}>"
    if isinstance(decision, Refused):
        tracing.write("rules", f"{what}: {decision.code} {decision.text}")
        return
    if tracing.mask & tracing.RULES:
        actions = ", ".join(dict.fromkeys(each.action for each in decision.deliveries))
        tracing.write("rules", f"{what}: action {actions or 'none'}")
    if tracing.mask & tracing.EXPAND:
        for each in decision.deliveries:
            tracing.write("expand", f"{what}: dest={each.dest} user={each.user or '-'} action={each.action}")
