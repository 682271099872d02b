"""What a process says of sessions, sent to operators who watch it live (`smtpctl_ps trace session`).

Runs in smtp, lookup, queue and delivery. While nobody watches it costs a comparison a line of the log. While
somebody does, each line that is logged and each trace of SUBSYSTEMS goes to control, which passes it on; which
lines are wanted is for smtpctl_ps to find out (pure/session_trace), which sees those of all processes. What
control has not taken is bounded: beyond that, lines are counted and not sent.
"""

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Process
from smtpd_ps.runtime import tracing
from smtpd_ps.runtime.channel import Channel
from smtpd_ps.runtime.log import Log

SUBSYSTEMS = tracing.SMTP | tracing.MTA | tracing.RULES | tracing.EXPAND | tracing.SCHEDULER | tracing.BOUNCE
BACKLOG_BYTES = 256 * 1024
MAX_LINE = 2000  # characters; contract.values.Line takes some more
FOLLOWERS = 8


class Following:
    """Who watches this process. `channel` is that to control."""

    def __init__(self, process: Process, log: Log) -> None:
        self._process = process
        self._log = log
        self.channel: Channel | None = None
        self._clients: set[int] = set()
        self._unsent = 0
        self._sending = False

    def asked(self, message: m.Follow) -> None:
        """An operator begins or ends to watch."""
        if not message.on:
            self._clients.discard(message.client)
        elif len(self._clients) < FOLLOWERS:
            self._clients.add(message.client)
        tracing.attach(self._log.trace)
        tracing.follow(SUBSYSTEMS if self._clients else 0, self._line)
        self._log.follow = self._line if self._clients else None

    def _line(self, text: str) -> None:
        channel = self.channel
        if channel is None or self._sending:  # what is said of the sending itself is left out
            return
        if channel.pending_bytes > BACKLOG_BYTES:
            self._unsent += 1
            return
        self._sending = True
        try:
            unsent, self._unsent = self._unsent, 0
            for client in self._clients:
                channel.send(m.FollowedLine(client, self._process, text[:MAX_LINE], unsent))
        finally:
            self._sending = False
