"""What was heard of each domain, and the mail to try at once when it takes some again.

Runs in delivery; texts quote remote servers.
"""

from collections.abc import Callable, Iterable

from smtpd_ps.contract.messages import TryNow
from smtpd_ps.contract.values import Recipient, Status
from smtpd_ps.pure.host_stats import HostStats

MAX_BATCH = 1024  # of a TryNow


class Heard:
    """Between the relays and the table of what was heard. `try_now` is set before the loop runs."""

    def __init__(self, stats: HostStats, clock: Callable[[], float]) -> None:
        self._stats, self._clock = stats, clock
        self.try_now: Callable[[TryNow], None] | None = None

    def answered(self, recipient: Recipient, status: Status, text: str) -> None:
        """A host said this of a recipient; where it took the mail, what waited for its domain is due."""
        domain = recipient.dest.rpartition("@")[2].lower()
        self._stats.told(domain, text, self._clock())
        if status is Status.OK and (evpids := self._stats.release(domain)):
            assert self.try_now is not None
            for at in range(0, len(evpids), MAX_BATCH):
                self.try_now(TryNow(evpids[at : at + MAX_BATCH]))

    def failed(self, recipients: Iterable[Recipient], text: str, unreachable: bool) -> None:
        """There is no host for these; where none can be reached they wait for the first that takes mail."""
        for recipient in recipients:
            domain = recipient.dest.rpartition("@")[2].lower()
            self._stats.told(domain, text, self._clock())
            if unreachable:
                self._stats.defer(domain, recipient.evpid)
