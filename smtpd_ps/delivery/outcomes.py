"""What became of each envelope: told to queue in batches, logged as OpenSMTPD does, counted.

Runs in delivery. Texts of remote servers and agents are escaped here, whoever was to do it before.
"""

from collections.abc import Callable

from smtpd_ps.contract.messages import Outcome
from smtpd_ps.contract.values import Recipient, Result, Status
from smtpd_ps.delivery.tasks import Task
from smtpd_ps.pure.duration import duration_text
from smtpd_ps.runtime.log import Log, escape
from smtpd_ps.runtime.loop import Loop

MAX_BATCH = 1024
MAX_TEXT = 2048
_WORDS = {Status.OK: "Ok", Status.TEMPFAIL: "TempFail", Status.PERMFAIL: "PermFail", Status.LOOP: "Loop"}


class Outcomes:
    """Collects results during a turn and sends them at its end."""

    def __init__(self, loop: Loop, log: Log, clock: Callable[[], float]) -> None:
        self._loop = loop
        self._log = log
        self._clock = clock  # Unix time, for the delay
        self._results: list[Result] = []
        self.send: Callable[[Outcome], None] | None = None  # to queue; set before the loop runs

    def relayed(
        self,
        session: str,
        task: Task,
        recipient: Recipient,
        status: Status,
        text: str,
        source: str = "",
        relay: str = "",
        dsn_passed: bool = False,
    ) -> None:
        """One recipient's end at another host. `relay` is "address (name)"."""
        text = escape(text[:MAX_TEXT])[:MAX_TEXT]
        rcpt = recipient.rcpt if recipient.rcpt != recipient.dest else "-"
        delay = duration_text(int(self._clock()) - task.job.created_secs)
        self._log.info(
            f"{session} mta delivery evpid={recipient.evpid:016x} from=<{task.job.sender}> to=<{recipient.dest}> "
            f'rcpt=<{rcpt}> source="{source}" relay="{relay}" delay={delay} result="{_WORDS[status]}" stat="{text}"'
        )
        self._add(Result(recipient.evpid, status, text, relay[:255], dsn_passed))

    def delivered(self, session: str, task: Task, recipient: Recipient, status: Status, text: str) -> None:
        """One recipient's end in a mailbox, an agent's or behind LMTP."""
        text = escape(text[:MAX_TEXT])[:MAX_TEXT]
        delay = duration_text(int(self._clock()) - task.job.created_secs)
        self._log.info(
            f"{session} mda delivery evpid={recipient.evpid:016x} from=<{task.job.sender}> to=<{recipient.dest}> "
            f"rcpt=<{recipient.rcpt}> user={recipient.user} delay={delay} result={_WORDS[status]} stat={text}"
        )
        self._add(Result(recipient.evpid, status, text))

    def ended(self, task: Task, status: Status, text: str) -> None:
        """All that is left of a task that never got anywhere."""
        for recipient in task.recipients:
            if task.action.kind == "relay":
                self.relayed("0000000000000000", task, recipient, status, text)
            else:
                self.delivered("0000000000000000", task, recipient, status, text)
        task.close()

    def _add(self, result: Result) -> None:
        self._results.append(result)
        self._loop.at_turn_end(self.flush)

    def flush(self) -> None:
        """Send what was collected."""
        results, self._results = self._results, []
        assert self.send is not None
        for at in range(0, len(results), MAX_BATCH):
            self.send(Outcome(tuple(results[at : at + MAX_BATCH])))
