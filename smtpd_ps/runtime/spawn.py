"""Start a child process: fork and exec, a bare environment, its channel on descriptor 3.

Runs in the parent; parses nothing. Every other descriptor is close-on-exec (PEP 446), so a
child begins with 0, 1, 2 and 3 and a fresh address space.
"""

import fcntl
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import NoReturn

from smtpd_ps.contract.values import Process
from smtpd_ps.osdep import close_from
from smtpd_ps.runtime.child import PARENT_FD

# One harmless variable: setproctitle finds the title's place by the first of them.
ENVIRONMENT = {"LC_ALL": "C.UTF-8"}

_MODULES: dict[Process, str] = {
    Process.KEYS: "smtpd_ps.keys",
    Process.CONTROL: "smtpd_ps.control",
    Process.SMTP: "smtpd_ps.smtp",
    Process.LOOKUP: "smtpd_ps.lookup",
    Process.QUEUE: "smtpd_ps.queue",
    Process.DELIVERY: "smtpd_ps.delivery",
    Process.AGENT: "smtpd_ps.agents",
}


def python_argv(module: str) -> list[str]:
    """The command that runs `module` isolated: no environment, no user site, no current folder."""
    return [sys.executable, "-I", "-X", "utf8", "-m", module]


def spawn_module(module: str, channel: socket.socket, keep_stderr: bool) -> int:
    """Run `module` with `channel` as descriptor 3; the pid. Raises OSError.

    Unless `keep_stderr`, nothing of the caller's terminal or pipes stays open in the child.
    """
    with ExitStack() as opened:
        high = fcntl.fcntl(channel.fileno(), fcntl.F_DUPFD_CLOEXEC, PARENT_FD + 1)
        opened.callback(os.close, high)
        null = os.open(os.devnull, os.O_RDWR)
        opened.callback(os.close, null)
        null_high = fcntl.fcntl(null, fcntl.F_DUPFD_CLOEXEC, PARENT_FD + 1)
        opened.callback(os.close, null_high)
        return os.posix_spawn(
            sys.executable,
            python_argv(module),
            ENVIRONMENT,
            file_actions=[
                *((os.POSIX_SPAWN_DUP2, null_high, fd) for fd in ((0,) if keep_stderr else (0, 1, 2))),
                (os.POSIX_SPAWN_DUP2, high, PARENT_FD),
            ],
            setsigmask=(),
        )


def spawn(process: Process, keep_stderr: bool) -> tuple[int, socket.socket]:
    """Start `process`: its pid, and the parent's end of its channel. Raises OSError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        pid = spawn_module(_MODULES[process], theirs, keep_stderr)
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return pid, ours


def spawn_program(
    path: str,
    argv: Sequence[str],
    environment: Mapping[str, str],
    stdio: tuple[int, int, int],
    ids: tuple[int, int] | None,
    root: str,
) -> int:
    """Run a program of the operator's in a session of its own; the pid. Raises OSError.

    It gets `stdio` as descriptors 0, 1 and 2 and no other, and becomes `ids` (user and group; None
    leaves them) below the directory `root` ("" for none). Where it cannot be executed, the new
    process says why on its standard error and ends with status 127.
    """
    with ExitStack() as opened:
        high: list[int] = []
        for fd in stdio:
            high.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, PARENT_FD))
            opened.callback(os.close, high[-1])
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            pid = os.fork()
            if not pid:
                _become_program(path, argv, environment, high, ids, root)
            return pid
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _become_program(
    path: str,
    argv: Sequence[str],
    environment: Mapping[str, str],
    stdio: Sequence[int],
    ids: tuple[int, int] | None,
    root: str,
) -> NoReturn:
    try:
        os.setsid()
        for caught in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(caught, signal.SIG_DFL)
        for number, fd in enumerate(stdio):
            os.dup2(fd, number)
        close_from(3)
        os.umask(0o077)
        if root:
            os.chroot(root)
        os.chdir("/")
        if ids is not None:
            uid, gid = ids
            os.setgroups([gid])
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        os.execve(path, list(argv), environment)  # noqa: S606
    except (OSError, ValueError) as error:
        os.write(2, f"{path} cannot be run: {error}\n".encode(errors="replace"))
    finally:  # whatever it was, nothing of the parent goes on here
        os._exit(127)


def describe_exit(status: int) -> str:
    """How a child ended, from waitpid's status."""
    if os.WIFSIGNALED(status):
        return f"killed by signal {os.WTERMSIG(status)}"
    return f"exit status {os.WEXITSTATUS(status)}"
