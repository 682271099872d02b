"""Hostile users of this host: floods and rubbish on the control socket and on the submission socket.

CVE-2025-62875 (OpenSMTPD): rubbish on the local socket ended the daemon.
"""

import array
import contextlib
import os
import socket
import subprocess
import sys

import pytest
from support.daemon import wait_until
from support.hostile import Target, Wire, peak_memory

NOBODY = 65534


# The interpreter may lie where nobody else can read, so that the script gives root up itself.
BECOME_NOBODY = f"""
import os, resource, socket, sys
os.setgroups([])
os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
"""


def as_nobody(script: str, *arguments: str) -> str:
    """Run a Python script as another user; what it printed."""
    argv = [sys.executable, "-I", "-c", BECOME_NOBODY + script, *arguments]
    done = subprocess.run(argv, text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def control(target: Target) -> str:
    """The control socket."""
    return str(target.daemon.state / "run/control.sock")


def submission(target: Target) -> str:
    """The socket for local submission."""
    return str(target.daemon.state / "run/smtpd_ps.sock")


def test_control_socket_is_roots(target: Target) -> None:
    """Another user cannot even connect, however often."""
    script = """
refused = 0
for _ in range(2000):
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(sys.argv[1])
        except PermissionError:
            refused += 1
print(refused)
"""
    assert as_nobody(script, control(target)) == "2000"


FRAMES = {
    "rubbish": os.urandom(4096),
    "zeroes": bytes(65_536),
    "ones": b"\xff" * 65_536,
    "a frame of 4 GiB": b"\1\0\0\0\xff\xff\xff\x7f" + bytes(8) + b"x" * 100_000,
    "a frame of 16 bytes": b"\1\0\0\0\x10\0\0\0" + bytes(8),
    "a frame of 15 bytes": b"\1\0\0\0\x0f\0\0\0" + bytes(8),
    "a frame that never ends": b"\1\0\0\0\0\x40\0\0" + bytes(8) + b"x" * 100,
    "SMTP": b"EHLO x\r\nMAIL FROM:<a@b.test>\r\n",
    "half a header": b"\1\0",
}


@pytest.mark.parametrize("what", FRAMES)
def test_rubbish_on_the_control_socket_cve_2025_62875(target: Target, what: str) -> None:
    """Only that client is disconnected, and other operators are served meanwhile."""
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(control(target))
            sock.settimeout(5)
            with contextlib.suppress(ConnectionError):
                sock.sendall(FRAMES[what])
                sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionError):
                assert sock.recv(100) == b""
        assert target.watch.queued() == 0


@pytest.mark.parametrize("path", [control, submission])
def test_descriptors_that_nobody_asked_for(target: Target, path: object) -> None:
    """Descriptors sent along are not kept."""
    assert callable(path)
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(path(target))
            rights = array.array("i", [0] * 200)
            with contextlib.suppress(ConnectionError):
                sock.sendmsg([b"NOOP\r\n" + bytes(32)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        target.watch.serves()
        assert target.watch.fd_count("control") <= target.watch.descriptors["control"] + 40
        assert target.watch.fd_count("smtp") <= target.watch.descriptors["smtp"] + 40


def test_operators_that_say_nothing(target: Target) -> None:
    """They are bounded in number, and when they leave there is room again."""
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            sock = stack.enter_context(socket.socket(socket.AF_UNIX))
            sock.connect(control(target))
        wait_until("the bound is reached", lambda: target.watch.fd_count("control") > 32 + 5)
        assert target.watch.fd_count("control") <= target.watch.descriptors["control"] + 33
        target.watch.serves()
    wait_until("there is room again", lambda: target.watch.fd_count("control") <= target.watch.descriptors["control"])


def test_a_user_takes_all_sessions_of_the_submission_socket(target: Target) -> None:
    """Three thousand sessions of one user: he gets a thousand, and the network is served at once."""
    script = """
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
socks, greeted = [], 0
for _ in range(3000):
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(10)
    sock.connect(sys.argv[1])
    greeted += sock.recv(3) == b"220"
    socks.append(sock)
print(greeted, flush=True)
sys.stdin.read()
"""
    with (
        peak_memory(target.watch),
        subprocess.Popen(
            [sys.executable, "-I", "-c", BECOME_NOBODY + script, submission(target)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as flood,
    ):
        assert flood.stdin and flood.stdout
        assert flood.stdout.readline() == "1024\n"
        target.watch.serves()
        with target.wire() as wire:
            wire.to_data()
            assert wire.say(b"Subject: x\r\n\r\nx\r\n.").startswith(b"250 ")
            wire.say("QUIT")
        target.taken(1)
        flood.stdin.close()
        assert flood.wait(20) == 0


def test_a_user_knocks_and_runs(target: Target) -> None:
    """Five thousand connections that close at once, or in the middle of a command."""
    script = """
for at in range(5000):
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(sys.argv[1])
        if at % 2:
            try:
                sock.sendall(b"EHLO x\\r\\nMAIL FROM:<a@b.te")
            except BrokenPipeError:
                pass
"""
    as_nobody(script, submission(target))
    target.watch.serves()


def test_a_user_may_not_relay(target: Target) -> None:
    """What no rule allows is refused on the submission socket as well; rubbish there is refused."""
    script = """
with socket.socket(socket.AF_UNIX) as sock:
    sock.settimeout(10)
    sock.connect(sys.argv[1])
    file = sock.makefile("rwb")
    file.readline()
    for line in (b"EHLO x", b"MAIL FROM:<root@mx.test>", b"RCPT TO:<b@elsewhere.test>", b"\\0\\xff", b"STARTTLS"):
        file.write(line + b"\\r\\n")
        file.flush()
        while (answer := file.readline())[3:4] == b"-":
            pass
        print(answer[:3].decode())
"""
    assert as_nobody(script, submission(target)).split() == ["250", "250", "550", "500", "503"]


def test_the_files_of_the_daemon_are_closed_to_others(target: Target) -> None:
    """Nobody else reads the spool, or writes where the sockets lie."""
    script = """
state, found = sys.argv[1], []
for path in ("spool/queue", "spool", "empty", "run", "."):
    full = os.path.join(state, path)
    if path in ("spool/queue",) and os.access(full, os.R_OK | os.X_OK, effective_ids=True):
        found.append("reads " + path)
    if os.access(full, os.W_OK, effective_ids=True):
        found.append("writes " + path)
print(found)
"""
    assert as_nobody(script, str(target.daemon.state)) == "[]"


def test_signals_and_traces_of_others(target: Target) -> None:
    """Another user can neither signal nor trace a process, nor read its memory."""
    script = """
for pid in sys.argv[1:]:
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        pass
    else:
        print("signals", pid)
    for name in ("mem", "environ", "maps", "fd"):
        try:
            os.listdir(f"/proc/{pid}/fd") if name == "fd" else open(f"/proc/{pid}/{name}").read(1)
        except PermissionError:
            pass
        else:
            print("reads", pid, name)
"""
    assert as_nobody(script, *map(str, target.watch.pids.values())) == ""


def test_submission_socket_is_a_listener_like_others(target: Target) -> None:
    """A message from there is delivered once, with Received that says local."""
    with Wire(submission(target)) as wire:
        wire.hello()
        wire.to_data()
        assert wire.say(b"Subject: x\r\n\r\nx\r\n.").startswith(b"250 ")
        wire.say("QUIT")
    (data,) = target.taken(1)
    assert b"[local]" in data
