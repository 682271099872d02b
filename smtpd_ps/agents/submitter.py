"""An agent that submits one message which sendmail kept, over smtp's local socket, and ends.

Runs in agents, as the user whose message it is (what root kept: as one who owns nothing), confined by
policy.SUBMITTER; reads that user's file and smtp's replies. Its exit status is all that the parent hears.
"""

import os
import socket
import time
from collections.abc import Iterator

from smtpd_ps.contract.settings import AgentSettings
from smtpd_ps.contract.values import Dsn, Status
from smtpd_ps.pure.bounce import Notice, NoticeRecipient, build_notice
from smtpd_ps.pure.offline_mail import EXIT_LATER, EXIT_REFUSED, MAX_HEAD_BYTES, Envelope, OfflineError, parse_head
from smtpd_ps.pure.smtp_client_events import Answer, ClientOptions, Mail
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.smtp_dialogue import Dialogue, DialogueError

TIMEOUT_SECS = 300.0
READ_BYTES = 65_536
MAX_RETURNED_BYTES = 65_536  # of a message that is returned to its sender


class Submitter:
    """`connection` is connected to smtp; `fd` is the file called `name`."""

    def __init__(self, name: str, fd: int, connection: socket.socket, settings: AgentSettings, log: Log) -> None:
        self._name = name
        self._fd = fd
        self._settings = settings
        self._log = log
        connection.settimeout(TIMEOUT_SECS)
        self._dialogue = Dialogue(connection, ClientOptions("localhost"), abandon=_any_temporary)

    def run(self) -> int:
        """Submit it; 0 when smtp has taken the message, or the notice of why it does not."""
        try:
            head = os.pread(self._fd, MAX_HEAD_BYTES, 0)
            envelope, start = parse_head(self._name, head)
            size_bytes = os.fstat(self._fd).st_size - start
            self._dialogue.open()
            answers = self._send(envelope, start, size_bytes)
        except OfflineError as error:
            self._log.warning(f"offline mail: {self._name}: {error}")
            return EXIT_REFUSED
        except (OSError, DialogueError) as error:
            self._log.info(f"offline mail: {self._name} is not taken now: {error}")
            return EXIT_LATER
        statuses = {Status.TEMPFAIL if answer is None else answer[0] for answer in answers}
        if Status.TEMPFAIL in statuses:
            self._log.info(f"offline mail: {self._name} is not taken now: {_text(answers)}")
            return EXIT_LATER
        told = Status.PERMFAIL not in statuses or self._return(envelope, answers, start)
        self._dialogue.close()
        self._log.info(f"offline mail: {self._name} from <{envelope.sender}> submitted: {_text(answers)}")
        return 0 if told or Status.OK in statuses else EXIT_REFUSED

    def _send(self, envelope: Envelope, start: int, size_bytes: int) -> list[Answer | None]:
        recipients = list(envelope.recipients)
        dsn = [Dsn(envelope.notify, "", envelope.ret, envelope.envid)] * len(recipients)
        mail = Mail(envelope.sender, recipients, None, size_bytes, envelope.eight_bit, dsn)
        return self._dialogue.send(mail, self._body(start)).answers

    def _body(self, start: int) -> Iterator[bytes]:
        while data := os.pread(self._fd, READ_BYTES, start):
            start += len(data)
            yield data

    def _return(self, envelope: Envelope, answers: list[Answer | None], start: int) -> bool:
        """Tell the sender who does not get it; whether smtp has taken the notice."""
        if not envelope.sender:
            return False
        now_secs = int(time.time())
        notice, eight_bit = build_notice(
            Notice(
                "failed", self._settings.hostname, envelope.sender,
                tuple(
                    NoticeRecipient(recipient, recipient, answer[1], last_try_secs=now_secs)
                    for recipient, answer in zip(envelope.recipients, answers, strict=True)
                    if answer is not None and answer[0] is Status.PERMFAIL
                ),
                int(os.fstat(self._fd).st_mtime), now_secs, self._name,
                os.pread(self._fd, MAX_RETURNED_BYTES, start), full=False, envid=envelope.envid,
            )
        )  # fmt: skip
        try:
            finished = self._dialogue.send(Mail("", [envelope.sender], None, len(notice), eight_bit), (notice,))
        except DialogueError as error:
            self._log.warning(f"offline mail: {self._name}: <{envelope.sender}> is not told: {error}")
            return False
        (answer,) = finished.answers
        told = answer is not None and answer[0] is Status.OK
        if not told:
            self._log.warning(f"offline mail: {self._name}: <{envelope.sender}> is not told: {_text([answer])}")
        return told


def _any_temporary(refusals: list[Answer]) -> bool:
    """Whether the message goes to nobody now: otherwise some would get it again and again."""
    return any(status is not Status.PERMFAIL for status, _text in refusals)


def _text(answers: list[Answer | None]) -> str:
    """What was answered first to a recipient who does not get it."""
    return next((text for status, text in filter(None, answers) if status is not Status.OK), "taken")
