"""Messages of smtpctl_ps, and what answers them.

Loaded in every process. One class a message; the fields are the wire format (runtime/codec).
"""

from typing import Annotated, Literal

from msgspec import Meta

from smtpd_ps.contract.messages.base import Message
from smtpd_ps.contract.values import U8, U32, U63, Address, InlineBody, Line, Name, Process, ProgramKind, StepKind, Text

# --- the operator ----------------------------------------------------------------------------

# `client` numbers the requester; smtpctl_ps sends 0 and control puts its own number in.


class ShowQueue(Message, frozen=True):
    """List envelopes, all or of one message (msgid 0: all)."""

    client: U32
    msgid: U32 = 0


class ShowEnvelope(Message, frozen=True):
    """Print one envelope."""

    client: U32
    evpid: U63


class ShowMessage(Message, frozen=True):
    """Print one message's body (evpid or msgid, as text ids are)."""

    client: U32
    msgid: U32


class Schedule(Message, frozen=True):
    """Try now: an envelope, a message's envelopes, or all (both 0)."""

    client: U32
    evpid: U63 = 0
    msgid: U32 = 0


class Remove(Message, frozen=True):
    """Delete from the queue: an envelope, a message's envelopes, or all."""

    client: U32
    evpid: U63 = 0
    msgid: U32 = 0
    everything: bool = False


class Pause(Message, frozen=True):
    """Pause or resume a part: smtp (accepting), mta (relaying), mda (local delivery)."""

    client: U32
    part: Literal["smtp", "mta", "mda"]
    paused: bool


class PauseEnvelope(Message, frozen=True):
    """Keep envelopes from being tried, or let them be again: one, a message's, or all (both 0)."""

    client: U32
    paused: bool
    evpid: U63 = 0
    msgid: U32 = 0


class Discover(Message, frozen=True):
    """Look at the store for an envelope, or a message's envelopes, that are due."""

    client: U32
    evpid: U63 = 0
    msgid: U32 = 0


class ShowCorrupt(Message, frozen=True):
    """List the messages that are damaged."""

    client: U32


class Uncorrupt(Message, frozen=True):
    """Put a damaged message back that can be read after all; all such where msgid is 0."""

    client: U32
    msgid: U32 = 0


class ShowStats(Message, frozen=True):
    """Counters, from every process that counts."""

    client: U32


class ShowStatus(Message, frozen=True):
    """What is paused."""

    client: U32


class ShowProcesses(Message, frozen=True):
    """The process table, for audit."""

    client: U32


class SetLog(Message, frozen=True):
    """log brief, log verbose."""

    client: U32
    verbose: U8


class Trace(Message, frozen=True):
    """Say in the log what a subsystem does, or (`profile`) how long it takes; or stop that."""

    client: U32
    subsystem: Name
    on: bool
    profile: bool = False


class Follow(Message, frozen=True):
    """Send on what is logged and traced of sessions, or send no more. Ends when the operator goes."""

    client: U32
    on: bool


class FollowedLine(Message, frozen=True):
    """A line of a process, as it would be logged; `unsent` lines were left out before it."""

    client: U32
    process: Process
    text: Line
    unsent: U32 = 0


class Reload(Message, frozen=True):
    """Read the configuration again. Done when it serves, or with what is wrong with it."""

    client: U32


class Stop(Message, frozen=True):
    """Stop the daemon in order."""

    client: U32


class UpdateTable(Message, frozen=True):
    """Read a table's file again. A name; the path is the one in smtpd.conf."""

    client: U32
    name: Name


class Explain(Message, frozen=True):
    """What would be done with mail of this client, sender and recipient? Nothing is done with any."""

    client: U32
    address: Name  # "local" for the local socket
    helo: Name
    user: Name  # "" for a client that has not authenticated
    tls: bool
    tag: Name
    sender: Address
    recipient: Address


class ExplainStep(Message, frozen=True):
    """One step of the way to the decision; `depth` counts the expansions above it."""

    client: U32
    depth: U8
    kind: StepKind
    subject: Line  # what the step is about: an address, a user, a key, a host
    text: Line


class Counters(Message, frozen=True):
    """key, value pairs."""

    client: U32
    values: Annotated[tuple[tuple[Name, U63], ...], Meta(max_length=1024)]


class TextPart(Message, frozen=True):
    """Part of an answer, as text to print."""

    client: U32
    text: Text


class BytesPart(Message, frozen=True):
    """Part of an answer that is message bytes."""

    client: U32
    data: InlineBody


class QueueRow(Message, frozen=True):
    """One envelope of `show queue` (QUIRKS 46)."""

    client: U32
    evpid: U63
    family: Literal["inet4", "inet6", "local"]
    kind: Literal["mda", "mta", "bounce"]
    flags: Name
    sender: Address
    rcpt: Address
    dest: Address
    created_secs: U63
    expires_secs: U63
    last_try_secs: U63
    tries: U32
    state: Literal["pending", "inflight", "offline"]
    wait_secs: U63
    error: Line


class CorruptRow(Message, frozen=True):
    """One message of `show corrupt`."""

    client: U32
    msgid: U32
    envelopes: U32  # as far as that is known
    reason: Line


class ProcessRow(Message, frozen=True):
    """One live process, as the parent knows it."""

    client: U32
    process: Process
    generation: U8
    pid: U32
    user: Name
    root: Annotated[str, Meta(max_length=1024)]
    privileged: bool
    detail: Line = ""
    configured: U8 = 1  # processes of this kind in a generation
    commands: bool = False  # an agent under policy.RUNNER
    submits: bool = False  # an agent under policy.SUBMITTER


class ProgramRow(Message, frozen=True):
    """One filter or table program that runs, as the parent knows it."""

    client: U32
    kind: ProgramKind
    name: Name
    index: U8  # its generation
    pid: U32
    user: Name
    group: Name
    root: Annotated[str, Meta(max_length=1024)]
    privileged: bool


class ShowPrograms(Message, frozen=True):
    """How the filter or table programs of the serving generation do."""

    client: U32
    kind: ProgramKind


class ProgramState(Message, frozen=True):
    """One program, as lookup knows it. Latencies are percentiles of the newest answers, in microseconds."""

    client: U32
    kind: ProgramKind
    name: Name
    state: Literal["running", "registering", "not running"]
    starts: U32
    in_flight: U32
    asked: U63
    failed: U63  # answered with an error, late or not at all
    p50_usecs: U63 = 0
    p95_usecs: U63 = 0
    p99_usecs: U63 = 0
    offers: Line = ""  # what it registered, with blanks between


class Done(Message, frozen=True):
    """End of an answer. `count` is of envelopes concerned."""

    client: U32
    ok: bool
    text: Line = ""
    count: U32 = 0
