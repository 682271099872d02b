"""What children may ask of the system: does a user exist, is a password right, an LMTP socket.

Runs in the parent, as root. Names come in, facts and descriptors go out; passwords are checked in
a short-lived process of their own.
"""

import os
import pwd
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ActionSettings
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop, Timer
from smtpd_ps.runtime.spawn import spawn_module

AUTH_TIMEOUT_SECS = 10.0
MAX_AUTH_CHECKS = 16
USERS_FILE = "/etc/passwd"


def passwd_entry(name: str) -> pwd.struct_passwd:
    """The user of that name. Raises KeyError where there is none, OSError where nobody can say.

    The pwd module says "not found" also when the system could not look, for lack of descriptors for
    instance.
    """
    try:
        return pwd.getpwnam(name)
    except KeyError:
        os.close(os.open(USERS_FILE, os.O_RDONLY | os.O_CLOEXEC))
        raise


def system_user(query: m.UserQuery) -> m.UserInfo:
    """Whether passwd has the user."""
    try:
        passwd_entry(query.user)
    except (KeyError, ValueError):  # a NUL or a surrogate is in nobody's name
        return m.UserInfo(query.query, False)
    except OSError:
        return m.UserInfo(query.query, False, temporary=True)
    return m.UserInfo(query.query, True)


def connect_lmtp(path: str) -> int:
    """A connected, non-blocking Unix socket. Raises OSError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)  # a full backlog answers EAGAIN at once instead of blocking root
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock.detach()


def answer_lmtp(actions: dict[str, ActionSettings], request: m.LmtpConnect, answer: Callable[..., None]) -> None:
    """Connect to the socket that the action names in smtpd.conf, and hand it over."""
    action = actions.get(request.action)
    if action is None or action.kind != "lmtp" or not action.lmtp_destination.startswith("/"):
        answer(m.AgentRefused(request.request, True, f"action {request.action} has no LMTP socket"))
        return
    try:
        fd = connect_lmtp(action.lmtp_destination)
    except OSError as error:
        text = f"{action.lmtp_destination}: {os.strerror(error.errno or 0)}"
        answer(m.AgentRefused(request.request, True, text))
        return
    answer(m.LmtpConnected(request.request), fd)


def _start_check() -> tuple[int, socket.socket]:
    """The checker's pid and our end of the socketpair to it. Raises OSError."""
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            return spawn_module("smtpd_ps.parent.system_auth", theirs, keep_stderr=False), ours
        except OSError:
            ours.close()
            raise


@dataclass(slots=True)
class _Check:
    query: int
    pid: int
    sock: socket.socket
    timer: Timer


@dataclass(slots=True)
class SystemAuth:
    """Password checks against the system, each in a process of its own with a deadline."""

    loop: Loop
    log: Log
    answer: Callable[[m.Message], None]
    _checks: dict[int, _Check] = field(default_factory=dict)  # by pid

    def check(self, request: m.SystemAuth) -> None:
        """Answer SystemAuthReply when the checker has spoken, or "error" after the deadline."""
        if len(self._checks) >= MAX_AUTH_CHECKS:
            self.answer(m.SystemAuthReply(request.query, "error"))
            return
        try:
            pid, ours = _start_check()
        except OSError as error:
            self.log.error(f"cannot start the password check: {error}")
            self.answer(m.SystemAuthReply(request.query, "error"))
            return
        ours.sendall(request.user.encode() + b"\0" + request.password.encode())
        ours.shutdown(socket.SHUT_WR)
        timer = self.loop.call_later(AUTH_TIMEOUT_SECS, lambda: self._end(pid, "error"))
        self._checks[pid] = _Check(request.query, pid, ours, timer)
        self.loop.read_on(ours.fileno(), lambda: self._spoken(pid))

    def _spoken(self, pid: int) -> None:
        try:
            word = self._checks[pid].sock.recv(16)
        except OSError:
            word = b""
        self._end(pid, {b"ok": "ok", b"no": "no"}.get(word, "error"))

    def _end(self, pid: int, verdict: str) -> None:
        check = self._checks.pop(pid)
        check.timer.cancel()
        self.loop.forget(check.sock.fileno())
        check.sock.close()
        os.kill(pid, 9)  # it has spoken or it is late; either way it is over
        os.waitpid(pid, 0)
        match verdict:
            case "ok":
                self.answer(m.SystemAuthReply(check.query, "ok"))
            case "no":
                self.answer(m.SystemAuthReply(check.query, "no"))
            case _:
                self.answer(m.SystemAuthReply(check.query, "error"))
