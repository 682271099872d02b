"""What the parts of the queue share: clock, timers, settings, store, ids, counters.

Runs in queue. The parts are constructed with one `Shared` and know each other only through
their public methods; tests hand in their own clock and timers.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from smtpd_ps.contract.messages import Message
from smtpd_ps.contract.settings import ActionSchedule, QueueSettings
from smtpd_ps.pure.scheduler import Limits, RouteKey, Scheduler, route_key
from smtpd_ps.pure.scheduler_times import Curve, curve
from smtpd_ps.queue.bodies import BodyFiles
from smtpd_ps.queue.counters import Counters
from smtpd_ps.queue.ids import IdSpace, OwnIds
from smtpd_ps.queue.reserve import Reserve
from smtpd_ps.queue.store.protocol import Store
from smtpd_ps.queue.store.records import StoredEnvelope

ROUTE_ENVELOPES = 500
INFLIGHT_BYTES = 32 * 1024 * 1024


ACTION_GONE = "4.3.5 Action is configured no more"


class Violation(Exception):
    """A peer said what it may not say; it ends the daemon."""


class Sender(Protocol):
    """As much of runtime.channel.Channel as the queue needs."""

    pending_bytes: int

    def send(self, message: Message, *fds: int) -> None:
        """Queue a message for the end of the turn."""

    def flush(self) -> None:
        """Send what is queued now."""


class Peers:
    """The sending ends of the channels. Set by the owner before the queue starts."""

    smtp: dict[int, Sender]  # of all generations, by seat
    lookup: Sender
    deliveries: tuple[tuple[int, Sender], ...]  # of the generation that serves, with their seats
    control: Sender
    generation: int = 0  # that serves


class Timers(Protocol):
    """As much of runtime.loop.Loop as the queue needs."""

    def call_later(self, delay_secs: float, callback: Callable[[], None]) -> object:
        """Run once, later."""

    def at_turn_end(self, callback: Callable[[], None]) -> None:
        """Run once at the end of this turn."""


class Logger(Protocol):
    """As much of runtime.log.Log as the queue needs."""

    def error(self, text: str) -> None:
        """Something failed."""

    def warning(self, text: str) -> None:
        """Something is off."""

    def info(self, text: str) -> None:
        """An event."""

    def debug(self, text: str) -> None:
        """A detail."""


@dataclass(slots=True)
class Shared:
    """See the module. `now_ms` is Unix milliseconds; `fail` ends the process."""

    settings: QueueSettings
    store: Store
    bodies: BodyFiles
    peers: Peers
    timers: Timers
    log: Logger
    now_ms: Callable[[], int]
    fail: Callable[[str], NoReturn]
    reserve: Reserve | None = None
    ids: IdSpace = field(init=False)
    own_ids: OwnIds = field(init=False)
    counters: Counters = field(default_factory=Counters)
    scheduler: Scheduler = field(init=False)
    actions: dict[str, ActionSchedule] = field(init=False)
    curves: dict[str, Curve] = field(init=False)
    _local: Curve = field(init=False)

    def __post_init__(self) -> None:
        self.ids = IdSpace(self.store.any_in)
        self.own_ids = OwnIds(self.ids)
        self.scheduler = Scheduler(self._limits())
        self._read_settings()

    def configure(self, settings: QueueSettings) -> None:
        """Other settings from now on. What was planned with the old ones is to be planned anew."""
        self.settings = settings
        self.scheduler.limit(self._limits())
        self._read_settings()

    def _limits(self) -> Limits:
        return Limits(self.settings.max_inflight, ROUTE_ENVELOPES, INFLIGHT_BYTES)

    def _read_settings(self) -> None:
        coder = self.bodies.coder  # the store's too
        coder.compress, coder.encrypt = self.settings.compress, self.settings.encrypt and coder.has_key
        self.actions = {action.name: action for action in self.settings.actions}
        self.curves = {a.name: curve(self.settings, a.shape, a.ttl_secs) for a in self.settings.actions}
        self._local = curve(self.settings, "agent", 0)

    def key_of(self, stored: StoredEnvelope) -> RouteKey:
        """The route of an envelope. An action that is configured no more has one of its own."""
        envelope = stored.envelope
        action = self.actions.get(envelope.action)
        if action is None:
            return ("mda", envelope.action, "")
        if envelope.target:  # a file or a command has an agent, whatever the action
            return route_key("agent", envelope.action, envelope.user, envelope.dest)
        return route_key(action.shape, envelope.action, envelope.user, envelope.dest)

    def curve_of(self, stored: StoredEnvelope) -> Curve:
        """Its retry curve; an action that is configured no more has the local one."""
        return self.curves.get(stored.envelope.action, self._local)

    def expires_ms(self, stored: StoredEnvelope, created_ms: int) -> int:
        """When the envelope is given up."""
        return self.curve_of(stored).expires_ms(created_ms, stored.envelope.internal)
