"""OpenBSD and FreeBSD against stand-ins for their C library and samples of their tools' output."""

import ctypes
import errno
import struct
from typing import Any

import pytest

from smtpd_ps.contract.messages import Common
from smtpd_ps.contract.policy import POLICIES
from smtpd_ps.contract.values import Process
from smtpd_ps.osdep import bsd_interfaces, freebsd, openbsd
from smtpd_ps.osdep.bsd_inspect import parse_freebsd, parse_fstat, parse_openbsd, title_of
from smtpd_ps.osdep.errors import ConfineError
from smtpd_ps.pure.audit import Expected, findings

CONFINED = [process for process, policy in POLICIES.items() if policy.confined]


class FakeLibc:
    """Records calls in order; fails where it is told to; answers reads with what was set unless told to lie."""

    def __init__(self, fails: str = "", lies: bool = False) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.fails, self.lies = fails, lies
        self.set: dict[int, int] = {}
        self.mode = 0

    def _done(self, *call: object) -> int:
        self.calls.append(call)
        if call[0] == self.fails:
            ctypes.set_errno(errno.EPERM)
            return -1
        return 0

    def pledge(self, promises: bytes, execpromises: bytes | None) -> int:
        return self._done("pledge", promises, execpromises)

    def unveil(self, path: bytes | None, permissions: bytes | None) -> int:
        return self._done("unveil", path, permissions)

    def procctl(self, _idtype: int, _identity: Any, command: int, data: Any) -> int:
        value = data._obj
        if command in (freebsd.PROC_TRACE_CTL, freebsd.PROC_NO_NEW_PRIVS_CTL):
            self.set[command] = value.value
        elif command == freebsd.PROC_TRACE_STATUS and not self.lies:
            value.value = -1 if self.set.get(freebsd.PROC_TRACE_CTL) == freebsd.PROC_TRACE_CTL_DISABLE else 0
        elif not self.lies:
            value.value = self.set.get(freebsd.PROC_NO_NEW_PRIVS_CTL, 2)
        return self._done("procctl", command)

    def cap_enter(self) -> int:
        self.mode = 1
        return self._done("cap_enter")

    def cap_getmode(self, mode: Any) -> int:
        mode._obj.value = 0 if self.lies else self.mode
        return self._done("cap_getmode")


@pytest.fixture(autouse=True)
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Users, roots and limits are not really changed; their order is recorded."""
    done: list[str] = []
    for module in (openbsd, freebsd):
        monkeypatch.setattr(module, "set_limits", lambda policy: done.append("limits") or ())
        monkeypatch.setattr(module, "enter_root", lambda policy, common: done.append("root"))
        monkeypatch.setattr(module, "become_user", lambda common: done.append("user"))
        monkeypatch.setattr(module, "make_directories", lambda paths: done.append("directories"))
    return done


def common(process: Process, privileged: bool = True) -> Common:
    root = {"spool": "/spool", "empty": "/empty"}.get(POLICIES[process].root, "")
    writable = ("/home/a/Maildir",) if process is Process.AGENT else ()
    return Common(root, 7, 7, 0, False, privileged, "x", (), writable)


@pytest.mark.parametrize("process", CONFINED, ids=lambda p: p.title)
def test_openbsd(process: Process, steps: list[str]) -> None:
    """Limits, root, user, then the paths unveiled and locked, and exactly the declared promises at the end."""
    libc = FakeLibc()
    assert openbsd.confine(process, common(process), libc) == ()
    assert steps[:3] == ["limits", "root", "user"]
    promises = " ".join(grant.name for grant in POLICIES[process].promises).encode()
    assert libc.calls[-2:] == [("unveil", None, None), ("pledge", promises, None)]
    paths = {
        Process.QUEUE: [("unveil", b"/queue", b"rwc")],
        Process.AGENT: [("unveil", b"/home/a/Maildir", b"rwc")],
    }
    assert libc.calls[:-2] == paths.get(process, [("unveil", b"/", b"")])


def test_openbsd_unprivileged(steps: list[str]) -> None:
    """Without privileges no user or root changes, and the spool is unveiled by its whole path."""
    libc = FakeLibc()
    openbsd.confine(Process.QUEUE, common(Process.QUEUE, privileged=False), libc)
    assert steps == ["limits"]
    assert libc.calls[0] == ("unveil", b"/spool/queue", b"rwc")


@pytest.mark.parametrize("fails", ["pledge", "unveil"])
def test_openbsd_failures(fails: str) -> None:
    """A call that fails is an error that names it."""
    with pytest.raises(ConfineError, match=f"{fails}.*Operation not permitted"):
        openbsd.confine(Process.KEYS, common(Process.KEYS), FakeLibc(fails))


@pytest.mark.parametrize("process", CONFINED, ids=lambda p: p.title)
def test_freebsd(process: Process, steps: list[str]) -> None:
    """Limits, root, user, no tracing, no new privileges; capability mode where the policy says it fits, last."""
    libc = FakeLibc()
    assert freebsd.confine(process, common(process), libc) == ()
    assert steps[:3] == ["limits", "root", "user"]
    names = [call[0] for call in libc.calls]
    assert names[:4] == ["procctl"] * 4
    assert libc.set == {freebsd.PROC_TRACE_CTL: 2, freebsd.PROC_NO_NEW_PRIVS_CTL: 1}
    assert names[4:] == (["cap_enter", "cap_getmode"] if POLICIES[process].capsicum.enter else [])


def test_capsicum_where_it_fits() -> None:
    """The processes that only use descriptors they hold enter capability mode."""
    entering = {process for process, policy in POLICIES.items() if policy.capsicum.enter}
    assert entering == {Process.KEYS, Process.CONTROL, Process.SMTP}


@pytest.mark.parametrize(
    ("fails", "lies"), [("procctl", False), ("cap_enter", False), ("cap_getmode", False), ("", True)]
)
def test_freebsd_failures(fails: str, lies: bool) -> None:
    """A call that fails, or that did not take although it said so, is an error."""
    with pytest.raises(ConfineError):
        freebsd.confine(Process.KEYS, common(Process.KEYS), FakeLibc(fails, lies))


@pytest.mark.parametrize("module", [openbsd, freebsd])
def test_refusals(module: Any) -> None:
    """Root as the target and the parent are refused before anything is done."""
    libc = FakeLibc()
    with pytest.raises(ConfineError, match="refusing to run as root"):
        module.confine(Process.KEYS, Common("/empty", 0, 0, 0, False, True), libc)
    with pytest.raises(ConfineError, match="parent has no sandbox"):
        module.confine(Process.PARENT, common(Process.KEYS), libc)
    assert libc.calls == []


class FakeSocket:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def getsockopt(self, _level: int, _name: int, size: int) -> bytes:
        return self.data[:size]


def test_peer_credentials() -> None:
    """uid, gid and pid out of struct sockpeercred and struct xucred; no pid on a system without."""
    assert openbsd.peer_credentials(FakeSocket(struct.pack("=IIi", 1, 2, 3))) == (1, 2, 3)  # type: ignore[arg-type]
    head = struct.pack("@IIh16I0P", 0, 1000, 2, 1001, 5, *[0] * 14)
    assert freebsd.parse_xucred(head + struct.pack("@i4x", 77)) == (1000, 1001, 77)
    assert freebsd.parse_xucred(head) == (1000, 1001, 0)


class FakeIoctl:
    def __init__(self, members: list[bytes] | None) -> None:
        self.members = members

    def ioctl(self, _fd: int, request: Any, argument: Any) -> int:
        assert request.value == bsd_interfaces.SIOCGIFGMEMB
        asked = argument._obj
        if self.members is None:
            ctypes.set_errno(errno.ENOENT)
            return -1
        if asked.length == 0:
            asked.length = 16 * len(self.members)
        else:
            for at, name in enumerate(self.members[: asked.length // 16]):
                asked.value.members[at].name = name
        return 0


def test_interface_group() -> None:
    """Members by name; no such group, and names that cannot be one, are empty; another error is raised."""
    assert bsd_interfaces.interface_group("egress", FakeIoctl([b"em0", b"em1"])) == ("em0", "em1")
    assert bsd_interfaces.interface_group("egress", FakeIoctl(None)) == ()
    assert bsd_interfaces.interface_group("", FakeIoctl([b"em0"])) == ()
    assert bsd_interfaces.interface_group("x" * 16, FakeIoctl([b"em0"])) == ()

    class Broken:
        def ioctl(self, *_arguments: Any) -> int:
            ctypes.set_errno(errno.ENXIO)
            return -1

    with pytest.raises(OSError):
        bsd_interfaces.interface_group("egress", Broken())


def test_request_layout() -> None:
    """struct ifgroupreq is a name, a length and a union of a name and a pointer; the number carries its size."""
    if ctypes.sizeof(ctypes.c_void_p) == 8:
        assert ctypes.sizeof(bsd_interfaces.Request) == 40
        assert bsd_interfaces.SIOCGIFGMEMB == 0xC028698A


PROCSTAT_S = "  742 python3.11        101   101   101   102   102   102    022 C     102,103\n"
PROCSTAT_F = """\
  742 python3.11        text v r r-------   -       - -   /usr/local/bin/python3.11
  742 python3.11         cwd v d r-------   -       - -   /var/spool/smtpd_ps/empty
  742 python3.11        root v d r-------   -       - -   /var/spool/smtpd_ps/empty
  742 python3.11           0 v c rw------   5       0 -   /dev/null
  742 python3.11           1 v c rw------   5       0 -   /dev/null
  742 python3.11           2 v c rw------   5       0 -   /dev/null
  742 python3.11           3 s - rw------   1       0 UDS -
  742 python3.11           4 k - rw------   1       0 -   -
  742 python3.11           5 s - rw------   1       0 TCP 10.0.0.2:25 0.0.0.0:0
  742 python3.11           6 s - rw------   1       0 TCP 10.0.0.2:25 10.0.0.9:4711
  742 python3.11           7 s - rw------   1       0 UDD /var/run/log
  742 python3.11           8 v r -w------   1       0 -   /var/spool/smtpd_ps/queue/bodies/1
  742 python3.11           9 s - rw------   1       0 UDP 10.0.0.2:53 0.0.0.0:0
"""
PROCSTAT_L = """\
  742 python3.11       coredumpsize             0 B          0 B
  742 python3.11       openfiles              16640        16640
  742 python3.11       maxproc             infinity     infinity
"""


def test_freebsd_inspection() -> None:
    """Ids, groups, root, executable, title, capability mode, limits and kinds of descriptors."""
    seen = parse_freebsd(742, PROCSTAT_S, PROCSTAT_F, PROCSTAT_L, "python3.11: smtpd_ps: smtp (python3.11)\n")
    assert (seen.uids, seen.gids, seen.groups) == ((101,) * 3, (102,) * 3, (102, 103))
    assert (seen.root, seen.executable) == ("/var/spool/smtpd_ps/empty", "/usr/local/bin/python3.11")
    assert seen.title == "smtpd_ps: smtp" and seen.capability_mode is True
    assert seen.limits == {"core": (0, 0), "nofile": (16640, 16640)}
    assert seen.descriptors is not None
    assert [descriptor.kind for descriptor in seen.descriptors] == [
        "stdio", "stdio", "stdio", "channel", "epoll", "tcp-listener", "tcp", "log", "file", "udp",
    ]  # fmt: skip
    assert seen.descriptors[8].access == "write"
    expected = Expected(
        POLICIES[Process.SMTP], 101, 102, (103,), "/var/spool/smtpd_ps/empty", title="smtpd_ps: smtp", system="freebsd",
        spool="/var/spool/smtpd_ps",
    )  # fmt: skip
    assert [finding.line for finding in findings(expected, seen)] == ["descriptors"]  # the UDP socket
    without = parse_freebsd(742, PROCSTAT_S.replace(" C ", " - "), PROCSTAT_F, PROCSTAT_L, "")
    assert without.capability_mode is False


PS = """\
  UID  RUID SVUID   GID  RGID SVGID STAT SUPGID           COMMAND
  101   101   101   102   102   102 Icp   102              python3.11: smtpd_ps: keys (python3.11)
"""
FSTAT = """\
USER     CMD          PID   FD MOUNT        INUM  MODE         R/W    SZ|DV
_sps_key python3.11  1234 text /usr/local   12345  -rwxr-xr-x     r     4720
_sps_key python3.11  1234   wd /var         5678  drwxr-xr-x     r      512
_sps_key python3.11  1234 root /var         5678  drwxr-xr-x     r      512
_sps_key python3.11  1234    0 /            4321  crw-rw-rw-    rw     null
_sps_key python3.11  1234    3* unix stream 0xfffffd806ad0 <-> 0xfffffd806ae8
_sps_key python3.11  1234    4* kqueue 0xfffffd8012 0 state: W
_sps_key python3.11  1234    5* internet stream tcp 0xfffffd80 *:25
_sps_key python3.11  1234    6* internet stream tcp 0xfffffd81 10.0.0.2:25 <-- 10.0.0.9:4711
_sps_key python3.11  1234    7* internet dgram udp 10.0.0.2:53
_sps_key python3.11  1234    8 /var         999  -rw-------     w      100
_sps_key python3.11  1234    9* unix stream 0xfffffd82 /var/run/smtpd_ps/control.sock
_sps_key python3.11  1234   10* unix dgram 0xfffffd83 -> /dev/log
_sps_key python3.11  1234   11* pipe 0xfffffd84 state:
"""


def test_openbsd_inspection() -> None:
    """Ids, pledge and chroot from the state letters, title, and kinds of descriptors."""
    seen = parse_openbsd(1234, PS, FSTAT)
    assert (seen.uids, seen.gids, seen.groups) == ((101,) * 3, (102,) * 3, (102,))
    assert seen.pledged is True and seen.chrooted is True and seen.title == "smtpd_ps: keys"
    bare = parse_openbsd(1234, PS.replace("Icp", "I  "), FSTAT)
    assert bare.pledged is False and bare.chrooted is False
    assert [(d.number, d.kind) for d in parse_fstat(FSTAT)] == [
        (0, "stdio"), (3, "channel"), (4, "epoll"), (5, "tcp-listener"), (6, "tcp"), (7, "udp"), (8, "file"),
        (9, "unix-listener"), (10, "log"), (11, "pipe"),
    ]  # fmt: skip
    with pytest.raises(ProcessLookupError):
        parse_openbsd(1234, PS.splitlines()[0], FSTAT)


def test_titles() -> None:
    """What setproctitle(3) and ps add is taken off; other command lines are left as they are."""
    assert title_of("python: smtpd_ps: agent joe (python3.11)") == "smtpd_ps: agent joe"
    assert title_of("smtpd_ps: queue") == "smtpd_ps: queue"
    assert title_of("/bin/sh -c x") == "/bin/sh -c x"
