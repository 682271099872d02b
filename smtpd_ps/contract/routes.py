"""Who may send which message to whom, in which phase, with how many descriptors.

The one table that runtime/channel checks at both ends and that docs/ARCHITECTURE.md's matrix
is generated from. A message that is not here cannot be sent. Loaded in every process.
"""

from dataclasses import dataclass

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Phase, Process

KIB = 1024
MIB = 1024 * KIB

_SETUP, _RUN, _DRAIN = Phase.SETUP, Phase.RUN, Phase.DRAIN
_SERVE = _RUN | _DRAIN
_ANY = _SETUP | _RUN | _DRAIN

PARENT, KEYS, CONTROL, SMTP, LOOKUP, QUEUE, DELIVERY, AGENT, CLIENT = Process
CHILDREN = (KEYS, CONTROL, SMTP, LOOKUP, QUEUE, DELIVERY)
LASTING = (CONTROL, QUEUE)  # live as long as the daemon
GENERATION = (KEYS, SMTP, LOOKUP, DELIVERY)  # hold the configuration, and are started anew with each


@dataclass(frozen=True, slots=True)
class Route:
    """One row: `message`, number `number` on the wire, may go from a sender to a receiver."""

    number: int
    message: type[m.Message]
    hops: tuple[tuple[Process, Process], ...]
    phase: Phase
    max_bytes: int  # of the payload
    fds: tuple[str, ...] = ()  # kind of each descriptor it carries
    answer: str = ""  # what answers it, for the documentation


def _fan(sender: Process, receivers: tuple[Process, ...]) -> tuple[tuple[Process, Process], ...]:
    return tuple((sender, receiver) for receiver in receivers)


def _gather(senders: tuple[Process, ...], receiver: Process) -> tuple[tuple[Process, Process], ...]:
    return tuple((sender, receiver) for sender in senders)


_ASKED = (QUEUE, SMTP, DELIVERY, PARENT)
_TO_CLIENT = (*_gather(_ASKED, CONTROL), (CONTROL, CLIENT))
_OF_NETWORK = ((DELIVERY, CONTROL), (CONTROL, CLIENT))
_BODY = 80 * KIB  # an inline body and its fields

ROUTES: tuple[Route, ...] = (
    # Setting up and winding down.
    Route(1, m.Common, (*_fan(PARENT, CHILDREN), (PARENT, AGENT)), _SETUP, 4 * KIB),
    Route(2, m.KeysSetup, _fan(PARENT, (KEYS,)), _SETUP, 256 * KIB),
    Route(3, m.ControlSetup, _fan(PARENT, (CONTROL,)), _SETUP, 4 * KIB),
    Route(4, m.SmtpSetup, _fan(PARENT, (SMTP,)), _SETUP, 1 * MIB),
    Route(5, m.LookupSetup, _fan(PARENT, (LOOKUP,)), _SETUP, 64 * MIB),
    Route(6, m.QueueSetup, _fan(PARENT, (QUEUE,)), _SETUP, 4 * MIB),
    Route(7, m.DeliverySetup, _fan(PARENT, (DELIVERY,)), _SETUP, 16 * MIB),
    Route(8, m.AgentSetup, _fan(PARENT, (AGENT,)), _SETUP, 16 * KIB),
    Route(9, m.PeerChannel, (*_fan(PARENT, CHILDREN), (PARENT, AGENT)), _SETUP, 64, ("channel",)),
    Route(10, m.Asset, _fan(PARENT, (KEYS, SMTP, LOOKUP, DELIVERY)), _SETUP, 1 * KIB, ("file",)),
    Route(11, m.Listener, _fan(PARENT, (SMTP, CONTROL)), _SETUP, 64, ("listener",)),
    Route(12, m.Ready, (*_gather(CHILDREN, PARENT), (AGENT, PARENT)), _SETUP, 64),
    Route(13, m.Go, _fan(PARENT, CHILDREN), _SETUP, 64),
    Route(14, m.Drain, _fan(PARENT, (SMTP, DELIVERY, QUEUE)), _SERVE, 64, answer="Drained"),
    Route(15, m.Drained, _gather((SMTP, DELIVERY, QUEUE), PARENT), _DRAIN, 64),
    Route(16, m.LogLevel, _fan(PARENT, CHILDREN), _SERVE, 64),
    # A client's session: who it is, whether it may.
    Route(20, m.PeerQuery, ((SMTP, LOOKUP),), _SERVE, 2 * KIB, answer="PeerInfo"),
    Route(21, m.PeerInfo, ((LOOKUP, SMTP),), _SERVE, 1 * KIB),
    Route(22, m.AuthRequest, ((SMTP, LOOKUP),), _SERVE, 4 * KIB, answer="AuthReply"),
    Route(23, m.AuthReply, ((LOOKUP, SMTP),), _SERVE, 64),
    Route(24, m.RcptRequest, ((SMTP, LOOKUP),), _SERVE, 8 * KIB, answer="RcptRefuse, or RcptReply from queue"),
    Route(25, m.RcptRefuse, ((LOOKUP, SMTP),), _SERVE, 16 * KIB),
    Route(26, m.SessionEnd, ((SMTP, LOOKUP),), _SERVE, 64),
    Route(27, m.RcptAccept, ((LOOKUP, QUEUE),), _SERVE, 16 * MIB, answer="RcptReply to smtp"),
    Route(28, m.BounceQuery, ((QUEUE, LOOKUP),), _SERVE, 4 * KIB, answer="BounceRoute"),
    Route(29, m.BounceRoute, ((LOOKUP, QUEUE),), _SERVE, 16 * MIB),
    # The message itself.
    Route(30, m.IdLease, ((QUEUE, SMTP),), _SERVE, 32 * KIB),
    Route(31, m.RcptReply, ((QUEUE, SMTP),), _SERVE, 16 * KIB),
    Route(32, m.Commit, ((SMTP, QUEUE),), _SERVE, _BODY, answer="Committed"),
    Route(33, m.BodyOpen, ((SMTP, QUEUE),), _SERVE, 64, answer="BodyFile or BodyRefused"),
    Route(34, m.BodyFile, ((QUEUE, SMTP),), _SERVE, 64, ("body, write-only",)),
    Route(35, m.BodyRefused, ((QUEUE, SMTP),), _SERVE, 16 * KIB),
    Route(36, m.CommitFile, ((SMTP, QUEUE),), _SERVE, 64, answer="Committed"),
    Route(37, m.Committed, ((QUEUE, SMTP),), _SERVE, 16 * KIB),
    Route(38, m.Abort, ((SMTP, QUEUE),), _SERVE, 64),
    # Delivery.
    Route(40, m.Deliver, ((QUEUE, DELIVERY),), _SERVE, 16 * MIB, answer="Outcome"),
    Route(41, m.DeliverFile, ((QUEUE, DELIVERY),), _SERVE, 4 * MIB, ("body, read-only",), "Outcome"),
    Route(42, m.Outcome, ((DELIVERY, QUEUE),), _SERVE, 16 * MIB),
    Route(43, m.RouteQuery, ((DELIVERY, LOOKUP),), _SERVE, 2 * KIB, answer="Route"),
    Route(44, m.Route, ((LOOKUP, DELIVERY),), _SERVE, 4 * MIB),
    Route(45, m.AgentStart, ((DELIVERY, PARENT),), _SERVE, 2 * KIB, answer="AgentReady or AgentRefused"),
    Route(46, m.AgentReady, ((PARENT, DELIVERY),), _SERVE, 64, ("channel",)),
    Route(47, m.AgentRefused, ((PARENT, DELIVERY),), _SERVE, 16 * KIB),
    Route(48, m.LmtpConnect, ((DELIVERY, PARENT),), _SERVE, 2 * KIB, answer="LmtpConnected or AgentRefused"),
    Route(49, m.LmtpConnected, ((PARENT, DELIVERY),), _SERVE, 64, ("lmtp",)),
    Route(50, m.AgentMailbox, ((PARENT, AGENT),), _SETUP, 64, ("mailbox",)),
    Route(51, m.AgentJob, ((DELIVERY, AGENT),), _SERVE, _BODY, answer="AgentResult"),
    Route(52, m.AgentJobFile, ((DELIVERY, AGENT),), _SERVE, 16 * KIB, ("body, read-only",), "AgentResult"),
    Route(53, m.AgentResult, ((AGENT, DELIVERY),), _SERVE, 16 * KIB),
    # System users.
    Route(60, m.UserQuery, ((LOOKUP, PARENT),), _SERVE, 1 * KIB, answer="UserInfo"),
    Route(61, m.UserInfo, ((PARENT, LOOKUP),), _SERVE, 64),
    Route(62, m.SystemAuth, ((LOOKUP, PARENT),), _SERVE, 4 * KIB, answer="SystemAuthReply"),
    Route(63, m.SystemAuthReply, ((PARENT, LOOKUP),), _SERVE, 64),
    # Tables read again.
    Route(64, m.TableFile, ((PARENT, LOOKUP),), _SERVE, 1 * KIB, ("file",), "TableRead"),
    Route(65, m.TableRead, ((LOOKUP, PARENT),), _SERVE, 16 * KIB),
    # Signatures, on a blocking channel of their own.
    Route(70, m.Sign, _gather((SMTP, DELIVERY), KEYS), _ANY, 2 * KIB, answer="Signature"),
    Route(71, m.Signature, _fan(KEYS, (SMTP, DELIVERY)), _ANY, 2 * KIB),
    # Listeners with tables.
    Route(150, m.Greet, ((LOOKUP, SMTP),), _SERVE, 1 * KIB),
    Route(151, m.SenderQuery, ((SMTP, LOOKUP),), _SERVE, 4 * KIB, answer="SenderReply"),
    Route(152, m.SenderReply, ((LOOKUP, SMTP),), _SERVE, 64),
    # The operator.
    Route(80, m.ShowQueue, ((CLIENT, CONTROL), (CONTROL, QUEUE)), _SERVE, 64, answer="QueueRow, Done"),
    Route(81, m.ShowEnvelope, ((CLIENT, CONTROL), (CONTROL, QUEUE)), _SERVE, 64, answer="TextPart, Done"),
    Route(82, m.ShowMessage, ((CLIENT, CONTROL), (CONTROL, QUEUE)), _SERVE, 64, answer="BytesPart, Done"),
    Route(83, m.Schedule, ((CLIENT, CONTROL), (CONTROL, QUEUE)), _SERVE, 64, answer="Done"),
    Route(84, m.Remove, ((CLIENT, CONTROL), (CONTROL, QUEUE)), _SERVE, 64, answer="Done"),
    Route(85, m.Pause, ((CLIENT, CONTROL), (CONTROL, QUEUE), (CONTROL, SMTP)), _SERVE, 64, answer="Done"),
    Route(86, m.ShowStats, ((CLIENT, CONTROL), *_fan(CONTROL, (QUEUE, SMTP, DELIVERY))), _SERVE, 64,
          answer="Counters, Done"),
    Route(87, m.ShowStatus, ((CLIENT, CONTROL), (CONTROL, QUEUE), (CONTROL, SMTP)), _SERVE, 64,
          answer="TextPart, Done"),
    Route(88, m.ShowProcesses, ((CLIENT, CONTROL), (CONTROL, PARENT)), _SERVE, 64,
          answer="ProcessRow, ProgramRow, Done"),
    Route(89, m.SetLog, ((CLIENT, CONTROL), (CONTROL, PARENT)), _SERVE, 64, answer="Done"),
    Route(90, m.Stop, ((CLIENT, CONTROL), (CONTROL, PARENT)), _SERVE, 64, answer="Done"),
    Route(91, m.Counters, _TO_CLIENT, _SERVE, 512 * KIB),
    Route(92, m.TextPart, _TO_CLIENT, _SERVE, 320 * KIB),
    Route(93, m.BytesPart, _TO_CLIENT, _SERVE, _BODY),
    Route(94, m.QueueRow, _TO_CLIENT, _SERVE, 32 * KIB),
    Route(95, m.ProcessRow, _TO_CLIENT, _SERVE, 32 * KIB),
    Route(96, m.Done, (*_TO_CLIENT, (LOOKUP, CONTROL)), _SERVE, 16 * KIB),
    Route(97, m.UpdateTable, ((CLIENT, CONTROL), (CONTROL, PARENT)), _SERVE, 1 * KIB, answer="Done"),
    Route(98, m.Explain, ((CLIENT, CONTROL), (CONTROL, LOOKUP)), _SERVE, 8 * KIB, answer="ExplainStep, Done"),
    Route(99, m.ExplainStep, ((LOOKUP, CONTROL), (CONTROL, CLIENT)), _SERVE, 32 * KIB),
    # Generations (docs/decisions/0004).
    Route(110, m.Reload, ((CLIENT, CONTROL), (CONTROL, PARENT)), _SERVE, 64, answer="Done"),
    Route(111, m.Failed, _gather(CHILDREN, PARENT), _SETUP, 8 * KIB),
    Route(112, m.NewPeer, _fan(PARENT, LASTING), _RUN, 64, ("channel",)),
    Route(113, m.QueueReload, _fan(PARENT, (QUEUE,)), _RUN, 4 * MIB),
    Route(114, m.ControlReload, _fan(PARENT, (CONTROL,)), _RUN, 64),
    Route(115, m.Retire, _fan(PARENT, (SMTP, DELIVERY)), _RUN, 64, answer="Drained; smtp: Retired before"),
    Route(116, m.Retired, _gather((SMTP,), PARENT), _DRAIN, 64),
    # Expansion.
    Route(130, m.ForwardOpen, ((LOOKUP, PARENT),), _SERVE, 4 * KIB, answer="ForwardFile or ForwardNone"),
    Route(131, m.ForwardFile, ((PARENT, LOOKUP),), _SERVE, 64, ("pipe",)),
    Route(132, m.ForwardNone, ((PARENT, LOOKUP),), _SERVE, 16 * KIB),
    Route(133, m.IncludeOpen, ((LOOKUP, PARENT),), _SERVE, 8 * KIB, answer="IncludeFile or IncludeNone"),
    Route(134, m.IncludeFile, ((PARENT, LOOKUP),), _SERVE, 64, ("file",)),
    Route(135, m.IncludeNone, ((PARENT, LOOKUP),), _SERVE, 16 * KIB),
    Route(136, m.UserbaseQuery, ((PARENT, LOOKUP),), _SERVE, 2 * KIB, answer="UserbaseInfo"),
    Route(137, m.UserbaseInfo, ((LOOKUP, PARENT),), _SERVE, 8 * KIB),
    # Filter and table programs.
    Route(180, m.Program, ((PARENT, LOOKUP),), _ANY, 512, ("its input", "its output", "its errors"),
          "ProgramFailed, if ever"),
    Route(181, m.ProgramGone, ((PARENT, LOOKUP),), _SERVE, 16 * KIB),
    Route(182, m.ProgramFailed, ((LOOKUP, PARENT),), _SERVE, 512),
    Route(183, m.ProgramRow, ((PARENT, CONTROL), (CONTROL, CLIENT)), _SERVE, 4 * KIB),
    Route(184, m.TableUpdate, ((PARENT, LOOKUP),), _SERVE, 1 * KIB, answer="TableRead"),
    Route(185, m.ShowPrograms, ((CLIENT, CONTROL), (CONTROL, LOOKUP)), _SERVE, 64, answer="ProgramState, Done"),
    Route(186, m.ProgramState, ((LOOKUP, CONTROL), (CONTROL, CLIENT)), _SERVE, 16 * KIB),
    # The operator and the queue.
    Route(200, m.PauseEnvelope, ((CLIENT, CONTROL), (CONTROL, QUEUE)), _SERVE, 64, answer="Done"),
    Route(201, m.Discover, ((CLIENT, CONTROL), (CONTROL, QUEUE)), _SERVE, 64, answer="Done"),
    Route(202, m.ShowCorrupt, ((CLIENT, CONTROL), (CONTROL, QUEUE)), _SERVE, 64, answer="CorruptRow, Done"),
    Route(203, m.CorruptRow, ((QUEUE, CONTROL), (CONTROL, CLIENT)), _SERVE, 16 * KIB),
    Route(205, m.Trace, ((CLIENT, CONTROL), (CONTROL, PARENT)), _SERVE, 512, answer="Done"),
    Route(206, m.TraceMask, _fan(PARENT, CHILDREN), _SERVE, 64),
    Route(204, m.Uncorrupt, ((CLIENT, CONTROL), (CONTROL, QUEUE)), _SERVE, 64, answer="Done"),
    Route(207, m.Follow, ((CLIENT, CONTROL), *_fan(CONTROL, (QUEUE, SMTP, LOOKUP, DELIVERY))), _SERVE, 64,
          answer="FollowedLine"),
    Route(208, m.FollowedLine, (*_gather((QUEUE, SMTP, LOOKUP, DELIVERY), CONTROL), (CONTROL, CLIENT)), _SERVE,
          16 * KIB),
    # Filters.
    Route(160, m.FilterRequest, ((SMTP, LOOKUP),), _SERVE, 16 * KIB, answer="FilterAnswer"),
    Route(161, m.FilterAnswer, ((LOOKUP, SMTP),), _SERVE, 16 * KIB),
    Route(162, m.FilterHooks, ((LOOKUP, SMTP),), _SERVE, 64),
    Route(163, m.FilterReport, ((SMTP, LOOKUP),), _SERVE, 64 * KIB),
    Route(164, m.FilterData, ((SMTP, LOOKUP), (LOOKUP, SMTP)), _SERVE, 48 * KIB, answer="FilterData, FilterCredit"),
    Route(165, m.FilterCredit, ((LOOKUP, SMTP), (SMTP, LOOKUP)), _SERVE, 64),
    Route(170, m.OutgoingHooks, ((LOOKUP, DELIVERY),), _SERVE, 2 * KIB),
    Route(171, m.OutgoingReport, ((DELIVERY, LOOKUP),), _SERVE, 64 * KIB),
    # What delivery knows of the network.
    Route(140, m.ShowNetwork, ((CLIENT, CONTROL), (CONTROL, DELIVERY)), _SERVE, 64, answer="a row each, Done"),
    Route(141, m.ResumeRoute, ((CLIENT, CONTROL), (CONTROL, DELIVERY)), _SERVE, 64, answer="Done"),
    Route(142, m.BlockRelay, ((CLIENT, CONTROL), (CONTROL, DELIVERY)), _SERVE, 2 * KIB, answer="Done"),
    Route(143, m.HostRow, _OF_NETWORK, _SERVE, 4 * KIB),
    Route(144, m.RouteRow, _OF_NETWORK, _SERVE, 8 * KIB),
    Route(145, m.RelayRow, _OF_NETWORK, _SERVE, 512 * KIB),
    Route(146, m.HostStatRow, _OF_NETWORK, _SERVE, 16 * KIB),
    Route(147, m.BlockRow, _OF_NETWORK, _SERVE, 4 * KIB),
    # Mail that sendmail kept. Its agent ends with a status: the parent hears nothing of a message.
    Route(220, m.AgentSubmit, ((PARENT, AGENT),), _SETUP, 256, ("message", "smtp's local socket")),
    Route(148, m.TryNow, ((DELIVERY, QUEUE),), _SERVE, 16 * KIB),
)  # fmt: skip

BY_TYPE: dict[type[m.Message], Route] = {route.message: route for route in ROUTES}
BY_NUMBER: dict[int, Route] = {route.number: route for route in ROUTES}

# Pairs of core processes that share a socketpair; every other pair has none.
CHANNELS: frozenset[frozenset[Process]] = frozenset(
    frozenset(hop) for route in ROUTES for hop in route.hops if CLIENT not in hop and AGENT not in hop
)


def channel_peers(process: Process) -> tuple[Process, ...]:
    """The core processes that `process` has a channel to, the parent left out."""
    return tuple(peer for peer in CHILDREN if peer is not process and frozenset((process, peer)) in CHANNELS)
