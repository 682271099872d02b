"""Which accounts get mail, and what the users of a userbase may be.

Runs in the parent, as root. A user of a userbase is whoever lookup says, for an action that has a
userbase; root, and the uids below the floor, are refused whatever it says.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ActionSettings
from smtpd_ps.contract.values import Account
from smtpd_ps.runtime.loop import Loop, Timer

UID_FLOOR = 100  # below it are the system's own users, none of which reads mail
PATIENCE_SECS = 10.0
MAX_HOME_BYTES = 1023

Told = Callable[[Account | None, str], None]  # the account, or why there is none: "" for no such user


def account_refusal(action: ActionSettings | None, account: Account) -> str:
    """Why lookup may not name this account for that action, "" where it may."""
    if action is None or not action.userbase_table:
        return "the action has no userbase"
    if account.uid < UID_FLOOR:
        return f"uid {account.uid} is below {UID_FLOOR}"
    if account.gid == 0:
        return "gid 0 is for root alone"
    home = account.home
    if not home.startswith("/") or ".." in home.split("/") or "\0" in home:
        return "the home is not an absolute path"
    if len(home.encode(errors="replace")) > MAX_HOME_BYTES:
        return "the home is too long"
    return ""


@dataclass(slots=True)
class Userbases:
    """Asks lookup who a user of a userbase is."""

    loop: Loop
    actions: Mapping[str, ActionSettings]
    ask_lookup: Callable[[m.UserbaseQuery], None]
    _waiting: dict[int, tuple[str, Told, Timer]] = field(default_factory=dict)
    _last: int = 0

    def ask(self, action: str, user: str, told: Told) -> None:
        """Call `told` once, later: with the account, or with the reason ("" for no such user) why there is none."""
        self._last = number = self._last % (2**32 - 1) + 1
        timer = self.loop.call_later(PATIENCE_SECS, lambda: self.answered(m.UserbaseInfo(number, temporary=True)))
        self._waiting[number] = (action, told, timer)
        self.ask_lookup(m.UserbaseQuery(number, action, user))

    def answered(self, info: m.UserbaseInfo) -> None:
        """Lookup's answer; one that nobody waits for is dropped."""
        waiting = self._waiting.pop(info.query, None)
        if waiting is None:
            return
        action, told, timer = waiting
        timer.cancel()
        if info.account is None:
            told(None, "the userbase cannot be asked now" if info.temporary else "")
            return
        refusal = account_refusal(self.actions.get(action), info.account)
        told(None if refusal else info.account, refusal)
