"""Delivery: jobs of queue in, outcomes back; each goes to its route's connections or its user's agent.

Runs in delivery. Everything that asks another process does it through a callable set before the
loop runs, so that tests drive this class without processes.
"""

import itertools
import os
from collections.abc import Callable

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ActionSettings, DeliverySettings
from smtpd_ps.contract.values import Job, Recipient, Status
from smtpd_ps.delivery.agent_pool import AgentPool
from smtpd_ps.delivery.connection import Wiring
from smtpd_ps.delivery.dialer import UnixDials
from smtpd_ps.delivery.heard import Heard
from smtpd_ps.delivery.network_desk import NetworkDesk
from smtpd_ps.delivery.outcomes import Outcomes
from smtpd_ps.delivery.pool import Pool
from smtpd_ps.delivery.tasks import Task, previous_deliveries, share_fd
from smtpd_ps.delivery.tls_clients import MakePump
from smtpd_ps.pure.host_stats import HostStats
from smtpd_ps.pure.lmtp_destination import parse_destination
from smtpd_ps.pure.relay_network import Network
from smtpd_ps.pure.relay_planner import targets_of
from smtpd_ps.pure.sender_rewrite import rewrite_sender
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop

NUMBERS = 1_000_000  # of routes, for each of several processes
SWEEP_SECS = 1.0
DRAIN_SECS = 10.0
RETIREMENT_SECS = 600.0  # for the mail that an earlier configuration was given
MAX_DOMAIN = 255  # what a RouteQuery holds
FOREVER = float("inf")
LOOP_TEXT = "554 5.4.6 Loop detected"

Key = tuple[str, str]  # action, domain ("" where the action names hosts)


class Delivery:
    """The whole process but its sockets to others."""

    def __init__(
        self,
        loop: Loop,
        log: Log,
        settings: DeliverySettings,
        make_pump: MakePump,
        clock: Callable[[], float],
        instance: int = 0,
    ) -> None:
        self._loop = loop
        self._log = log
        self._settings = settings
        self._actions = {action.name: action for action in settings.actions}
        self._numbers = itertools.count(1)
        self._clock = clock
        self._srs = None
        if settings.srs is not None:
            from smtpd_ps.pure.srs import Srs  # brings in hashes, which others do without

            self._srs = Srs(settings.srs)
        self.outcomes = Outcomes(loop, log, clock)
        self.dials = UnixDials()
        self.agents = AgentPool(loop, settings, self.outcomes, self._next_number)
        self._wiring = Wiring(
            loop, log, self.dials, make_pump, self._next_number, settings.connect_timeout_secs, settings.io_timeout_secs
        )
        self.reporting = self._wiring.reporting
        self._network = Network(1 + instance * NUMBERS)
        self._stats = HostStats(settings.max_deferred)
        self.heard = Heard(self._stats, clock)
        self.network_desk = NetworkDesk(loop, log, self._network, self._stats, self._pools_now, clock)
        self._pools: dict[Key, Pool] = {}
        self._asked: dict[int, Pool] = {}
        self._asking: set[Pool] = set()
        self.ask_lookup: Callable[[m.RouteQuery], None] | None = None  # these three: set before the loop runs
        self.answer_control: Callable[[m.Message], None] | None = None
        self.drained: Callable[[], None] | None = None
        self._draining = False
        self._done = False
        self._drain_ends = 0.0
        self._retired_until = 0.0  # 0: it is not
        self._was_idle = False

    def _pools_now(self) -> tuple[Pool, ...]:
        return tuple(self._pools.values())

    def _next_number(self) -> int:
        return next(self._numbers) & 0xFFFFFFFF

    def start(self) -> None:
        """Begin to look after connections; once, before the loop runs."""
        self._loop.call_later(SWEEP_SECS, self._sweep)

    # Jobs.

    def deliver(self, message: m.Deliver) -> None:
        """A batch with small bodies."""
        for job in message.jobs:
            self._take(job, -1)

    def deliver_file(self, message: m.DeliverFile, fd: int) -> None:
        """One job whose body is in a file."""
        self._take(message.job, fd)

    def _take(self, job: Job, fd: int) -> None:
        self._was_idle = False
        action = self._actions.get(job.action)
        if self._draining or action is None:
            if action is None:  # configuration and queue disagree: the mail waits until they do again
                task = Task(job, ActionSettings(job.action, "relay"), list(job.recipients), fd)
                self.outcomes.ended(task, Status.TEMPFAIL, "451 4.3.5 The action of this message does not exist")
            elif fd >= 0:
                os.close(fd)
            return
        if action.kind == "relay":
            self._relay_by_senders(job, action, fd)
        else:
            self._deliver_here(job, action, fd)

    def _relay_by_senders(self, job: Job, action: ActionSettings, fd: int) -> None:
        """One task; with SRS one for each sender that recipients are to be shown."""
        if self._srs is None or not action.relay_srs or not job.sender:
            self._relay(Task(job, action, list(job.recipients), fd))
            return
        sender = rewrite_sender(job.sender, action.relay_mail_from)
        groups: dict[str, list[Recipient]] = {}
        for recipient in job.recipients:
            shown = sender
            if recipient.rcpt.lower() != recipient.dest.lower():  # forwarded, as OpenSMTPD understands it
                shown = self._srs.encode(sender, recipient.rcpt.rpartition("@")[2], self._clock())
            groups.setdefault(shown, []).append(recipient)
        self._each_group([Task(job, action, group, -1, shown) for shown, group in groups.items()], fd, self._relay)

    def _relay(self, task: Task) -> None:
        action = task.action
        domain = "" if action.by_host else task.recipients[0].dest.rpartition("@")[2].lower()
        if len(domain) > MAX_DOMAIN or (not domain and not action.by_host):
            self.outcomes.ended(task, Status.PERMFAIL, "550 5.1.2 Bad destination domain")
            return
        self._pool(action, domain).add(task)

    def _deliver_here(self, job: Job, action: ActionSettings, fd: int) -> None:
        try:
            seen = previous_deliveries(job, fd)
        except OSError as error:
            text = f"451 4.3.0 Cannot read the message: {os.strerror(error.errno or 0)}"
            self.outcomes.ended(Task(job, action, list(job.recipients), fd), Status.TEMPFAIL, text)
            return
        groups: list[list[Recipient]] = []
        by_rcpt: dict[str, list[Recipient]] = {}
        for recipient in job.recipients:
            if seen and not seen.isdisjoint((recipient.dest.lower().encode(), recipient.rcpt.lower().encode())):
                self.outcomes.ended(Task(job, action, [recipient]), Status.LOOP, LOOP_TEXT)
            elif action.kind != "lmtp" or recipient.target:
                groups.append([recipient])
            elif recipient.rcpt in by_rcpt:
                by_rcpt[recipient.rcpt].append(recipient)  # one Delivered-To, so one transaction
            else:
                groups.append(by_rcpt.setdefault(recipient.rcpt, [recipient]))
        self._each_group([Task(job, action, group) for group in groups], fd, self._add_here)

    def _each_group(self, tasks: list[Task], fd: int, add: Callable[[Task], None]) -> None:
        """Give every task a descriptor of the same body, and `add` it; `fd` itself goes to the first."""
        for task in tasks[1:]:
            try:
                task.fd = share_fd(fd)
            except OSError as error:
                self.outcomes.ended(task, Status.TEMPFAIL, f"451 4.3.0 {os.strerror(error.errno or 0)}")
            else:
                add(task)
        if tasks:
            tasks[0].fd = fd
            add(tasks[0])
        elif fd >= 0:
            os.close(fd)

    def _add_here(self, task: Task) -> None:
        """Whatever the action, a file or a command is an agent's work."""
        if task.action.kind == "lmtp" and not task.recipients[0].target:
            self._pool(task.action, "").add(task)
        else:
            self.agents.add(task)

    # Routes.

    def _pool(self, action: ActionSettings, domain: str) -> Pool:
        key = (action.name, domain)
        pool = self._pools.get(key)
        if pool is None:
            pool = Pool(self._wiring, self._settings, action, domain, self._network, self.outcomes, self.heard)
            self._pools[key] = pool
            if action.kind == "lmtp" and (target := parse_destination(action.lmtp_destination)) is not None:
                pool.route([target], FOREVER)
        if pool.expires < self._loop.now() and pool not in self._asking:
            query = self._next_number()
            self._asked[query] = pool
            self._asking.add(pool)
            assert self.ask_lookup is not None
            self.ask_lookup(m.RouteQuery(query, action.name, domain))
        return pool

    def route(self, message: m.Route) -> None:
        """Lookup's answer."""
        pool = self._asked.pop(message.query, None)
        if pool is None:
            self._log.warning("lookup answered a route that was not asked for")
            return
        self._asking.discard(pool)
        lmtp = pool.lmtp
        targets = targets_of(message.hosts, "never" if lmtp else pool.action.relay_tls, lmtp)
        if targets:
            pool.route(targets, self._loop.now() + message.ttl_secs, message)
            return
        if message.temporary and pool.targets:  # go on with what was right a moment ago
            pool.route(pool.targets, self._loop.now() + message.ttl_secs)
            return
        pool.targets = None
        text = message.text or "451 4.4.3 No host to deliver to was found"
        pool.fail(Status.TEMPFAIL if message.temporary or not message.text else Status.PERMFAIL, text)

    def outgoing_hooks(self, message: m.OutgoingHooks) -> None:
        """What filters of an action want to be told."""
        if message.action in self._actions:
            self.reporting.hooks[message.action] = message
        else:
            self._log.warning("lookup names an action that does not exist")

    # The parent's answers.

    def agent_refused(self, message: m.AgentRefused) -> None:
        """No agent, or no LMTP socket."""
        if not self.agents.refused(message) and not self.dials.refused(message):
            self._log.warning("the parent refused what was not asked for")

    # Once a second.

    def _sweep(self) -> None:
        now = self._loop.now()
        for key, pool in list(self._pools.items()):
            pool.sweep(now)
            if pool.starved:
                pool.pump_soon()
            if pool.unused and pool.expires < now and pool not in self._asking:
                del self._pools[key]
        self.agents.sweep(now)
        self._network.sweep(now)
        self._stats.sweep(self._clock())
        if self._draining:
            self._check_drained()
        elif self._retired_until:
            self._check_retired(now)
        self._loop.call_later(SWEEP_SECS, self._sweep)

    # The end.

    def retire(self) -> None:
        """Another delivery has taken over: finish what was given, then drain. What takes too long is drained too."""
        self._retired_until = self._loop.now() + RETIREMENT_SECS

    def _check_retired(self, now: float) -> None:
        """Idle through a whole sweep: nothing is on its way from queue any more either."""
        counts = self.counters()
        idle = not (counts["mda.envelope"] or counts["mta.envelope"])
        if (idle and self._was_idle) or now >= self._retired_until:
            self.drain()
        self._was_idle = idle

    def drain(self) -> None:
        """Finish what is under way; what waits stays with queue, unanswered."""
        self._draining = True
        self._drain_ends = self._loop.now() + DRAIN_SECS
        for pool in self._pools.values():
            pool.drain()
        self.agents.drain()
        self._check_drained()

    def _check_drained(self) -> None:
        if self._done:
            return
        busy = self.agents.busy + sum(pool.busy for pool in self._pools.values())
        if busy and self._loop.now() < self._drain_ends:
            self._loop.call_later(0.05, self._check_drained)
            return
        self._done = True
        assert self.drained is not None
        self._loop.at_turn_end(self.drained)

    # The operator.

    def show_stats(self, message: m.ShowStats) -> None:
        """Counters under OpenSMTPD's names (QUIRKS 49)."""
        assert self.answer_control is not None
        self.answer_control(m.Counters(message.client, tuple(sorted(self.counters().items()))))
        self.answer_control(m.Done(message.client, True))

    def counters(self) -> dict[str, int]:
        """What is going on now."""
        relays = [pool for pool in self._pools.values() if not pool.lmtp]
        mailboxes = [pool for pool in self._pools.values() if pool.lmtp]
        sessions = sum(len(pool.connections) for pool in relays)
        tasks = sum(len(pool.waiting) for pool in relays)
        busy = sum(pool.busy for pool in relays)
        local_waiting = self.agents.waiting + sum(len(pool.waiting) for pool in mailboxes)
        local_busy = self.agents.busy + sum(pool.busy for pool in mailboxes)
        return {
            "mda.envelope": local_waiting + local_busy,
            "mda.pending": local_waiting,
            "mda.running": local_busy,
            "mda.user": len(self.agents.agents),
            "mta.connector": len(relays),
            "mta.domain": len({key[1] for key, pool in self._pools.items() if not pool.lmtp}),
            "mta.envelope": busy + sum(len(task.recipients) for pool in relays for task in pool.waiting),
            "mta.host": len(self._network.hosts),
            "mta.relay": len(relays),
            "mta.route": sum(len(pool.targets or ()) for pool in relays),
            "mta.session": sessions,
            "mta.source": len({c.source for pool in relays for c in pool.connections if c.source}),
            "mta.task": tasks + busy,
            "mta.task.running": busy,
        }
