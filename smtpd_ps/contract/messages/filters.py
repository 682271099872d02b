"""Messages between smtp and lookup about a listener's filters.

Lookup applies filters, and knows from PeerQuery which listener's; smtp asks in the phases that the
listener's slice names, and carries out the answer. No other process hears of them.

Loaded in every process. One class a message; the fields are the wire format (runtime/codec).
"""

from typing import Annotated, Literal

from msgspec import Meta

from smtpd_ps.contract.messages.base import Message
from smtpd_ps.contract.settings import FilterPhase
from smtpd_ps.contract.values import U32, U63, Address, Line, Name


class FilterRequest(Message, frozen=True):
    """What do the filters say of this command? Always answered by one FilterAnswer of the same number."""

    session: U63
    number: U32  # counts a session's requests
    phase: FilterPhase
    parameter: Annotated[str, Meta(max_length=2048)]  # of the command; without the brackets of an address
    helo: Name
    sender: Address  # of the transaction, "" without one


class FilterAnswer(Message, frozen=True):
    """Carry on, also as junk or with another parameter (`text`), or refuse with the reply `text`."""

    session: U63
    number: U32
    decision: Literal["proceed", "junk", "rewrite", "reject", "disconnect"]
    text: Line = ""  # a reply begins with its code, 4xx or 5xx
