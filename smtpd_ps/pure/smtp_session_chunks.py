"""BDAT (RFC 3030): the message of an SMTP session in chunks whose size the client says beforehand.

Runs in smtp on the bytes of one remote client; between pure/smtp_session_mail and pure/smtp_session. A
chunk that is refused is still swallowed to its end, so that nothing of it is taken for a command, and
with it goes the transaction, so that no rest of a message is taken for a whole one.
"""

import re

from smtpd_ps.pure import smtp_replies as say
from smtpd_ps.pure.smtp_intake import SWALLOW_BYTES
from smtpd_ps.pure.smtp_service import Phase, State
from smtpd_ps.pure.smtp_session_base import Chunk
from smtpd_ps.pure.smtp_session_mail import MailSession

_ARGUMENT = re.compile(r"([0-9]{1,18})( +[Ll][Aa][Ss][Tt])?").fullmatch


class ChunkSession(MailSession):
    """What a session does about chunks."""

    __slots__ = ()

    def chunk_wanted(self, argument: str) -> None:
        """BDAT has come. What cannot be read leaves the end of its chunk unknown, and ends the session."""
        found = _ARGUMENT(argument)
        if found is None:
            self._bad_input(say.BAD_CHUNK)
            return
        chunk = self._chunk = Chunk(int(found[1]), found[2] is not None)
        tx = self.transaction
        if chunk.left > 2 * self.service.settings.max_message_bytes + SWALLOW_BYTES:
            self.end("message too big", say.TOO_BIG)
        elif self.service.listener.filter_programs:
            self.refuse_message(say.NOT_SUPPORTED)
        elif tx is None:
            self.refuse_message(say.NOT_NOW)
        elif not tx.accepted:
            self.refuse_message(say.NO_RECIPIENT)
        elif tx.intake is None:
            self.filtered("data", "", "", ChunkSession._chunk_agreed)
        else:
            self.state = State.CHUNK

    def _chunk_agreed(self, _parameter: str, _rest: str) -> None:
        self.data_wanted()

    def _read_chunk(self, data: bytes) -> bytes | None:
        """Feed the chunk; what follows its end, or None when that is not reached."""
        chunk = self._chunk
        assert chunk is not None
        part, rest = data[: chunk.left], data[chunk.left :]
        if part:
            self.active = True
            chunk.left -= len(part)
            if not chunk.refusal and self._pass_on(self._intake.feed(part)):
                return rest
        if chunk.left:
            return None
        self._chunk_ended(chunk)
        return rest

    def _chunk_ended(self, chunk: Chunk) -> None:
        if chunk.refusal:
            self._chunk_refused(chunk.refusal)
        elif chunk.last:
            intake = self._intake
            if not self._pass_on(intake.finish()):
                self._chunk = None
                self._message_ended(intake)
        elif refusal := self._intake.refusal():
            self._chunk_refused(refusal)
        else:
            self._chunk = None
            self.state, self.phase = State.COMMAND, Phase.CHUNKS
            self.reply(say.reply(250, f"2.0.0 {chunk.size} bytes taken"))

    def _chunk_refused(self, line: bytes) -> None:
        self._chunk = None
        self.state = State.COMMAND
        self.drop_transaction()
        self.refuse(line)
        if self._draining:
            self._shut_down()
