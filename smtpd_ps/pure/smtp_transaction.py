"""One mail transaction of the SMTP server, from MAIL to the reply to its message.

Runs in smtp; parses nothing. Recipients are asked for together and answered in the order in which
the client named them: each takes a slot, and replies leave from the front.
"""

from collections import deque

from smtpd_ps.pure import smtp_replies as say
from smtpd_ps.pure.smtp_intake import Intake
from smtpd_ps.pure.smtp_parameters import MailParameters
from smtpd_ps.pure.smtp_service import UnexpectedAnswer


class Slot:
    """A command of a pipelined group whose reply has not been sent."""

    __slots__ = ("command", "envelopes", "recipient", "reply")

    def __init__(self, command: str, recipient: str, reply: bytes) -> None:
        self.command = command  # for the log
        self.recipient = recipient
        self.reply = reply  # b"" while it is due
        self.envelopes: tuple[int, int] | None = None  # lower half of the first one's id, and how many there are

    @property
    def shown(self) -> str:
        """The recipient as the client wrote it, for filters."""
        return self.command.partition("<")[2].partition(">")[0]


class Transaction:
    """`number` counts a session's transactions; `queue_knows` says whether queue must be told
    when it is dropped.
    """  # fmt: skip

    __slots__ = (
        "_first", "accepted", "id_used", "intake", "msgid", "number", "parameters", "queue_knows", "recipient",
        "sender", "slots", "taken", "unanswered",
    )  # fmt: skip

    def __init__(self, number: int, sender: str, msgid: int, parameters: MailParameters) -> None:
        self.number = number
        self.sender = sender
        self.parameters = parameters
        self.msgid = msgid
        self.accepted = 0
        self.recipient = ""  # the one accepted last
        self.taken: list[tuple[str, int]] = []  # all of them, each with the lower half of its first envelope's id
        self.unanswered = 0  # recipients that lookup or queue will yet answer
        self.queue_knows = False
        self.id_used = False  # queue has seen the message id; else it goes back, or the lease would run dry
        self.intake: Intake | None = None
        self.slots: deque[Slot] = deque()
        self._first = 0  # number of the leftmost slot

    def ask(self, command: str, recipient: str) -> int:
        """A slot for a recipient that lookup is asked about; its number."""
        self.unanswered += 1
        self.slots.append(Slot(command, recipient, b""))
        return self._first + len(self.slots) - 1

    def refuse(self, command: str, reply: bytes) -> None:
        """A slot for a command that is refused already, behind others that are not answered."""
        self.slots.append(Slot(command, "", reply))

    def answer(self, number: int, code: int, text: str, envelopes: tuple[int, int] | None) -> None:
        """Queue has answered recipient `number`, or lookup, without `envelopes`. Raises UnexpectedAnswer."""
        at = number - self._first
        if not 0 <= at < len(self.slots) or self.slots[at].reply:
            raise UnexpectedAnswer(f"an answer to recipient {number}, who is not waiting for one")
        self.unanswered -= 1
        if envelopes is not None:
            self.queue_knows = True
        slot = self.slots[at]
        slot.envelopes = envelopes
        if code // 100 == 2:
            self.accepted += 1
            self.recipient = slot.recipient
            self.taken.append((slot.recipient, envelopes[0] if envelopes is not None else 0))
            slot.reply = say.reply(code, text or "2.1.5 Destination address valid: Recipient ok")
        else:
            slot.reply = say.reply(code, f"{text}: <{slot.recipient}>")

    def next_ready(self) -> Slot | None:
        """Take the next slot whose reply may be sent."""
        if self.slots and self.slots[0].reply:
            self._first += 1
            return self.slots.popleft()
        return None
