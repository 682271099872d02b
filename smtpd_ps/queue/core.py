"""The queue as a whole: its parts, who calls them, and what is done at the end of a loop turn.

Runs in queue. Handlers only collect; the turn's end commits, reads what is due, and sends it off.
"""

from collections.abc import Callable, Mapping

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import QueueSettings
from smtpd_ps.contract.values import Process, generation_of
from smtpd_ps.queue.desk import Desk
from smtpd_ps.queue.dispatch import Dispatcher
from smtpd_ps.queue.group import Committer
from smtpd_ps.queue.intake import Intake
from smtpd_ps.queue.notices import Notices
from smtpd_ps.queue.quarantine import Quarantine
from smtpd_ps.queue.shared import Shared, Violation
from smtpd_ps.queue.store.protocol import StoreError
from smtpd_ps.queue.window import Window

BLOCKED_MS = 10  # until looking again whether delivery takes more
RELOAD_MS = 1000  # after the store failed to say what is due
# To wait for outcomes. Delivery is drained before queue, so what it has not answered by then it
# did not begin; it is tried again after the start.
DRAIN_SECS = 1.0
LONGEST_SLEEP_MS = 3_600_000  # a wall clock that is set is noticed within this

Handlers = dict[type[m.Message], Callable[..., None]]


class Queue:
    """Constructed confined. Its owner makes the channels with its handlers, and then starts it."""

    def __init__(self, shared: Shared) -> None:
        self._s = shared
        self.notices = Notices(shared)
        self.window = Window(shared, self.notices.add)
        self.committer = Committer(shared, self.window, self.wake)
        self.notices.connect(self.window, self.committer)
        self.intake = Intake(shared, self.committer)
        self.committer.under_way = self.intake.under_way
        self.dispatcher = Dispatcher(shared, self.window, self.committer, self.notices, self.wake)
        self.desk = Desk(shared, self.window, self.committer, self.wake)
        self.quarantine = Quarantine(shared, self.window, self.desk)
        self._alarm_ms: int | None = None
        self._reload_ms = 0  # not before, where the store failed
        self._drained: Callable[[], None] | None = None
        self._drain_until_ms = 0

    def wake(self) -> None:
        """Ask for the work of the turn's end."""
        self._s.timers.at_turn_end(self.pump)

    def start(self) -> None:
        """Recover: sweep files of no message, count, schedule. Raises StoreError, OSError."""
        swept = self._s.bodies.sweep(self._s.store.has)
        if swept:
            self._s.log.info(f"removed {swept} body files of messages that were never accepted")
        self._s.counters.envelopes = self._s.store.count_envelopes()
        self._s.log.info(f"queue holds {self._s.counters.envelopes} envelopes")
        if self._s.reserve is not None:
            self._s.reserve.keep()
        self.intake.start()
        self.wake()

    # Handlers.

    def _guarded(self, kind: type[m.Message], handler: Callable[..., None]) -> Callable[..., None]:
        """A violation ends the process. Messages wake the turn's end, but for the one that only collects."""
        fail, at_turn_end, pump = self._s.fail, self._s.timers.at_turn_end, self.pump
        wakes = kind is not m.RcptAccept

        def handle(message: m.Message) -> None:
            try:
                handler(message)
            except Violation as error:
                fail(str(error))
            if wakes:
                at_turn_end(pump)

        return handle

    def _all(self, handlers: Mapping[type[m.Message], Callable[..., None]]) -> Handlers:
        return {kind: self._guarded(kind, handler) for kind, handler in handlers.items()}

    def lookup_handlers(self, seat: int = 0) -> Handlers:
        """What lookup of a generation says."""
        intake, notices, generation = self.intake, self.notices, generation_of(seat)
        return self._all({
            m.RcptAccept: lambda message: intake.rcpt_accept(generation, message),
            m.BounceRoute: lambda message: notices.bounce_route(generation, message),
        })  # fmt: skip

    def smtp_handlers(self, seat: int) -> Handlers:
        """What the smtp process at `seat` says."""
        intake = self.intake
        return self._all({
            m.Commit: lambda message: intake.commit(seat, message),
            m.BodyOpen: lambda message: intake.body_open(seat, message),
            m.CommitFile: lambda message: intake.commit_file(seat, message),
            m.Abort: lambda message: intake.abort(seat, message),
        })  # fmt: skip

    def delivery_handlers(self, seat: int = 0) -> Handlers:
        """What the delivery process at `seat` says."""
        dispatcher = self.dispatcher
        return self._all({
            m.Outcome: lambda message: dispatcher.outcome(seat, message), m.TryNow: self.desk.try_now,
        })  # fmt: skip

    def control_handlers(self) -> Handlers:
        """What the operator asks."""
        desk = self.desk
        return self._all({
            m.ShowQueue: desk.show_queue, m.ShowEnvelope: desk.show_envelope, m.ShowMessage: desk.show_message,
            m.Schedule: desk.schedule, m.Remove: desk.remove, m.Pause: desk.pause,
            m.PauseEnvelope: desk.pause_envelope, m.Discover: desk.discover,
            m.ShowCorrupt: self.quarantine.show, m.Uncorrupt: self.quarantine.put_back,
            m.ShowStats: desk.show_stats, m.ShowStatus: desk.show_status,
        })  # fmt: skip

    # Generations.

    def configure(self, settings: QueueSettings) -> None:
        """Other settings from now on: what waits takes its action's new definition."""
        self._s.configure(settings)
        self.window.plan_anew()
        self.wake()

    def forget(self, process: Process, seat: int) -> None:
        """A process of an old generation has left, all its work done or never begun."""
        match process:
            case Process.SMTP:
                self.intake.leave(seat)
            case Process.LOOKUP:
                self.notices.ask_again(generation_of(seat))
            case Process.DELIVERY:
                self.dispatcher.take_back(seat)
        self.wake()

    # The end of a turn.

    def pump(self) -> None:
        """Commit, refill, dispatch, and set the alarm for what is due next."""
        self.committer.run()
        now_ms = self._s.now_ms()
        self._alarm_ms = self._alarm_ms if self._alarm_ms is not None and self._alarm_ms > now_ms else None
        failed_lately = 0 < self._reload_ms - now_ms <= RELOAD_MS
        if not self.dispatcher.stopped and not failed_lately and self.window.wanting(now_ms):
            try:
                self.window.refill(now_ms)
                if self.window.wanting(now_ms):
                    self._s.timers.call_later(0, self.wake)
            except StoreError as error:
                self._s.log.error(f"cannot read what is due: {error}")
                self._reload_ms = now_ms + RELOAD_MS
                self._set_alarm(self._reload_ms, now_ms)
        self.dispatcher.run()
        if self._drained is not None:
            self._check_drained(now_ms)
        if self.dispatcher.stopped:
            return
        if self.dispatcher.blocked:
            self._set_alarm(now_ms + BLOCKED_MS, now_ms)
            return
        for due_ms in (self._s.scheduler.next_due_ms(), self.window.wake_ms()):
            if due_ms is not None:
                self._set_alarm(max(due_ms, now_ms + 1), now_ms)

    def _set_alarm(self, when_ms: int, now_ms: int) -> None:
        when_ms = min(when_ms, now_ms + LONGEST_SLEEP_MS)
        if self._alarm_ms is None or when_ms < self._alarm_ms:
            self._alarm_ms = when_ms
            self._s.timers.call_later((when_ms - now_ms) / 1000, self.wake)

    # Stopping.

    def drain(self, drained: Callable[[], None]) -> None:
        """Send nothing more to delivery; call `drained` when nothing is under way."""
        self.dispatcher.stopped = True
        self._drained = drained
        self._drain_until_ms = self._s.now_ms() + int(DRAIN_SECS * 1000)
        self._s.timers.call_later(DRAIN_SECS + 0.01, self.wake)
        self.committer.after(lambda: None)  # do not wait for company
        self.wake()

    def _check_drained(self, now_ms: int) -> None:
        quiet = self.committer.empty and self.intake.idle and not self.window.flights
        if not quiet and now_ms < self._drain_until_ms:
            return
        drained, self._drained = self._drained, None
        try:
            self._s.store.tidy(idle=True)
        except StoreError as error:
            self._s.log.error(f"last checkpoint failed: {error}")
        if drained is not None:
            drained()
