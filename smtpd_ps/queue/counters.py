"""What queue counts, under OpenSMTPD's names (QUIRKS 49), and some of our own.

Runs in queue. Every key is there from the start, as 0.
"""

from dataclasses import dataclass

from smtpd_ps.contract.values import Status


@dataclass(slots=True)
class Counters:
    """Since the start, but for `envelopes` and `inflight`, which are of now."""

    envelopes: int = 0
    inflight: int = 0
    incoming: int = 0
    removed: int = 0
    expired: int = 0
    delivered_ok: int = 0
    tempfail: int = 0
    permfail: int = 0
    loop: int = 0
    bounces: int = 0  # bounce messages stored
    bounce_envelopes: int = 0  # recipients they report
    bounce_queries: int = 0
    commits: int = 0  # messages accepted
    commit_failures: int = 0  # messages refused because the store failed
    syncs: int = 0  # groups written
    damaged: int = 0

    def delivery(self, status: Status) -> None:
        """Count the outcome of an envelope's attempt."""
        match status:
            case Status.OK:
                self.delivered_ok += 1
            case Status.TEMPFAIL:
                self.tempfail += 1
            case Status.PERMFAIL:
                self.permfail += 1
            case Status.LOOP:
                self.loop += 1

    def pairs(self) -> tuple[tuple[str, int], ...]:
        """Key and value, sorted."""
        return tuple(
            sorted(
                {
                    "bounce.envelope": self.bounce_envelopes,
                    "bounce.message": self.bounces,
                    "bounce.session": self.bounce_queries,
                    "queue.bounce": self.bounces,
                    "queue.commit.failed": self.commit_failures,
                    "queue.commit.message": self.commits,
                    "queue.commit.sync": self.syncs,
                    "queue.damaged": self.damaged,
                    "scheduler.delivery.loop": self.loop,
                    "scheduler.delivery.ok": self.delivered_ok,
                    "scheduler.delivery.permfail": self.permfail,
                    "scheduler.delivery.tempfail": self.tempfail,
                    "scheduler.envelope": self.envelopes,
                    "scheduler.envelope.expired": self.expired,
                    "scheduler.envelope.incoming": self.incoming,
                    "scheduler.envelope.inflight": self.inflight,
                    "scheduler.envelope.removed": self.removed,
                }.items()
            )
        )
