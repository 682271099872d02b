"""What would be done with a mail, told to the operator; nothing is done.

Runs in lookup, on requests of root's smtpctl_ps that control passes on. It runs the same rules and
expansion as for a client, beside the cache of decisions, asks the parent about users and their files and
name servers about hosts, and sends nothing to queue.
"""

import ipaddress
from collections.abc import Callable, Mapping
from functools import partial

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ActionSettings, LookupSettings
from smtpd_ps.contract.values import RouteHost, TlsUse
from smtpd_ps.lookup.knowledge import Answers, Knowledge
from smtpd_ps.lookup.peers import Peers
from smtpd_ps.lookup.relay_routes import RelayRoutes
from smtpd_ps.lookup.table_asking import Known, TableAsking
from smtpd_ps.pure.address import AddressError, parse_path, split
from smtpd_ps.pure.expand import Expander
from smtpd_ps.pure.expand_outcome import Accepted, Delivery, Needed, Outcome, Refused
from smtpd_ps.pure.expand_questions import Answer, Question
from smtpd_ps.pure.expand_trace import Step, expand_traced
from smtpd_ps.pure.match_rules import LOCAL, Facts, RuleBook, Source
from smtpd_ps.pure.table import TableUnreadable

MAX_ROUTES = 50  # of one request whose hosts are asked for
MAX_TEXT = 2000  # characters; what a step holds, and room to say that it was cut

_TLS: Mapping[TlsUse, str] = {
    "opportunistic": "TLS where offered",
    "require": "TLS required",
    "require-verify": "TLS required and verified",
    "never": "no TLS",
    "implicit": "TLS from the start",
    "implicit-verify": "TLS from the start, verified",
}


class Explanations:
    """Answers Explain with steps and Done."""

    def __init__(
        self,
        settings: LookupSettings,
        rules: RuleBook,
        expander: Expander,
        names: Peers,
        knowledge: Knowledge,
        routes: RelayRoutes,
        send: Callable[[m.Message], None],
        srs: Callable[[str], str | None] | None = None,
        asking: TableAsking | None = None,
    ) -> None:
        self._srs = srs
        self._hostname = settings.hostname
        self._settings = {action.name: action for action in settings.actions}
        self._rules, self._expander, self._names = rules, expander, names
        self._knowledge, self._routes, self._send = knowledge, routes, send
        self._asking = asking or TableAsking()

    def use(self, rules: RuleBook, expander: Expander) -> None:
        """Answer by these from now on: a table was read again."""
        self._rules, self._expander = rules, expander

    def requested(self, request: m.Explain) -> None:
        """Always answered; Done says what is wrong with a request that is no mail."""
        try:
            if request.address != LOCAL:
                ipaddress.ip_address(request.address)
            sender = parse_path(request.sender, self._hostname, null_allowed=True)
            recipient = parse_path(request.recipient, self._hostname)
        except AddressError:
            self._send(m.Done(request.client, False, "the sender or the recipient is not a valid address"))
        except ValueError:
            self._send(m.Done(request.client, False, f'the client is an IP address or "{LOCAL}"'))
        else:

            def named(name: str, confirmed: bool, told: bool) -> None:
                self._tell(request.client, Step(0, "client", request.address, _name_text(name, confirmed, told)))
                self._run(request, name.lower() if told else None, sender, recipient, {})

            self._names.ask(request.address, named)

    def _run(
        self,
        request: m.Explain,
        name: str | None,
        sender: str,
        recipient: str,
        known: Answers,
        heard: Known | None = None,
    ) -> None:
        """Expand; where something must be asked, again once it is known."""

        def answer(question: Question) -> Answer | None:
            return known.get(question) or self._knowledge.known(question)

        original = self._srs(recipient) if self._srs is not None and not sender else None

        def expand() -> tuple[Outcome, tuple[Step, ...]]:
            user = request.user or None
            direct = self._rules.view(Source(request.address, request.tag, user, False, name))
            inner = self._rules.view(Source(request.address, request.tag, user, True, name))
            facts = Facts(request.helo.lower(), request.tls, sender.lower(), "", "")
            first = direct if original is None else inner
            return expand_traced(self._expander, original or recipient, facts, first, inner, answer)

        def expanded(result: tuple[Outcome, tuple[Step, ...]] | TableUnreadable, heard: Known) -> None:
            if isinstance(result, TableUnreadable):
                self._send(m.Done(request.client, False, _cut(str(result))))
                return
            outcome, steps = result
            if original is not None:
                steps = (Step(0, "address", recipient, f"is the SRS address of {original}"), *steps)
            if isinstance(outcome, Needed):
                self._knowledge.ask(
                    outcome.questions,
                    lambda more: self._run(request, name, sender, recipient, {**known, **more}, heard),
                )
            else:
                self._show(request, recipient, outcome, steps)

        self._asking.run(expand, expanded, heard)

    def _show(self, request: m.Explain, recipient: str, outcome: Accepted | Refused, steps: tuple[Step, ...]) -> None:
        for step in steps:
            self._tell(request.client, step)
        if isinstance(outcome, Refused):
            if outcome.why:
                self._tell(request.client, Step(0, "note", "", outcome.why))
            self._tell(request.client, Step(0, "refused", recipient, f"{outcome.code} {outcome.text}"))
            self._send(m.Done(request.client, True))
        else:
            _Routes(self._routes, self._settings, partial(self._tell, request.client)).show(
                outcome.deliveries, lambda: self._send(m.Done(request.client, True, "", len(outcome.deliveries)))
            )

    def _tell(self, client: int, step: Step) -> None:
        self._send(m.ExplainStep(client, min(step.depth, 255), step.kind, _cut(step.subject), _cut(step.text)))


class _Routes:
    """The deliveries of one request, each told with the hosts it would go to."""

    def __init__(
        self, routes: RelayRoutes, settings: Mapping[str, ActionSettings], tell: Callable[[Step], None]
    ) -> None:
        self._routes, self._settings, self._tell = routes, settings, tell

    def show(self, deliveries: tuple[Delivery, ...], done: Callable[[], None]) -> None:
        """Ask for the hosts of all at once, and tell everything in order when the last is there."""
        questions = dict.fromkeys(question for each in deliveries if (question := self._question(each)) is not None)
        asked = list(questions)[:MAX_ROUTES]
        answers: dict[tuple[str, str], m.Route] = {}

        def answered(question: tuple[str, str], route: m.Route) -> None:
            answers[question] = route
            if len(answers) == len(asked):
                self._tell_all(deliveries, answers)
                done()

        for question in asked:
            query = m.RouteQuery(0, *question)
            self._routes.find(query, partial(answered, question), only_asking=True)
        if not asked:
            self._tell_all(deliveries, answers)
            done()

    def _question(self, delivery: Delivery) -> tuple[str, str] | None:
        """The action and the domain that delivery would ask for; None where it asks for nothing."""
        action = self._settings[delivery.action]
        if action.kind == "relay":
            return action.name, "" if action.by_host else split(delivery.dest)[1].lower()
        return (action.name, "") if action.kind == "lmtp" and not action.lmtp_destination.startswith("/") else None

    def _tell_all(self, deliveries: tuple[Delivery, ...], answers: Mapping[tuple[str, str], m.Route]) -> None:
        for delivery in deliveries:
            action = self._settings[delivery.action]
            self._tell(Step(0, "deliver", delivery.dest, _delivery_text(action, delivery)))
            question = self._question(delivery)
            if question is None:
                continue
            route = answers.get(question)
            if route is None:
                self._tell(Step(1, "note", "", f"its hosts were not asked for, being more than {MAX_ROUTES} routes"))
            elif not route.hosts:
                self._tell(Step(1, "note", "", f"{'for now' if route.temporary else 'for good'}: {route.text}"))
            else:
                for host in route.hosts:
                    self._tell(Step(1, "host", host.name, _host_text(host, host.user)))


def _name_text(name: str, confirmed: bool, told: bool) -> str:
    if not told:
        return "has a name that DNS does not tell now"
    return f"is {name}{'' if confirmed else ' (its addresses do not say so)'}" if name else "has no name"


def _delivery_text(action: ActionSettings, delivery: Delivery) -> str:
    """`action "a": maildir ~/Maildir, user bob`."""
    parts: list[str] = [action.kind]
    match action.kind:
        case "maildir":
            parts.append(action.maildir_path or "~/Maildir")
        case "lmtp":
            parts += [action.lmtp_destination, *(["rcpt-to"] if action.lmtp_rcpt_to else [])]
        case "relay" if action.relay_tls != "opportunistic":
            parts.append(f"({_TLS[action.relay_tls]})")
    if delivery.target:
        parts = [delivery.target]
    user = f", user {delivery.user}" if delivery.user else ""
    return f'action "{action.name}": {" ".join(parts)}{user}'


def _host_text(host: RouteHost, user: str) -> str:
    """`192.0.2.7 port 25, preference 10, TLS where offered`."""
    parts = [f"{' '.join(host.addresses)} port {host.port}"]
    if host.preference:
        parts.append(f"preference {host.preference}")
    if host.lmtp:
        parts.append("LMTP")
    else:
        parts.append(_TLS[host.tls])
    if user:
        parts.append(f"as {user}")
    return ", ".join(parts)


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."
