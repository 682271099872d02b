"""`smtpctl_ps monitor`: 13 numbers each second, as OpenSMTPD prints them (QUIRKS 48); `top` shows them on a screen.

Runs in the operator's command; what it shows are numbers that the daemon counted.
"""

import time
from collections.abc import Mapping
from typing import NamedTuple

from smtpd_ps.cli.ask import Conversation

HEADER_LINES = 25
HEADER = (
    "--- client ---  -- envelope --   ---- relay/delivery --- ------- misc -------\n"
    "curr conn disc  curr  enq  deq   ok tmpfail prmfail loop expire remove bounce"
)


class Digest(NamedTuple):
    """Totals since the start of the daemon."""

    connected: int = 0
    disconnected: int = 0
    enqueued: int = 0
    dequeued: int = 0
    ok: int = 0
    tempfail: int = 0
    permfail: int = 0
    loop: int = 0
    expired: int = 0
    removed: int = 0
    bounced: int = 0

    def since(self, earlier: "Digest") -> "Digest":
        """What came on top; nothing is below 0 (a retired generation takes its counters with it)."""
        return Digest(*(max(0, now - then) for now, then in zip(self, earlier, strict=True)))


def digest(counters: Mapping[str, int], envelopes_at_first: int) -> Digest:
    """The totals of `show stats`. `envelopes_at_first`: in the queue when the daemon, or the caller, began."""

    def count(name: str) -> int:
        return counters.get(name, 0)

    incoming, there = count("scheduler.envelope.incoming"), count("scheduler.envelope")
    return Digest(
        count("smtp.session.opened"), count("smtp.session.closed"), incoming,
        max(0, envelopes_at_first + incoming - there), count("scheduler.delivery.ok"),
        count("scheduler.delivery.tempfail"), count("scheduler.delivery.permfail"), count("scheduler.delivery.loop"),
        count("scheduler.envelope.expired"), count("scheduler.envelope.removed"), count("bounce.envelope"),
    )  # fmt: skip


def line(counters: Mapping[str, int], change: Digest) -> str:
    """The first and the fourth number are of now, the others of the time since the line before."""
    sessions, envelopes = counters.get("smtp.session", 0), counters.get("scheduler.envelope", 0)
    return (
        f"{sessions:4} {change.connected:4} {change.disconnected:4}  "
        f"{envelopes:4} {change.enqueued:4} {change.dequeued:4} "
        f"{change.ok:4}    {change.tempfail:4}    {change.permfail:4} {change.loop:4}   "
        f"{change.expired:4}   {change.removed:4}   {change.bounced:4}"
    )


def monitor(state_dir: str | None, seconds: float = 1.0) -> int:
    """Print a line a second until interrupted. The first line is of all time since the start."""
    with Conversation(state_dir) as conversation:
        before = Digest()
        first: int | None = None
        number = 0
        try:
            while True:
                counters = conversation.counters()
                if first is None:
                    first = max(0, counters.get("scheduler.envelope", 0) - counters["scheduler.envelope.incoming"])
                now = digest(counters, first)
                if number % HEADER_LINES == 0:
                    print(("\n" if number else "") + HEADER)
                print(line(counters, now.since(before)), flush=True)  # a pipe hears of it at once, too
                before, number = now, number + 1
                time.sleep(seconds)
        except KeyboardInterrupt:
            return 0
