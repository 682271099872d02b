"""The connections of one relay, and the mail that waits for them.

Runs in delivery. A relay is an action and, where that goes by MX, a destination domain. Connections
are kept and used again; a new one is opened only while mail waits, by what relay_planner says.
"""

from collections import deque
from collections.abc import Sequence

from smtpd_ps.contract.messages import Route
from smtpd_ps.contract.settings import ActionSettings, DeliverySettings, MtaLimits
from smtpd_ps.contract.values import Recipient, RouteSource, Status
from smtpd_ps.delivery.connection import Connection, Wiring
from smtpd_ps.delivery.heard import Heard
from smtpd_ps.delivery.outcomes import Outcomes
from smtpd_ps.delivery.tasks import MAX_TRIES, Task
from smtpd_ps.pure.delivery_headers import local_headers
from smtpd_ps.pure.relay_network import Network, Target
from smtpd_ps.pure.relay_planner import Choice, Exhausted, Usage, Wait, choose
from smtpd_ps.pure.smtp_client_events import Answer, ClientOptions, Finished, Mail
from smtpd_ps.runtime.loop import Timer

_RATE = frozenset(("RATE",))
FALLBACK_SECS = 0.3  # until another address of a host that does not answer is tried beside it (RFC 8305 5)


class Pool:
    """One relay. `targets` is None until they are known; tasks wait for them here too."""

    def __init__(
        self,
        wiring: Wiring,
        settings: DeliverySettings,
        action: ActionSettings,
        domain: str,
        network: Network,
        outcomes: Outcomes,
        heard: Heard,
    ) -> None:
        self._heard = heard
        self._wiring = wiring
        self._settings = settings
        self._network = network
        self._outcomes = outcomes
        self.action = action
        self.domain = domain  # of a relay to hosts, the first host's name
        self.limits = self._limits_of(domain)
        self.lmtp = action.kind == "lmtp"
        self.waiting: deque[Task] = deque()
        self.connections: list[Connection] = []
        self.targets: tuple[Target, ...] | None = None
        self.expires = 0.0  # of the targets
        self.sources: tuple[RouteSource, ...] = ()
        self.helo_names: dict[str, str] | None = None
        self.connected_at = float("-inf")
        self.source_used: dict[str, float] = {}
        self.limits_hit: frozenset[str] = frozenset()
        self._turn = 0  # of the sources
        self.draining = False
        self._pause: Timer | None = None  # until the domain may have its next message
        self.starved = False  # mail waits, and every server has all the connections it may have

    # Mail and routes.

    def add(self, task: Task) -> None:
        """Deliver `task` when there is a connection for it."""
        self.waiting.append(task)
        self.pump_soon()

    def route(self, targets: Sequence[Target], expires: float, found: Route | None = None) -> None:
        """Where this relay goes until `expires`, from the sources of `found`."""
        self.targets = tuple(targets)
        self.expires = expires
        if found is not None:
            self.sources = found.sources
            names = found.helo_names
            self.helo_names = None if names is None else {each.address: each.helo for each in names}
        if self.action.kind == "lmtp" or self.action.by_host:
            self.domain = self.targets[0].name.lower()
            self.limits = self._limits_of(self.domain)
        self.pump_soon()

    def _limits_of(self, domain: str) -> MtaLimits:
        own = (limits for limits in self._settings.domain_limits if limits.domain == domain)
        return next(own, self._settings.mta)

    def fail(self, status: Status, text: str, unreachable: bool = False) -> None:
        """End all that waits. `unreachable`: no host can be connected to, but may be soon."""
        waiting, self.waiting = self.waiting, deque()
        for task in waiting:
            if not self.lmtp:
                self._heard.failed(task.recipients, text, unreachable)
            self._outcomes.ended(task, status, text)

    @property
    def unused(self) -> bool:
        """Whether nothing goes on here."""
        return not self.waiting and not self.connections

    @property
    def busy(self) -> int:
        """How many connections have a message under way."""
        return sum(1 for each in self.connections if each.established and not each.client.idle)

    # Matching mail to connections.

    def pump_soon(self) -> None:
        """Look at what waits when this turn ends."""
        self._wiring.loop.at_turn_end(self.pump)

    def pump(self) -> None:
        """Give what waits to connections with room, the idle ones first, and open more where it pays."""
        if self.draining or self.targets is None:
            return
        waiting = self.waiting
        if waiting:
            self._use_idle(self.targets)
        # Behind a message under way only when there is plenty: a slow server must not hold up one
        # message while another connection has nothing to do.
        if len(waiting) >= len(self.connections):
            for connection in self.connections:
                client = connection.client
                if not waiting or self._must_pause():
                    break
                if client.accepts_mail and not client.idle and self._has_room(connection):
                    self._give(connection)
        if waiting and not self._must_pause():
            self._open_more()
            if self.starved:
                self._use_idle(())

    def _use_idle(self, targets: Sequence[Target]) -> None:
        """Give what waits to idle connections to `targets`; with none, to any.

        A connection to a host that the last answer does not name is only used when there can be no other: it is
        another's turn, or the operator has taken the host out of his list.
        """
        for connection in self.connections:
            if not self.waiting or self._must_pause():
                return
            if connection.client.idle and (not targets or connection.target in targets):
                self._use(connection)

    def _give(self, connection: Connection) -> None:
        if rate := self._rate:
            self._network.mail_given(self.domain, rate, self._wiring.loop.now())
        connection.give(self._mail(self.waiting.popleft()))

    @property
    def _rate(self) -> int:
        """Messages a minute, 0 for any number; LMTP is a mailbox here, and has none."""
        return 0 if self.lmtp else self.limits.max_mails_per_minute

    def _must_pause(self) -> bool:
        """Whether the domain has had its messages for now; then what waits is looked at again when it is due."""
        if not self._rate:
            return False
        wait_secs = self._network.mail_due(self.domain) - self._wiring.loop.now()
        if wait_secs <= 0:
            return False
        self.limits_hit = _RATE
        if self._pause is None or not self._pause.live:
            self._pause = self._wiring.loop.call_later(wait_secs, self.pump_soon)
        return True

    def _has_room(self, connection: Connection) -> bool:
        limits = self.limits
        return (
            connection.client.mails < limits.max_mails_per_connection
            and connection.failures < limits.max_failures_per_connection
        )

    def _use(self, connection: Connection) -> None:
        # A message may be refused without being sent.
        while self.waiting and connection.client.idle and not self._must_pause():
            if not self._has_room(connection):
                connection.quit()
                return
            self._give(connection)

    def _open_more(self) -> None:
        now = self._wiring.loop.now()
        opening = 0
        slow: set[Target] = set()
        for each in self.connections:
            if not each.established:
                if each.connected or now - each.dialed_at < FALLBACK_SECS:
                    opening += 1
                else:
                    slow.add(each.target)
        candidates = self._candidates(slow)
        if not candidates:
            opening += len(slow)
        self.starved = False
        self.limits_hit = frozenset()
        wanted = 1 if self._rate else len(self.waiting)
        while self.waiting and wanted > opening:
            match choose(candidates or self.targets or (), self.sources, self._network, self._usage(), now):
                case Choice() as choice:
                    self._open(choice, now)
                    opening += 1
                case Wait(limits):
                    self.starved = True
                    self.limits_hit = limits
                    return
                case Exhausted(text):
                    if not self.connections:
                        self.fail(Status.TEMPFAIL, text, unreachable=True)
                    return

    def _candidates(self, slow: set[Target]) -> Sequence[Target]:
        """While an address of a host does not answer: the others of that host, as good and not yet tried."""
        if not slow:
            return ()
        hosts = {(target.name, target.preference) for target in slow}
        dialed = {each.target for each in self.connections if not each.established}
        return [t for t in self.targets or () if (t.name, t.preference) in hosts and t not in dialed]

    def by_source(self) -> dict[str, int]:
        """How many connections leave from each source."""
        counts: dict[str, int] = {}
        for each in self.connections:
            counts[each.chosen_source] = counts.get(each.chosen_source, 0) + 1
        return counts

    def refuses_source(self, source: str) -> bool:
        """Whether the operator wants no connection from this address for this domain."""
        return bool(self._network.blocks) and source in self._network.blocked_sources(self.domain)

    def _usage(self) -> Usage:
        blocked = self._network.blocked_sources(self.domain) if self._network.blocks else frozenset()
        return Usage(
            self.limits, self.domain, len(self.connections), self.by_source(), self._turn, self.action.name, blocked
        )

    def _open(self, choice: Choice, now: float) -> None:
        options = ClientOptions(
            helo=choice.source.helo or self.action.relay_helo or self._settings.hostname,
            lmtp=choice.target.lmtp,
            tls=self._network.tls_use(choice.target, now),
            user=choice.target.user,
            password=choice.target.password,
        )
        self._turn += 1
        self.connected_at = self.source_used[choice.source.address] = now
        self._network.opened(choice.path, self.domain, now)
        connection = Connection(self._wiring, self, choice, options, self.action.name, self.helo_names)
        connection.counted_domain = self.domain
        self.connections.append(connection)
        if len(self.targets or ()) > 1:
            self._wiring.loop.call_later(FALLBACK_SECS, self.pump_soon)

    def _mail(self, task: Task) -> Mail:
        job = task.job
        prefix = b""
        if self.lmtp:
            prefix = local_headers(job.sender, task.recipients[0].rcpt)
            names = [r.dest if self.action.lmtp_rcpt_to else r.user for r in task.recipients]
        else:
            names = [r.dest for r in task.recipients]
        return Mail(
            task.sender,
            names,
            None if task.fd >= 0 else job.body,
            job.size_bytes + len(prefix),
            job.eight_bit,
            [r.dsn for r in task.recipients],
            task,
            prefix,
        )

    # What connections report.

    def connection_ready(self, connection: Connection) -> None:
        """A session is set up."""
        self._network.worked(connection.path)
        self.pump_soon()

    def connection_finished(self, connection: Connection, finished: Finished) -> None:
        """A transaction is over: report what was decided, try the rest again."""
        task = finished.mail.task
        assert isinstance(task, Task)
        rest: list[Recipient] = []
        answers = finished.answers
        some_taken = any(answer is not None and answer[0] is Status.OK for answer in answers)
        connection.failures += not some_taken
        for recipient, answer in zip(task.recipients, answers, strict=True):
            if answer is None or (some_taken and _is_too_many(answer)):
                rest.append(recipient)
            else:
                self._report(connection, task, recipient, answer, finished.dsn_passed)
        task.recipients = rest
        if not rest:
            task.close()
        elif some_taken:
            self.waiting.appendleft(task)
        else:
            self._again(task, connection)
        self.pump_soon()

    def _again(self, task: Task, connection: Connection) -> None:
        task.tries += 1
        if task.tries < MAX_TRIES:
            self.waiting.appendleft(task)
            return
        for recipient in task.recipients:
            self._report(connection, task, recipient, (Status.TEMPFAIL, connection.error), False)
        task.close()

    def _report(
        self, connection: Connection, task: Task, recipient: Recipient, answer: Answer, dsn_passed: bool
    ) -> None:
        status, text = answer
        if self.lmtp:
            self._outcomes.delivered(connection.session, task, recipient, status, text)
        else:
            self._heard.answered(recipient, status, text)
            self._outcomes.relayed(
                connection.session, task, recipient, status, text, connection.source, connection.relay, dsn_passed
            )

    def connection_closed(self, connection: Connection, error: str) -> None:
        """A connection is gone; where it never came to a session, its server has failed."""
        now = self._wiring.loop.now()
        self.connections.remove(connection)
        self._network.closed(connection.path, connection.counted_domain, now)
        if not connection.established:
            if connection.tls_failed and connection.target.tls == "opportunistic":
                self._network.tls_broken(connection.target, now)
            elif connection.blocked:
                self.fail(Status.TEMPFAIL, error)
            elif not self.draining:
                self._failed(connection, error or "Connection closed unexpectedly", now)
        self.pump_soon()

    def _failed(self, connection: Connection, error: str, now: float) -> None:
        path = connection.path
        if self._network.failed(path, error, now) and not self.lmtp:
            self._wiring.log.info(
                f"smtp-out: Disabling route {path.source or '[]'} <-> {connection.relay} "
                f"for {int(path.penalty_ends - now)}s"
            )

    # Once a second.

    def sweep(self, now: float) -> None:
        """End sessions that nobody needs, and those whose server is silent."""
        for connection in list(self.connections):
            connection.check_deadline(now)
            if connection.client.idle and now - connection.last_used >= self.limits.keepalive_secs:
                connection.quit()

    def drain(self) -> None:
        """Finish what is under way and begin nothing."""
        self.draining = True
        for connection in list(self.connections):
            if not connection.established:
                connection.abort()
            elif connection.client.idle:
                connection.quit()


def _is_too_many(answer: Answer) -> bool:
    """RFC 5321 4.5.3.1.10: 452 to a RCPT after others were taken means "in the next transaction"."""
    return answer[0] is Status.TEMPFAIL and answer[1].startswith("452")
