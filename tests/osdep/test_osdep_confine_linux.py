"""Confinement on Linux, tried for real: what each process can still do, and what ends it."""

import os
import signal
import socket
import sys

import pytest
from confined_processes import CHILDREN, TEST_UID, Place, needs_root

from smtpd_ps.contract.policy import POLICIES
from smtpd_ps.contract.values import Process

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux only")

KILLED = -signal.SIGSYS
FILELESS = [p for p in CHILDREN if not POLICIES[p].paths]
THREADLESS = [p for p in CHILDREN if not POLICIES[p].threads]
SOCKETLESS = [p for p in CHILDREN if "connect" not in {grant.name for grant in POLICIES[p].syscalls}]


def name(process: Process) -> str:
    return process.title


@needs_root
@pytest.mark.parametrize("process", CHILDREN, ids=name)
def test_daily_work_goes_on(place: Place, process: Process) -> None:
    """The loop, channels with descriptors, memory, time, a traceback and late look-ups survive."""
    deeds = ["loop_work"], ["traceback_work"], ["open_file"], ["new_call"]
    status, lines, err = place.outcome(process, *deeds)
    refused = "ENOENT" if process is Process.QUEUE else "EACCES"  # queue's calls are allowed, its root has no /etc
    expected = ["loop_work: ok", "traceback_work: ok", f"open_file: {refused}", "new_call: ENOSYS"]
    assert (status, lines) == (0, expected), err
    assert "ValueError: shown" in err


@needs_root
@pytest.mark.parametrize("deed", ["execute", "fork", "trace", "map_code", "mount", "become_root", "read_memory"])
@pytest.mark.parametrize("process", CHILDREN, ids=name)
def test_hostile_calls_kill(place: Place, process: Process, deed: str) -> None:
    """A program, a process, tracing, new code, a mount, a change of user: SIGSYS, in every process."""
    status, lines, _err = place.outcome(process, [deed])
    assert (status, lines) == (KILLED, [])


@needs_root
@pytest.mark.parametrize("process", CHILDREN, ids=name)
def test_no_signal_to_others(place: Place, process: Process) -> None:
    """kill(2) does not exist for a confined process, whoever the target is."""
    status, lines, _err = place.outcome(process, ["signal_pid", str(os.getpid())])
    assert (status, lines) == (KILLED, [])


@needs_root
@pytest.mark.parametrize("process", CHILDREN, ids=name)
def test_abort_still_works(place: Place, process: Process) -> None:
    """abort() ends the process as SIGABRT and leaves no core (RLIMIT_CORE 0)."""
    status, _lines, _err = place.outcome(process, ["abort"])
    assert status == -signal.SIGABRT


@needs_root
@pytest.mark.parametrize("process", SOCKETLESS, ids=name)
@pytest.mark.parametrize("deed", [["tcp_connect", "25"], ["udp"], ["unix_connect", "/x"], ["tcp_bind"]], ids=str)
def test_no_socket_at_all(place: Place, process: Process, deed: list[str]) -> None:
    """Who needs no network cannot even make a socket."""
    status, lines, _err = place.outcome(process, deed)
    assert (status, lines) == (KILLED, [])


@needs_root
@pytest.mark.parametrize("process", [Process.LOOKUP, Process.DELIVERY], ids=name)
def test_network_but_no_more(place: Place, process: Process) -> None:
    """Lookup and delivery connect by TCP and UDP, take a source address, but cannot listen or use other families."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        deeds = ["tcp_connect", port], ["tcp_source"], ["udp"], ["unix_connect", "/x"], ["tcp_bind"], ["netlink"]
        status, lines, err = place.outcome(process, *deeds)
    assert (status, lines) == (
        0,
        ["tcp_connect: ok", "tcp_source: ok", "udp: ok", "unix_connect: EAFNOSUPPORT", "tcp_bind: EACCES",
         "netlink: EAFNOSUPPORT"],
    ), err  # fmt: skip


@needs_root
@pytest.mark.parametrize("process", [Process.LOOKUP, Process.DELIVERY], ids=name)
def test_may_not_accept(place: Place, process: Process) -> None:
    """Who connects out has no accept or listen."""
    status, lines, _err = place.outcome(process, ["listen"])
    assert (status, lines) == (KILLED, [])


@needs_root
@pytest.mark.parametrize("process", [Process.LOOKUP, Process.DELIVERY], ids=name)
def test_abstract_sockets_are_out_of_reach(place: Place, process: Process) -> None:
    """A Unix socket made before confinement cannot reach an abstract socket outside (Landlock scope)."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0smtpd_ps-test-abstract")
        server.listen()
        status, lines, err = place.outcome(process, ["pair_abstract", "smtpd_ps-test-abstract"])
    assert (status, lines) == (0, ["pair_abstract: EPERM"]), err


@needs_root
@pytest.mark.parametrize("process", FILELESS, ids=name)
@pytest.mark.parametrize("deed", ["write_file", "make_directory"])
def test_no_files(place: Place, process: Process, deed: str) -> None:
    """Opening a name is refused; making a directory ends the process."""
    status, lines, _err = place.outcome(process, [deed, "/made"])
    assert (status, lines) == ((0, ["write_file: EACCES"]) if deed == "write_file" else (KILLED, []))
    assert list(place.empty.iterdir()) == []


@needs_root
@pytest.mark.parametrize("process", THREADLESS, ids=name)
def test_no_threads(place: Place, process: Process) -> None:
    """A process without the grant cannot start a thread."""
    status, lines, _err = place.outcome(process, ["thread"])
    assert (status, lines) == (KILLED, [])


@needs_root
@pytest.mark.parametrize("process", [p for p in CHILDREN if POLICIES[p].threads], ids=name)
def test_threads(place: Place, process: Process) -> None:
    """A process with the grant starts and joins threads."""
    assert place.outcome(process, ["thread"], ["thread"])[:2] == (0, ["thread: ok", "thread: ok"])


@needs_root
def test_queue_uses_its_spool_only(place: Place) -> None:
    """SQLite in WAL mode, files and folders work below /queue, and nothing works beside it."""
    (place.spool / "other").mkdir(mode=0o777)
    (place.spool / "other").chmod(0o777)
    deeds = (
        ["sqlite", "/queue/db"], ["rename_file", "/queue/a"], ["make_directory", "/queue/d"], ["lock_file", "/queue/l"],
        ["write_file", "/other/x"], ["open_file", "/other"], ["make_directory", "/other/d"],
    )  # fmt: skip
    status, lines, err = place.outcome(Process.QUEUE, *deeds)
    assert status == 0, err
    assert lines == ["sqlite: ok", "rename_file: ok", "make_directory: ok", "lock_file: ok",
                     "write_file: EACCES", "open_file: EACCES", "make_directory: EACCES"]  # fmt: skip


@needs_root
def test_agent_writes_its_mailbox_only(place: Place) -> None:
    """An agent makes its missing Maildir as the user, works in it, and reads nothing else, not even its home."""
    maildir = f"{place.home}/Maildir"
    (place.home / "secret").write_text("x")
    (place.home / "secret").chmod(0o644)
    deeds = (
        ["make_directory", f"{maildir}/tmp"], ["rename_file", f"{maildir}/a"], ["link_file", f"{maildir}/b"],
        ["open_file", f"{place.home}/secret"], ["write_file", f"{place.home}/x"], ["open_file", "/etc/passwd"],
    )  # fmt: skip
    status, lines, err = place.outcome(Process.AGENT, *deeds)
    assert status == 0, err
    assert lines == ["make_directory: ok", "rename_file: ok", "link_file: ok",
                     "open_file: EACCES", "write_file: EACCES", "open_file: EACCES"]  # fmt: skip
    assert os.stat(maildir).st_uid == TEST_UID


@needs_root
def test_agents_that_run_commands(place: Place) -> None:
    """What such an agent starts may do what its user may, and no more: no tracing, no mount, no other user, no
    namespace; a program gains nothing by being set-user-id."""
    (place.home / "own").write_text("x")
    (place.base / "others").write_text("x")
    (place.base / "others").chmod(0o600)
    deeds = (
        ["run_command"], ["open_file"], ["write_file", f"{place.home}/x"], ["open_file", f"{place.base}/others"],
        ["udp"], ["libc_call", "ptrace"], ["libc_call", "mount"], ["become_root"], ["libc_call", "unshare"],
    )  # fmt: skip
    status, lines, err = place.outcome(Process.AGENT, *deeds, common={"commands": True})
    assert status == 0, err
    assert lines == [
        "run_command: ok", "open_file: ok", "write_file: ok", "open_file: EACCES", "udp: ok",
        "libc_call: EPERM", "libc_call: EPERM", "become_root: EPERM", "libc_call: EPERM",
    ]  # fmt: skip
    assert place.outcome(Process.AGENT, ["execute"], common={"commands": True})[0] == 0
    # The same without the mark: the tight policy.
    assert place.outcome(Process.AGENT, ["fork"])[0] == KILLED


@pytest.mark.parametrize("process", CHILDREN, ids=name)
def test_unprivileged_mode(plain_place: Place, process: Process) -> None:
    """Without root there is no chroot and no other user, but filter, Landlock and the rest hold."""
    path = f"{plain_place.spool}/queue/x" if process is Process.QUEUE else f"{plain_place.home}/Maildir/x"
    status, lines, err = plain_place.outcome(process, ["loop_work"], ["open_file"], ["write_file", path], ["execute"])
    written = "ok" if POLICIES[process].paths else "EACCES"
    assert (status, lines) == (KILLED, ["loop_work: ok", "open_file: EACCES", f"write_file: {written}"]), err


@needs_root
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"uid": 0}, "refusing to run as root"),
        ({"gid": 0}, "refusing to run as root"),
        ({"root": ""}, "no root directory"),
        ({"root": "/nowhere"}, "No such file"),
        ({"root": "/tmp"}, "not root's alone to write"),
    ],
)
def test_refusals(place: Place, changes: dict[str, object], said: str) -> None:
    """A set-up that would not confine is an error, not a weaker confinement."""
    first = place.start(Process.KEYS, common=changes).await_ready()
    assert first.startswith("ConfineError") and said in first


@needs_root
@pytest.mark.parametrize(
    "mutant", ["thread", "groups_checked", "no_new_privs_checked", "saved_uid_checked", "dumpable_checked"]
)
def test_self_check(place: Place, mutant: str) -> None:
    """A step that silently did nothing is noticed before the process serves."""
    first = place.start(Process.KEYS, mutant=mutant).await_ready()
    assert first.startswith("ConfineError"), first


def test_missing_libseccomp(plain_place: Place) -> None:
    """Without libseccomp the process refuses and says what to install."""
    first = plain_place.start(Process.KEYS, mutant="libseccomp").await_ready()
    assert first.startswith("ConfineError") and "install libseccomp2" in first


def test_old_kernel(plain_place: Place) -> None:
    """Without Landlock there is a warning, and the filter still holds."""
    child = plain_place.start(Process.KEYS, ["open_file"], mutant="landlock")
    assert "Landlock is not available" in child.await_ready()
    assert child.end()[:2] == (0, ["open_file: EACCES"])
