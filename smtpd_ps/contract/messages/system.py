"""What children ask of root and of the private keys.

Loaded in every process. One class a message; the fields are the wire format (runtime/codec).
"""

from typing import Annotated, Literal

from msgspec import Meta

from smtpd_ps.contract.messages.base import Message
from smtpd_ps.contract.values import U32, Line, Name

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


class TableRead(Message, frozen=True):
    """The new table is in use, or (`ok` false) the old one stays; `text` says why, a line an error."""

    client: U32
    ok: bool
    text: Line = ""
    name: Name = ""


# --- smtp and delivery to keys (blocking) ----------------------------------------------------


class Sign(Message, frozen=True):
    """Make a TLS signature. `scheme` is "rsa" (data is a padded block) or "ecdsa" (a digest)."""

    pki: Name
    scheme: Literal["rsa", "ecdsa"]
    data: Annotated[bytes, Meta(max_length=1024)]


class Signature(Message, frozen=True):
    """Empty when keys refuses."""

    data: Annotated[bytes, Meta(max_length=1024)]
