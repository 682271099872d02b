"""`smtpctl_ps audit` on live confined processes: passes on them, and sees every mutant of a policy line."""

import io
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from confined_processes import CHILDREN, TEST_UID, Confined, Place, needs_root

from smtpd_ps import osdep
from smtpd_ps.cli import audit
from smtpd_ps.cli.accounts import Plan, plans, run_command
from smtpd_ps.contract.messages import ProcessRow
from smtpd_ps.contract.policy import POLICIES
from smtpd_ps.contract.values import Process
from smtpd_ps.pure.audit import Observation

pytestmark = [pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only"), needs_root]

CORE = tuple(process for process in CHILDREN if process is not Process.AGENT)


@pytest.fixture(scope="module", autouse=True)
def accounts() -> None:
    """The daemon's users exist (made as setup makes them, and left there)."""
    missing: list[Plan] = plans()
    for plan in missing:
        for command in plan.commands:
            run_command(command)


def account(process: Process) -> tuple[int, int]:
    import pwd

    entry = pwd.getpwnam(POLICIES[process].user)
    return entry.pw_uid, entry.pw_gid


def start(place: Place, process: Process, **order: object) -> tuple[Confined, ProcessRow]:
    """A child as the parent would start it, and its row in the process table."""
    changes = dict(order.pop("common", {}))  # type: ignore[call-overload]
    user = POLICIES[process].user or "nobody"
    if process is Process.AGENT:
        import pwd

        entry = pwd.getpwnam(user)
        fields: dict[str, object] = {"uid": entry.pw_uid, "gid": entry.pw_gid, "groups": [entry.pw_gid]}
        os.chown(place.home, entry.pw_uid, entry.pw_gid)
    elif process is Process.PARENT:
        fields = {}
    else:
        uid, gid = account(process)
        fields = {"uid": uid, "gid": gid}
        if process is Process.QUEUE:
            os.chown(place.spool / "queue", uid, gid)
    title = f"smtpd_ps: agent {user}" if process is Process.AGENT else f"smtpd_ps: {process.title}"
    child = place.start(process, common=fields | changes, **({"title": title} | order))  # type: ignore[arg-type]
    assert child.await_ready().startswith("ready")
    root = str({"empty": place.empty, "spool": place.spool}.get(POLICIES[process].root, ""))
    return child, ProcessRow(0, process, 0, child.pid, user, root, True)


def lines_of(place: Place, process: Process, **order: object) -> list[str]:
    """The lines on which audit finds one process to differ."""
    _child, row = start(place, process, **order)
    (report,) = audit.examine([row], osdep.inspect)
    return [finding.line for finding in report.findings]


@pytest.mark.parametrize("process", CHILDREN, ids=lambda p: p.title)
def test_as_declared(place: Place, process: Process) -> None:
    """Every process, confined as its policy says, has no finding."""
    assert lines_of(place, process) == []


@pytest.mark.parametrize("process", CORE, ids=lambda p: p.title)
@pytest.mark.parametrize(
    ("mutant", "line"),
    [
        ("seccomp", "seccomp"),
        ("no_new_privs", "no_new_privs"),
        ("dumpable", "dumpable"),
        ("bounding", "capabilities"),
        ("capabilities", "capabilities"),
        ("limits", "limits"),
        ("uid", "user"),
        ("groups", "groups"),
        ("root", "root"),
    ],
)
def test_mutant_of_each_line(place: Place, process: Process, mutant: str, line: str) -> None:
    """A process whose confinement lacks one step differs in the line of that step."""
    assert line in lines_of(place, process, mutant=mutant)


@pytest.mark.parametrize("process", CORE, ids=lambda p: p.title)
def test_mutants_of_values(place: Place, process: Process) -> None:
    """Another user, group or root directory than declared, and an undeclared title, are seen."""
    assert lines_of(place, process, common={"uid": TEST_UID}) == ["user"]
    assert "group" in lines_of(place, process, common={"gid": TEST_UID})
    assert lines_of(place, process, common={"groups": [TEST_UID]}) == ["groups"]
    other = place.base / "elsewhere"
    (other / "queue").mkdir(parents=True, exist_ok=True)
    assert lines_of(place, process, common={"root": str(other)}) == ["root"]
    assert lines_of(place, process, title="smtpd_ps: impostor") == ["title"]


def test_another_executable(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that runs another program than smtpctl_ps's interpreter is seen."""
    _child, row = start(place, Process.KEYS)
    monkeypatch.setattr(audit.sys, "executable", "/bin/true")
    (report,) = audit.examine([row], osdep.inspect)
    assert [finding.line for finding in report.findings] == ["executable"]


def udp_socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def raw_netlink() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)


@pytest.mark.parametrize(
    ("process", "make", "kind"),
    [
        (Process.KEYS, udp_socket, "udp"),
        (Process.KEYS, listener, "tcp-listener"),
        (Process.QUEUE, listener, "tcp-listener"),
        (Process.DELIVERY, listener, "tcp-listener"),
        (Process.SMTP, udp_socket, "udp"),
        (Process.LOOKUP, raw_netlink, "socket"),
        (Process.KEYS, lambda: os.open("/etc/passwd", os.O_RDONLY), "file"),
        (Process.SMTP, lambda: os.open("/etc/passwd", os.O_RDONLY), "file"),
        (Process.QUEUE, lambda: os.open("/etc/passwd", os.O_RDONLY), "file"),
        (Process.DELIVERY, lambda: os.open("/", os.O_RDONLY), "directory"),
        (Process.CONTROL, lambda: os.open("/dev/zero", os.O_RDONLY), "device"),
        (Process.SMTP, lambda: os.memfd_create("x"), "memory-file"),
        (Process.SMTP, lambda: os.pidfd_open(os.getpid()), "pidfd"),
        (Process.KEYS, lambda: os.pipe()[0], "pipe"),
    ],
)
def test_undeclared_descriptors(place: Place, process: Process, make: Callable[[], object], kind: str) -> None:
    """A descriptor of a kind that the policy does not name is a finding that says which."""
    made = make()
    fd = made if isinstance(made, int) else made.fileno()  # type: ignore[attr-defined]
    _child, row = start(place, process, pass_fds=(fd,))
    (report,) = audit.examine([row], osdep.inspect)
    if isinstance(made, int):
        os.close(made)
    else:
        made.close()  # type: ignore[attr-defined]
    assert [(f.line, f.text.split()[2]) for f in report.findings] == [("descriptors", kind)]


def test_declared_descriptors(place: Place) -> None:
    """What smtp and delivery live from: listeners, connections, and spool files the right way round."""
    body = place.spool / "queue" / "body"
    body.write_text("x")
    writing, reading = os.open(body, os.O_WRONLY), os.open(body, os.O_RDONLY)
    try:
        with (
            listener() as server,
            socket.create_connection(server.getsockname()) as client,
            socket.socket(socket.AF_UNIX) as local,
        ):
            local.bind(str(place.base / "local"))
            local.listen()
            queue = start(place, Process.QUEUE)[1]
            fds = server.fileno(), client.fileno(), local.fileno(), writing
            smtp = start(place, Process.SMTP, pass_fds=fds)[1]
            delivery = start(place, Process.DELIVERY, pass_fds=(client.fileno(), reading))[1]
            assert [r.findings for r in audit.examine([queue, smtp, delivery], osdep.inspect)] == [[], [], []]
            reader = start(place, Process.SMTP, pass_fds=(reading,))[1]
            writer = start(place, Process.DELIVERY, pass_fds=(writing,))[1]
            reports = audit.examine([queue, reader, writer], osdep.inspect)
            assert [[f.text.split()[2] for f in r.findings] for r in reports] == [[], ["body-read"], ["body-write"]]
    finally:
        os.close(writing)
        os.close(reading)


def pair(place: Place, one: Process, other: Process) -> list[list[str]]:
    left, right = socket.socketpair()
    rows = [
        start(place, one, pass_fds=(left.fileno(),))[1],
        start(place, other, pass_fds=(right.fileno(),))[1],
    ]
    left.close()
    right.close()
    return [[f.line for f in report.findings] for report in audit.examine(rows, osdep.inspect)]


def test_channels_follow_the_contract(place: Place) -> None:
    """A channel between two processes with a route is fine; one without a route is seen at both ends."""
    assert pair(place, Process.SMTP, Process.QUEUE) == [[], []]
    assert pair(place, Process.SMTP, Process.DELIVERY) == [["channels"], ["channels"]]
    assert pair(place, Process.KEYS, Process.QUEUE) == [["channels"], ["channels"]]


def test_channel_to_a_stranger(place: Place) -> None:
    """A channel whose other end is in no process of the daemon is seen."""
    left, right = socket.socketpair()
    with left, right:
        row = start(place, Process.QUEUE, pass_fds=(left.fileno(),))[1]
        left.close()
        (report,) = audit.examine([row], osdep.inspect)
    assert [finding.line for finding in report.findings] == ["channels"]


def test_installation(place: Place) -> None:
    """Users and directories are compared as well: a directory that is not as setup makes it is a finding."""
    _children, rows = whole(place)
    (place.base / "run").chmod(0o777)
    (place.empty / "stray").write_text("")
    out = io.StringIO()
    assert audit.run(lambda: rows, False, out) == 1
    assert f"DIFFERS installation: {place.base}/run: mode is 0777, 0755 declared" in out.getvalue()
    assert f"DIFFERS installation: {place.empty}: is not empty" in out.getvalue()
    assert "audit: 7 processes, 2 differences" in out.getvalue()


def whole(place: Place) -> tuple[list[Confined], list[ProcessRow]]:
    """A parent and all core children (the parent has started none of them here)."""
    started = [start(place, process) for process in (Process.PARENT, *CORE)]
    rows = [row for _child, row in started]
    rows[0] = ProcessRow(0, Process.PARENT, 0, rows[0].pid, "root", "", True)
    return [child for child, _row in started], rows


def test_run(place: Place) -> None:
    """The command prints every line of every process beside what is declared, and ends 0."""
    _children, rows = whole(place)
    out = io.StringIO()
    assert audit.run(lambda: rows, False, out) == 0, out.getvalue()
    text = out.getvalue()
    for line in ("user", "groups", "root", "capabilities", "seccomp", "no_new_privs", "dumpable", "descriptors"):
        assert text.count(f"\n  {line} ") == len(rows), line
    assert "audit: 7 processes, all as declared" in text
    out = io.StringIO()
    assert audit.run(lambda: rows, True, out) == 0
    told = json.loads(out.getvalue())
    assert told["ok"] and [p["process"] for p in told["processes"]] == [row.process.title for row in rows]
    assert {"name": "seccomp", "seen": "filter", "declared": "filter"} in told["processes"][1]["lines"]


def test_run_differs(place: Place) -> None:
    """One finding anywhere: the exit status is 1, and text and JSON say which line of which process."""
    _children, rows = whole(place)
    rows[5] = start(place, Process.QUEUE, mutant="dumpable")[1]
    out = io.StringIO()
    assert audit.run(lambda: rows, False, out) == 1
    assert "DIFFERS dumpable" in out.getvalue() and "audit: 7 processes, 1 differences" in out.getvalue()
    out = io.StringIO()
    assert audit.run(lambda: rows, True, out) == 1
    told = json.loads(out.getvalue())
    assert not told["ok"]
    assert [p["process"] for p in told["processes"] if not p["ok"]] == ["queue"]


def test_missing_and_extra_processes(place: Place) -> None:
    """A process that is not listed, one that is gone and one too many are findings; a child of one as well."""
    children, rows = whole(place)

    def text(given: list[ProcessRow]) -> str:
        out = io.StringIO()
        assert audit.run(lambda: given, False, out) == 1
        return out.getvalue()

    assert "DIFFERS processes: keys is missing (0 of 1)" in text([r for r in rows if r.process is not Process.KEYS])
    assert "DIFFERS processes: 2 queue processes, 1 declared" in text([*rows, rows[5]])
    children[1].end()
    gone = text(rows)
    assert "DIFFERS processes: it is gone" in gone and "keys is missing" in gone


def test_undeclared_child(place: Place) -> None:
    """A process that one of the daemon's started and that the parent did not name."""
    _children, rows = whole(place)
    parent = place.start(Process.PARENT, ["fork_and_wait"], title="smtpd_ps: parent")
    parent.await_ready()
    assert parent.popen.stdout is not None
    pid = int(parent.popen.stdout.readline())
    rows[0] = ProcessRow(0, Process.PARENT, 0, parent.pid, "root", "", True)
    out = io.StringIO()
    assert audit.run(lambda: rows, False, out) == 1
    assert f"process {pid} (" in out.getvalue()


def test_inspect_of_nobody() -> None:
    """A process that is not there raises ProcessLookupError, not a FileNotFoundError."""
    with pytest.raises(ProcessLookupError):
        osdep.inspect(2**22 + 1)


def test_inspect_myself() -> None:
    """What inspect says of the test's own process agrees with what Python says."""
    seen: Observation = osdep.inspect(os.getpid())
    assert seen.uids == (0, 0, 0, 0) and seen.root == "/" and seen.seccomp == 0
    assert seen.executable == str(Path(sys.executable).resolve())
    assert seen.limits is not None and set(seen.limits) == {"core", "nofile"}


def test_unprivileged_rows(plain_place: Place) -> None:
    """In the unprivileged mode user and root are not compared, the sandbox is, and a warning says so."""
    child = plain_place.start(Process.KEYS, title="smtpd_ps: keys")
    child.await_ready()
    row = ProcessRow(0, Process.KEYS, 0, child.pid, "", str(plain_place.empty), False)
    out = io.StringIO()
    audit.run(lambda: [row], False, out)
    assert "keys (pid" in out.getvalue() and "as declared" in out.getvalue().splitlines()[0]
    assert "warning: unprivileged mode" in out.getvalue()
