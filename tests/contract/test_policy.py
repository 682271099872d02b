"""The sandbox policy: complete, with reasons, and with the properties that DESIGN promises."""

import pytest

from smtpd_ps.contract.installation import ACCOUNTS, DIRECTORIES, directories, paths
from smtpd_ps.contract.policy import POLICIES, RUNNER, SUBMITTER, Policy, policy_of
from smtpd_ps.contract.routes import CHILDREN
from smtpd_ps.contract.syscalls import GROUPS
from smtpd_ps.contract.values import Process

ALL = [*POLICIES.values(), RUNNER, SUBMITTER]
CONFINED = [policy for policy in POLICIES.values() if policy.confined]


def by_name(policy: Policy) -> str:
    return {RUNNER: "runner", SUBMITTER: "submitter"}.get(policy, policy.process.title)


def test_every_process_has_one() -> None:
    """Each process but the operator's tool has a policy, and all but the parent are confined."""
    assert set(POLICIES) == set(Process) - {Process.CLIENT}
    assert {policy.process for policy in CONFINED} == {*CHILDREN, Process.AGENT}


def test_users_are_distinct() -> None:
    """Processes of one uid can signal and trace each other, so no two share one; setup makes them all."""
    users = [POLICIES[process].user for process in CHILDREN]
    assert len(set(users)) == len(users)
    assert set(users) < {account.name for account in ACCOUNTS}


@pytest.mark.parametrize("policy", ALL, ids=by_name)
def test_every_grant_has_a_reason(policy: Policy) -> None:
    """Nothing is granted without a line of why, and nothing twice."""
    for grants in (policy.descriptors, policy.syscalls, policy.tcp, policy.promises, policy.refuses):
        assert all(grant.why for grant in grants)
        assert len({grant.name for grant in grants}) == len(grants)
    assert all(limit.why for limit in policy.limits)
    assert all(path.why for path in policy.paths)
    assert policy.capsicum.why


@pytest.mark.parametrize("policy", [*CONFINED, RUNNER, SUBMITTER], ids=by_name)
def test_every_confined_process_has_the_basics(policy: Policy) -> None:
    """No core files, a bound on descriptors, promises that begin with stdio, known groups of calls."""
    limits = {limit.resource: limit.value for limit in policy.limits}
    assert limits["core"] == 0 and 0 < limits["nofile"] <= 16_640
    assert policy.promises[0].name == "stdio"
    assert {grant.name for grant in policy.syscalls} <= set(GROUPS)
    assert {"channel", "stdio"} <= policy.kinds


def test_groups_have_reasons_and_users() -> None:
    """Every group of calls says why it is there and is granted to someone."""
    assert all(group.why for group in GROUPS.values())
    granted = {grant.name for policy in CONFINED for grant in policy.syscalls}
    refused = {grant.name for policy in ALL for grant in policy.refuses}
    assert granted | refused == set(GROUPS) and not granted & refused


def test_only_agents_that_run_commands_are_bounded_by_their_user() -> None:
    """All others have a list of what they may do; the runner may not trace, mount, or make namespaces."""
    assert policy_of(Process.AGENT) is POLICIES[Process.AGENT] and policy_of(Process.AGENT, True) is RUNNER
    assert policy_of(Process.QUEUE, True) is POLICIES[Process.QUEUE]
    assert RUNNER.by_user and not any(policy.by_user for policy in ALL if policy is not RUNNER)
    refused = RUNNER.calls()
    for name in ("ptrace", "process_vm_readv", "mount", "unshare", "bpf", "keyctl", "init_module", "chroot"):
        assert refused[name].never
    assert all(call.never or call.name == "clone" for call in refused.values())


def test_who_submits_kept_mail_has_one_file_and_one_connection() -> None:
    """It opens nothing, connects to nobody, starts nothing, and holds no mailbox and no network."""
    assert (
        policy_of(Process.AGENT, submits=True) is SUBMITTER and policy_of(Process.SMTP, submits=True) is not SUBMITTER
    )
    assert not SUBMITTER.paths and SUBMITTER.calls()["openat"].never and SUBMITTER.capsicum.enter
    assert not {"socket", "connect", "bind", "clone", "unlink", "execve"} & set(SUBMITTER.calls())
    assert SUBMITTER.kinds - POLICIES[Process.KEYS].kinds == {"body-read", "unix-peer"}


def test_must_never_have() -> None:
    """The last column of DESIGN's table: what each process must never have."""
    keys, smtp, lookup, queue, delivery, agent, control = (
        POLICIES[p]
        for p in (Process.KEYS, Process.SMTP, Process.LOOKUP, Process.QUEUE, Process.DELIVERY, Process.AGENT,
                  Process.CONTROL)
    )  # fmt: skip
    network = {"tcp", "udp", "tcp-listener"}
    for policy in (keys, control, queue, agent):
        assert not policy.kinds & network
        assert "socket" not in policy.calls() and not policy.tcp
    for policy in (keys, control, smtp, lookup, delivery):
        assert not policy.paths and "openat" in policy.calls() and policy.calls()["openat"].never
        assert "spool" not in policy.kinds and "file" not in policy.kinds
    assert "socket" not in smtp.calls() and "connect" not in smtp.calls()
    assert "accept4" not in delivery.calls() and "accept4" not in lookup.calls()
    assert not lookup.kinds & {"body-read", "body-write", "spool"}
    assert [grant.path for grant in queue.paths] == ["{root}/queue"]
    assert all(not {"proc", "exec", "id", "getpw"} & {g.name for g in policy.promises} for policy in CONFINED)


def test_directories() -> None:
    """Parents come first, every owner is one of ours, and a chroot is never its process's own to write."""
    places = paths("/state/")
    table = directories(places)
    assert [path for path, _rule in table] == [
        "/state",
        "/state/spool",
        "/state/spool/queue",
        "/state/empty",
        "/state/run",
        "/state/spool/offline",
    ]
    assert {rule.owner for rule in DIRECTORIES} - {""} <= {account.name for account in ACCOUNTS}
    for _path, rule in table:
        # Anyone may leave a message, and nobody can see or change what others left.
        assert rule.mode == 0o1733 if rule.where == "offline" else not rule.mode & 0o022
        if rule.where in ("spool", "empty"):
            assert rule.owner == ""
    system = paths(None)
    assert system.control_socket == "/var/run/smtpd_ps/control.sock"
    assert (system.spool, system.queue) == ("/var/spool/smtpd_ps", "/var/spool/smtpd_ps/queue")
    assert "base" not in {rule.where for _path, rule in directories(system)}
