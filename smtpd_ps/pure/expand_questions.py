"""What an expansion must ask of others: is there such a user, what says a .forward, what an included file.

Used in lookup, where the answers come from the parent. A run of an expansion (pure/expand) names all
that it does not know yet, and is made again once the answers are there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from smtpd_ps.contract.values import Account
from smtpd_ps.pure.expand_targets import Target


class UserState(Enum):
    """What is known of a user of the system."""

    FOUND = 1
    ABSENT = 2
    UNSURE = 3  # the system could not say


@dataclass(frozen=True, slots=True)
class UserQuestion:
    """Is there such a user of the system?"""

    user: str


@dataclass(frozen=True, slots=True)
class ForwardQuestion:
    """What says the .forward of a user: one of the system, or with the `account` of the action's userbase?"""

    action: str  # "" for a user of the system
    user: str
    account: Account | None = None


@dataclass(frozen=True, slots=True)
class IncludeQuestion:
    """What says this file, which an alias includes?"""

    path: str


@dataclass(frozen=True, slots=True)
class Forward:
    """A user and the .forward file.

    "none": the user exists and has none. "absent": no such user. "unsure": nobody can say whether
    there is. "temporary" and "refused": there is one that cannot be used, now or as it is. "found":
    these are its targets. `superuser`: uid 0 owns it. `why` is for the log.
    """

    state: Literal["none", "absent", "unsure", "temporary", "refused", "found"]
    targets: tuple[Target, ...] = ()
    superuser: bool = False
    why: str = ""


@dataclass(frozen=True, slots=True)
class Included:
    """The targets of an included file; None where it cannot be used, for which `why` has the reason."""

    targets: tuple[Target, ...] | None
    why: str = ""


Question = UserQuestion | ForwardQuestion | IncludeQuestion
Answer = UserState | Forward | Included
Known = Callable[[Question], Answer | None]  # None: not asked yet
