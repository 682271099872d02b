"""What children ask of root and of the private keys.

Loaded in every process. One class a message; the fields are the wire format (runtime/codec).
"""

from typing import Annotated, Literal

from msgspec import Meta

from smtpd_ps.contract.messages.base import Message
from smtpd_ps.contract.values import U32, Account, Line, Name, Path

# --- lookup and parent -----------------------------------------------------------------------


class UserQuery(Message, frozen=True):
    """Is there such a system user (getpwnam)?"""

    query: U32
    user: Name


class UserInfo(Message, frozen=True):
    """Found or not; `temporary` when the system could not say."""

    query: U32
    found: bool
    temporary: bool = False


class SystemAuth(Message, frozen=True):
    """A password to check against the system's own database (shadow, PAM or BSD auth)."""

    query: U32
    user: Name
    password: Annotated[str, Meta(max_length=1024)]


class SystemAuthReply(Message, frozen=True):
    """The system's verdict."""

    query: U32
    verdict: Literal["ok", "no", "error"]


class TableFile(Message, frozen=True):
    """A table's file, opened anew, to be read in place of what was read before. Carries the descriptor."""

    client: U32  # the operator who waits for TableRead; 0: nobody, the parent saw that a database is another
    name: Name


class TableUpdate(Message, frozen=True):
    """Have the program of a table read again what it reads."""

    client: U32  # the operator who waits for TableRead
    name: Name


class TableRead(Message, frozen=True):
    """The new table is in use, or (`ok` false) the old one stays; `text` says why, a line an error."""

    client: U32
    ok: bool
    text: Line = ""
    name: Name = ""


# --- expansion: what lookup asks of the parent, and the parent of lookup --------------------


class ForwardOpen(Message, frozen=True):
    """What has this user in the .forward file, if anything?

    The user is one of the system (and the action ""), or the `account` that the action's userbase names.
    """

    query: U32
    action: Name
    user: Name
    account: Account | None = None


class ForwardFile(Message, frozen=True):
    """Its bytes are in the pipe whose descriptor comes with this. `superuser`: uid 0 owns it."""

    query: U32
    superuser: bool


class ForwardNone(Message, frozen=True):
    """There is none; no such user; the system cannot say; or `text` is why there is no delivery, now or ever."""

    query: U32
    verdict: Literal["none", "absent", "unsure", "temporary", "refused"]
    text: Line = ""


class IncludeOpen(Message, frozen=True):
    """A file that an alias includes, to be opened with lookup's own rights."""

    query: U32
    path: Path


class IncludeFile(Message, frozen=True):
    """It is open. Carries the descriptor."""

    query: U32


class IncludeNone(Message, frozen=True):
    """It cannot be read; `text` says why."""

    query: U32
    text: Line = ""


class UserbaseQuery(Message, frozen=True):
    """Who is this user in the userbase of the action?"""

    query: U32
    action: Name
    user: Name


class UserbaseInfo(Message, frozen=True):
    """None: there is no such user, or (`temporary`) nobody can say."""

    query: U32
    account: Account | None = None
    temporary: bool = False


# --- smtp and delivery to keys (blocking) ----------------------------------------------------


class Sign(Message, frozen=True):
    """Make a TLS signature. `scheme` is "rsa" (data is a padded block) or "ecdsa" (a digest)."""

    pki: Name
    scheme: Literal["rsa", "ecdsa"]
    data: Annotated[bytes, Meta(max_length=1024)]


class Signature(Message, frozen=True):
    """Empty when keys refuses."""

    data: Annotated[bytes, Meta(max_length=1024)]
