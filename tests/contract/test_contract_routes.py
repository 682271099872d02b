"""The contract is complete and says what DESIGN says."""

import inspect

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.routes import BY_NUMBER, CHANNELS, ROUTES
from smtpd_ps.contract.values import AgentSource, Phase, Process


def hops(sender: Process, receiver: Process, phase: Phase) -> set[str]:
    return {r.message.__name__ for r in ROUTES if (sender, receiver) in r.hops and r.phase & phase}


def test_every_message_has_exactly_one_route() -> None:
    """No message is declared and forgotten, no number used twice."""
    declared = {
        kind
        for _name, kind in inspect.getmembers(m, inspect.isclass)
        if issubclass(kind, m.Message) and kind is not m.Message
    }
    assert {route.message for route in ROUTES} == declared
    assert len(BY_NUMBER) == len(ROUTES)


def test_smtp_and_delivery_share_no_channel() -> None:
    """Who talks to strangers coming in cannot talk to who talks to strangers going out."""
    assert frozenset((Process.SMTP, Process.DELIVERY)) not in CHANNELS


def test_keys_talks_only_to_the_parent_and_who_needs_signatures() -> None:
    """keys has channels to parent, smtp and delivery alone."""
    assert {peer for pair in CHANNELS if Process.KEYS in pair for peer in pair} == {
        Process.KEYS,
        Process.PARENT,
        Process.SMTP,
        Process.DELIVERY,
    }


def test_smtp_has_no_run_time_route_to_the_parent() -> None:
    """A taken-over smtp can ask root for nothing."""
    assert hops(Process.SMTP, Process.PARENT, Phase.RUN) == set()


def test_smtp_cannot_forge_an_envelope() -> None:
    """Envelopes reach queue from lookup only."""
    for route in ROUTES:
        if "Envelope" in repr(route.message.__annotations__.get("envelopes", "")):
            assert {sender for sender, _receiver in route.hops} == {Process.LOOKUP}


def test_what_the_parent_takes_at_run_time_is_a_handful() -> None:
    """Root's attack surface, spelled out."""
    taken = {
        (s, r.message.__name__) for r in ROUTES for s, to in r.hops if to is Process.PARENT and r.phase & Phase.RUN
    }
    assert taken == {
        (Process.LOOKUP, "UserQuery"),
        (Process.LOOKUP, "SystemAuth"),
        (Process.LOOKUP, "TableRead"),
        (Process.LOOKUP, "ProgramFailed"),
        (Process.LOOKUP, "ForwardOpen"),
        (Process.LOOKUP, "IncludeOpen"),
        (Process.LOOKUP, "UserbaseInfo"),
        (Process.DELIVERY, "AgentStart"),
        (Process.DELIVERY, "LmtpConnect"),
        (Process.CONTROL, "ShowProcesses"),
        (Process.CONTROL, "SetLog"),
        (Process.CONTROL, "Trace"),
        (Process.CONTROL, "Stop"),
        (Process.CONTROL, "UpdateTable"),
        (Process.CONTROL, "Reload"),
    }


def test_the_parent_takes_names_not_ids_or_commands() -> None:
    """AgentStart carries a user's and an action's name, and one of three words for what is behind it."""
    assert m.AgentStart.__struct_fields__ == ("request", "user", "action", "source")
    assert m.AgentStart.__annotations__["source"] is AgentSource
    assert m.UpdateTable.__struct_fields__ == ("client", "name")


def test_who_tells_the_parent_a_uid_or_a_path() -> None:
    """Lookup alone: of a userbase (floor: parent/accounts), and of a file to open with lookup's own rights."""
    telling = {
        (sender, route.message.__name__)
        for route in ROUTES
        for sender, to in route.hops
        if to is Process.PARENT and {"account", "path", "uid", "gid", "home"} & set(route.message.__struct_fields__)
    }
    assert telling == {
        (Process.LOOKUP, "ForwardOpen"), (Process.LOOKUP, "IncludeOpen"), (Process.LOOKUP, "UserbaseInfo"),
    }  # fmt: skip


def test_bodies_never_pass_lookup_control_or_parent() -> None:
    """Body bytes and body descriptors travel smtp - queue - delivery - agent, and to an operator who asks."""
    allowed = {Process.SMTP, Process.QUEUE, Process.DELIVERY, Process.AGENT}
    for route in ROUTES:
        carries = any("body" in kind for kind in route.fds) or "body" in route.message.__struct_fields__
        if carries:
            assert {process for hop in route.hops for process in hop} <= allowed, route.message
