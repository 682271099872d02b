"""How an expansion ends: deliveries, a refusal, or questions.

Used in lookup; plain values.
"""

from dataclasses import dataclass

from smtpd_ps.contract.values import TargetSource
from smtpd_ps.pure.expand_questions import Question


@dataclass(frozen=True, slots=True)
class Delivery:
    """One envelope to be: the action, its destination address, and the local user ("" for a relay).

    `target` is "/path" or "|command" where an alias or a .forward (`source`) names one. `forwarded`:
    a relay gets an address that did not come from the client.
    """

    action: str
    dest: str
    user: str
    target: str = ""
    source: TargetSource = ""
    forwarded: bool = False
    extension: str = ""  # the sub-address of the user, in lower case


@dataclass(frozen=True, slots=True)
class Accepted:
    """The recipient is taken."""

    deliveries: tuple[Delivery, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """It is not. `why` is for the log where the operator should hear of it, else ""."""

    code: int
    text: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Needed:
    """Ask these, and expand again."""

    questions: frozenset[Question]


Outcome = Accepted | Refused | Needed

INVALID = Refused(550, "Invalid recipient")
TEMPORARY = Refused(451, "Temporary failure")
NAME_UNKNOWN = Refused(451, "Temporary failure in looking up the name of your host")
LIST_FAILED = Refused(524, "5.2.4 Mailing list expansion problem")
LIST_UNSURE = Refused(424, "4.2.4 Mailing list expansion problem")


def temporary(why: str) -> Refused:
    """451, for a reason that the log names."""
    return Refused(TEMPORARY.code, TEMPORARY.text, why)


def list_unsure(why: str) -> Refused:
    """424, for a reason that the log names."""
    return Refused(LIST_UNSURE.code, LIST_UNSURE.text, why)
