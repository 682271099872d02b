"""A loop whose time stands still while there is anything to do, so that no timer runs because a machine is busy."""

from smtpd_ps.runtime.loop import Loop

QUIET_SECS = 0.02  # without an event for that long, nothing that was sent is still on its way over loopback


class StillLoop(Loop):
    """When nothing is ready the clock jumps to the next timer, and to nothing else: hours pass in no time."""

    def __init__(self) -> None:
        self._clock = 1000.0
        super().__init__()

    def now(self) -> float:
        """Seconds, as far as they were let pass."""
        return self._clock

    def turn(self, longest_secs: float | None = None) -> None:
        """As Loop's; `longest_secs` are seconds of this clock."""
        if not self._poller.poll(0) and (wait := self._patience(longest_secs)) and not self._poller.poll(QUIET_SECS):
            self._clock += wait
        super().turn(0)
