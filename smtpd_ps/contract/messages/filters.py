"""Messages between smtp and lookup about a listener's filters, and between delivery and lookup about a relay's.

Lookup applies filters, and knows from PeerQuery which listener's; smtp asks in the phases that the
listener's slice names, and carries out the answer. Of mail that goes out filters are only told.

Loaded in every process. One class a message; the fields are the wire format (runtime/codec).
"""

from typing import Annotated, Literal

from msgspec import Meta

from smtpd_ps.contract.messages.base import Message
from smtpd_ps.contract.settings import FilterEvent, FilterPhase
from smtpd_ps.contract.values import U8, U16, U32, U56, U63, Address, Line, Name

# Message bytes in one FilterData, and how many of a message lookup takes before it has granted any.
FILTER_CHUNK_BYTES = 32_768
FILTER_WINDOW_BYTES = 4096
# Message bytes that lookup sends before smtp has granted more.
FILTER_BACK_WINDOW_BYTES = 262_144


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


class FilterHooks(Message, frozen=True):
    """What the filters of a listener, programs among them, want to be asked and told."""

    listener: U16
    phases: U32  # of FILTER_PHASES
    events: U32  # of FILTER_EVENTS


class FilterReport(Message, frozen=True):
    """Something happened in a session, for programs that want to be told."""

    session: U63
    event: FilterEvent
    parameters: Annotated[tuple[Annotated[str, Meta(max_length=4096)], ...], Meta(max_length=4)] = ()


class FilterData(Message, frozen=True):
    """Bytes of a message, its lines ended by CRLF and no dots doubled: to lookup, and back from the programs.

    Never more than the other end has granted.
    """

    session: U63
    transaction: U32
    data: Annotated[bytes, Meta(max_length=FILTER_CHUNK_BYTES)]
    last: bool = False
    refusal: Line = ""  # back only, and with `last`: why there is no message


class FilterCredit(Message, frozen=True):
    """So many bytes more may be sent of this message."""

    session: U63
    transaction: U32
    size_bytes: U32


class OutgoingHooks(Message, frozen=True):
    """What the filter programs of a relay action want to be told. Before every Route of an action that has some."""

    action: Name
    events: U32  # of FILTER_EVENTS
    seat: U8  # delivery's own: what its sessions are called begins with it


class OutgoingReport(Message, frozen=True):
    """Something happened in a session of delivery's; lookup puts the seat of the sender before its number."""

    session: U56
    action: Name
    event: FilterEvent
    parameters: Annotated[tuple[Annotated[str, Meta(max_length=4096)], ...], Meta(max_length=4)] = ()
