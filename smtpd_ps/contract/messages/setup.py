"""Messages that set a child up, let it go and wind it down.

Loaded in every process. One class a message; the fields are the wire format (runtime/codec).
"""

from typing import Annotated, Literal

from msgspec import Meta

from smtpd_ps.contract.messages.base import Message
from smtpd_ps.contract.settings import (
    AgentSettings,
    ControlSettings,
    DeliverySettings,
    KeysSettings,
    LookupSettings,
    QueueSettings,
    SmtpSettings,
)
from smtpd_ps.contract.values import U7, U8, U16, U32, Line, Name, Path, Process, ProgramKind

# --- parent to each child, before Go ---------------------------------------------------------


class KeysSetup(Message, frozen=True):
    """The slice for keys."""

    settings: KeysSettings


class ControlSetup(Message, frozen=True):
    """The slice for control, and whether smtp starts paused (-P smtp)."""

    settings: ControlSettings
    smtp_paused: bool = False


class SmtpSetup(Message, frozen=True):
    """The slice for smtp, and its seat, which its session ids carry."""

    settings: SmtpSettings
    seat: U7 = 0


class LookupSetup(Message, frozen=True):
    """The slice for lookup."""

    settings: LookupSettings


class QueueSetup(Message, frozen=True):
    """The slice for queue, the key of queue encryption, which is never sent again, and what starts paused (-P)."""

    settings: QueueSettings
    key: Annotated[bytes, Meta(max_length=32)] = b""
    mda_paused: bool = False
    mta_paused: bool = False


class DeliverySetup(Message, frozen=True):
    """The slice for delivery, and which of several it is, so that no two number a route alike."""

    settings: DeliverySettings
    instance: U7 = 0


class AgentSetup(Message, frozen=True):
    """The slice for an agent; an mbox comes with it as a descriptor (AgentMailbox)."""

    settings: AgentSettings


class Common(Message, frozen=True):
    """What every child needs to confine itself and to log. First message on every channel."""

    root: Annotated[str, Meta(max_length=1024)]  # directory to chroot to, "" for none
    uid: U32
    gid: U32
    verbose: U8
    foreground: bool  # log to stderr rather than syslog
    privileged: bool  # False: the marked unprivileged mode, no user change and no chroot
    user: Name = ""  # the user's name, for logs
    groups: Annotated[tuple[U32, ...], Meta(max_length=1024)] = ()  # supplementary, agents only
    writable: Annotated[tuple[Path, ...], Meta(max_length=16)] = ()  # paths an agent may write below
    peers: U8 = 0  # how many PeerChannel messages follow the set-up
    assets: U32 = 0  # and how many Asset messages (an agent: AgentMailbox)
    programs: U8 = 0  # and how many Program messages
    commands: bool = False  # an agent that runs commands: the policy is policy.RUNNER
    submits: bool = False  # an agent that submits a message kept by sendmail: policy.SUBMITTER


class PeerChannel(Message, frozen=True):
    """The child's end of its channel to `process` at `seat` (0 for control and queue). Carries the descriptor."""

    process: Process
    seat: U7 = 0


class Asset(Message, frozen=True):
    """A file the parent opened for the child to read, before Go. Carries the descriptor."""

    kind: Literal["table", "cert", "key", "resolv.conf", "hosts", "ca"]
    name: Name


class Program(Message, frozen=True):
    """A filter or table program runs. Carries its standard input to write to, its standard output and
    its standard error to read from. `instance` counts how often it was started.
    """

    kind: ProgramKind
    name: Name
    instance: U32


class ProgramGone(Message, frozen=True):
    """It has ended (`text` says how), and is started again in `restart_secs`."""

    kind: ProgramKind
    name: Name
    instance: U32
    text: Line
    restart_secs: U32


class ProgramFailed(Message, frozen=True):
    """It does not keep to its protocol: end it, and start it again in its time."""

    kind: ProgramKind
    name: Name
    instance: U32


class Listener(Message, frozen=True):
    """A bound and listening socket. Carries the descriptor."""

    index: U16


class Ready(Message, frozen=True):
    """The child is set up, confined, and has checked itself against the policy."""


class Failed(Message, frozen=True):
    """Why the child cannot be set up; it ends. For the operator who asked for a reload."""

    text: Line


class Go(Message, frozen=True):
    """All children are ready: serve."""


class Drain(Message, frozen=True):
    """Take nothing new, finish what is under way, then answer Drained."""


class Drained(Message, frozen=True):
    """Nothing is under way any more."""


# --- generations (docs/decisions/0004) -------------------------------------------------------


class NewPeer(Message, frozen=True):
    """Queue's or control's end of a channel to the process at `seat`. Carries the descriptor."""

    process: Process
    seat: U7


class QueueReload(Message, frozen=True):
    """`generation` serves from now on, and these are the settings."""

    generation: U7
    settings: QueueSettings


class ControlReload(Message, frozen=True):
    """`generation` serves from now on."""

    generation: U7


class Retire(Message, frozen=True):
    """Another generation has taken over: take nothing new, end what is under way in its own time."""


class Retired(Message, frozen=True):
    """No client is accepted any more."""


class TraceMask(Message, frozen=True):
    """Which subsystems are traced from now on (runtime/tracing)."""

    mask: U32


class LogLevel(Message, frozen=True):
    """0 brief, 1 verbose, more for traces."""

    verbose: U8
