"""The comparison behind `audit`: break each observable line in turn and see it fail."""

from dataclasses import replace

import pytest

from smtpd_ps.contract.policy import POLICIES
from smtpd_ps.contract.values import Process
from smtpd_ps.pure.audit import (
    CAPABILITY_SETS,
    Descriptor,
    Expected,
    Observation,
    channel_findings,
    findings,
    kind_in,
    kinds,
    may_share,
    program_findings,
    set_findings,
)

CHILDREN = [process for process, policy in POLICIES.items() if policy.confined]
EXPECTED = Expected(
    POLICIES[Process.SMTP], uid=101, gid=102, root="/empty", title="smtpd_ps: smtp", executable="/bin/python",
    spool="/spool",
)  # fmt: skip
SEEN = Observation(
    pid=7,
    uids=(101,) * 4,
    gids=(102,) * 4,
    groups=(),
    root="/empty",
    capabilities=dict.fromkeys(CAPABILITY_SETS, 0),
    seccomp=2,
    no_new_privs=True,
    dumpable=False,
    threads=1,
    descriptors=(Descriptor(0, "stdio"), Descriptor(3, "channel"), Descriptor(4, "tcp-listener")),
    limits={"core": (0, 0), "nofile": (1024, 1024)},
    title="smtpd_ps: smtp",
    executable="/bin/python",
)


def lines(expected: Expected, seen: Observation) -> list[str]:
    return [finding.line for finding in findings(expected, seen)]


def test_as_declared() -> None:
    """A process that is as its policy says has no finding."""
    assert lines(EXPECTED, SEEN) == []


@pytest.mark.parametrize(
    ("line", "change"),
    [
        *[("user", {"uids": tuple(0 if at == wrong else 101 for at in range(4))}) for wrong in range(4)],
        *[("group", {"gids": tuple(0 if at == wrong else 102 for at in range(4))}) for wrong in range(4)],
        ("groups", {"groups": (0,)}),
        ("groups", {"groups": (102, 27)}),
        ("root", {"root": "/"}),
        *[("capabilities", {"capabilities": dict.fromkeys(CAPABILITY_SETS, 0) | {n: 1}}) for n in CAPABILITY_SETS],
        ("seccomp", {"seccomp": 0}),
        ("seccomp", {"seccomp": 1}),
        ("seccomp", {"seccomp": None}),
        ("no_new_privs", {"no_new_privs": False}),
        ("no_new_privs", {"no_new_privs": None}),
        ("dumpable", {"dumpable": True}),
        ("threads", {"threads": 2}),
        ("limits", {"limits": {"core": (0, 1)}}),
        ("limits", {"limits": {"core": (-1, -1)}}),
        ("limits", {"limits": {"nofile": (1024, 999_999)}}),
        ("descriptors", {"descriptors": (Descriptor(5, "file", "/etc/shadow"),)}),
        ("descriptors", {"descriptors": (Descriptor(5, "udp"),)}),
        ("descriptors", {"descriptors": (Descriptor(5, "file", "/spool/queue/b", "read"),)}),
        ("descriptors", {"descriptors": (Descriptor(5, "file", "/spool/queue/b", "read-write"),)}),
        ("descriptors", {"descriptors": (Descriptor(5, "file", "/spoolless/b", "write"),)}),
        ("title", {"title": "smtpd_ps: queue"}),
        ("executable", {"executable": "/bin/sh"}),
    ],
)
def test_each_line_broken(line: str, change: dict[str, object]) -> None:
    """One observable line broken is exactly that finding."""
    assert lines(EXPECTED, replace(SEEN, **change)) == [line]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"limits": {"core": (0, 0), "nofile": (64, 64)}},  # less than declared is fine
        {"groups": (102,)},  # its own group among the supplementary ones
        {"descriptors": (Descriptor(5, "file", "/spool/queue/b", "write"),)},
        {"dumpable": None},
        {"root": None, "descriptors": None, "executable": None},  # not visible is not different
    ],
)
def test_what_is_no_finding(change: dict[str, object]) -> None:
    """What the policy allows, and what cannot be seen."""
    assert lines(EXPECTED, replace(SEEN, **change)) == []  # type: ignore[arg-type]


def test_unprivileged() -> None:
    """In the unprivileged mode root, groups and the bounding set are the starter's; the rest is compared."""
    expected = replace(EXPECTED, privileged=False)
    seen = replace(SEEN, root="/", groups=(4, 27), capabilities=dict.fromkeys(CAPABILITY_SETS, 0) | {"bounding": 1})
    assert lines(expected, seen) == []
    assert lines(expected, replace(seen, seccomp=0)) == ["seccomp"]
    assert lines(expected, replace(seen, uids=(0,) * 4)) == ["user"]


def test_parent() -> None:
    """The parent is not confined: its user and its descriptors are compared, its sandbox is not."""
    expected = Expected(POLICIES[Process.PARENT], 0, 0)
    seen = replace(SEEN, uids=(0,) * 4, gids=(0,) * 4, groups=(0, 1), root="/", seccomp=0, no_new_privs=False,
                   capabilities=dict.fromkeys(CAPABILITY_SETS, 2**40), limits={"core": (-1, -1)})  # fmt: skip
    assert lines(expected, seen) == []
    assert lines(expected, replace(seen, uids=(1,) * 4)) == ["user"]
    assert lines(expected, replace(seen, descriptors=(Descriptor(9, "tcp"),))) == ["descriptors"]


def test_openbsd_and_freebsd() -> None:
    """On OpenBSD pledge and chroot are compared, on FreeBSD capability mode where it is declared."""
    seen = replace(SEEN, seccomp=None, no_new_privs=None, capabilities=None, dumpable=None)
    expected = replace(EXPECTED, system="openbsd")
    seen = replace(seen, root=None)
    assert lines(expected, replace(seen, pledged=True, chrooted=True)) == []
    assert lines(expected, replace(seen, pledged=False, chrooted=True)) == ["pledge"]
    assert lines(expected, replace(seen, pledged=None, chrooted=True)) == ["pledge"]
    assert lines(expected, replace(seen, pledged=True, chrooted=False)) == ["root"]
    expected = replace(EXPECTED, system="freebsd")
    assert lines(expected, replace(seen, capability_mode=True)) == []
    assert lines(expected, replace(seen, capability_mode=False)) == ["capsicum"]
    lookup = replace(expected, policy=POLICIES[Process.LOOKUP])
    assert "capsicum" not in lines(lookup, seen)


def test_kinds_are_counted() -> None:
    """Descriptors are counted by kind, with spool files under the name that the policy gives them."""
    held = (Descriptor(0, "stdio"), Descriptor(1, "stdio"), Descriptor(4, "file", "/spool/queue/x", "write"))
    assert kinds(EXPECTED, held) == {"body-write": 1, "stdio": 2}
    queue = POLICIES[Process.QUEUE]
    assert kind_in(held[2], queue, "/spool") == "spool"
    assert kind_in(Descriptor(5, "directory", "/spool/queue", "read"), queue, "/spool") == "spool"
    assert kind_in(Descriptor(5, "directory", "/", "read"), queue, "/spool") == "directory"


def test_a_table_is_a_file_that_lookup_can_only_read() -> None:
    """Other files, other places and other processes get no milder word."""
    lookup, smtp = POLICIES[Process.LOOKUP], POLICIES[Process.SMTP]
    assert kind_in(Descriptor(9, "file", "/etc/mail/aliases", "read"), lookup, "/spool") == "table"
    assert kind_in(Descriptor(9, "file", "/etc/mail/aliases", "read"), lookup, "") == "table"
    assert kind_in(Descriptor(9, "file", "/etc/mail/aliases", "write"), lookup, "/spool") == "file"
    assert kind_in(Descriptor(9, "directory", "/etc/mail", "read"), lookup, "/spool") == "directory"
    assert kind_in(Descriptor(9, "file", "/spool/queue/b", "read"), lookup, "/spool") == "body-read"
    assert kind_in(Descriptor(9, "file", "/etc/mail/aliases", "read"), smtp, "/spool") == "file"


def test_channels() -> None:
    """A channel is judged by who holds its other end."""
    one, other = Descriptor(3, "channel", inode=10, peer=20), Descriptor(3, "channel", inode=20, peer=10)

    def judged(left: Process, right: Process) -> dict[int, tuple[str, ...]]:
        found = channel_findings({1: (left, (one,)), 2: (right, (other,))})
        return {pid: tuple(finding.text for finding in wrong) for pid, wrong in found.items()}

    assert judged(Process.SMTP, Process.QUEUE) == {}
    assert judged(Process.AGENT, Process.DELIVERY) == {}
    assert judged(Process.SMTP, Process.DELIVERY) == {
        1: ("3 leads to delivery, which has no route",),
        2: ("3 leads to smtp, which has no route",),
    }
    assert set(judged(Process.AGENT, Process.QUEUE)) == {1, 2}
    assert set(channel_findings({1: (Process.QUEUE, (one,))})) == {1}
    assert channel_findings({1: (Process.PARENT, (one,))}) == {}
    assert channel_findings({1: (Process.QUEUE, (replace(one, peer=0),))}) == {}


@pytest.mark.parametrize("process", CHILDREN)
def test_everyone_has_the_parent(process: Process) -> None:
    """Every child shares a channel with the parent."""
    assert may_share(process, Process.PARENT) and may_share(Process.PARENT, process)


def test_the_set_of_processes() -> None:
    """Missing and surplus core processes are findings; agents come and go."""
    wanted = {Process.PARENT: 1, Process.SMTP: 2}
    assert set_findings(wanted, {Process.PARENT: 1, Process.SMTP: 2, Process.AGENT: 5}) == ()
    assert [f.text for f in set_findings(wanted, {Process.PARENT: 1, Process.SMTP: 1})] == ["smtp is missing (1 of 2)"]
    assert [f.text for f in set_findings(wanted, {Process.PARENT: 1, Process.SMTP: 2, Process.KEYS: 1})] == [
        "1 keys processes, 0 declared"
    ]


def test_channels_stay_within_a_generation():
    """smtp of one generation has no channel to lookup of another; queue has one to both."""
    one = Descriptor(4, "channel", inode=10, peer=11)
    other = Descriptor(5, "channel", inode=11, peer=10)
    for right, wrong in ((Process.LOOKUP, True), (Process.QUEUE, False), (Process.PARENT, False)):
        seen = {1: (Process.SMTP, (one,)), 2: (right, (other,))}
        assert channel_findings(seen, {1: 3, 2: 3}) == {}
        assert set(channel_findings(seen, {1: 3, 2: 4})) == ({1, 2} if wrong else set())


def test_a_program_is_compared_with_smtpd_conf() -> None:
    """Its user, groups and root; a channel of the daemon's in its hands; what else it opens is its own affair."""
    good = Observation(9, (70,) * 4, (70,) * 4, (70,), "/jail", descriptors=(Descriptor(5, "tcp", "db"),))
    assert program_findings(70, 70, "/jail", True, good, {11: Process.LOOKUP}) == []
    bad = Observation(
        9, (70, 0, 70, 70), (0,) * 4, (4,), "/",
        descriptors=(Descriptor(6, "channel", inode=3, peer=11), Descriptor(7, "channel", inode=4, peer=5)),
    )  # fmt: skip
    found = program_findings(70, 70, "/jail", True, bad, {11: Process.LOOKUP})
    assert [finding.line for finding in found] == ["user", "group", "groups", "root", "channels"]
    assert found[-1].text == "6 leads to lookup"
    assert [f.line for f in program_findings(70, 70, "/jail", False, bad, {})] == ["user", "group"]
