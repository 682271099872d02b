"""Files of users that expansion needs, each opened by a short-lived child as that user.

Runs in the parent, as root; parses nothing. Lookup names a user, and passwd or lookup's own userbase
says who that is (no uid below the floor but root of passwd); for included files it names a path,
which is opened with no other rights than lookup's own. A child that does not answer in time is ended.
"""

import os
import socket
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import ActionSettings
from smtpd_ps.parent.accounts import account_refusal
from smtpd_ps.parent.system import passwd_entry
from smtpd_ps.parent.user_files import Identity, forward_at_first_sight, open_forward, open_include, serve
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop, Timer

DEADLINE_SECS = 5.0
MAX_CHILDREN = 16
MAX_WAITING = 4096
MAX_ANSWER = 1024
_CLOSED_IN_CHILDREN = getattr(socket, "MSG_CMSG_CLOEXEC", 0)

Done = Callable[[str, str, int | None], None]  # verdict, text, descriptor with "found"


@dataclass(slots=True)
class _Opener:
    pid: int
    sock: socket.socket
    timer: Timer
    done: Done


@dataclass(slots=True)
class FileOpeners:
    """Answers ForwardOpen and IncludeOpen. `lookup` is whose rights included files need; None changes no user."""

    loop: Loop
    log: Log
    actions: Mapping[str, ActionSettings]
    lookup: Identity | None
    answer: Callable[..., None]
    forbidden_users: frozenset[str] = frozenset()
    _running: dict[int, _Opener] = field(default_factory=dict)  # by pid
    _waiting: deque[Callable[[], None]] = field(default_factory=deque)
    _leaving: set[int] = field(default_factory=set)  # ended ones that a file system may hold still

    # .forward

    def forward(self, request: m.ForwardOpen) -> None:
        """At once where there is nothing to open."""
        action = self.actions.get(request.action)
        account = request.account
        if account is None:
            try:
                entry = passwd_entry(request.user)
            except (KeyError, ValueError):
                self.answer(m.ForwardNone(request.query, "absent"))
                return
            except OSError:
                self.answer(m.ForwardNone(request.query, "unsure"))
                return
            identity, home = Identity(entry.pw_uid, entry.pw_gid, entry.pw_name), entry.pw_dir
        else:
            refusal = account_refusal(action, account)
            if refusal:
                self.answer(m.ForwardNone(request.query, "temporary", f"user {request.user}: {refusal}"))
                return
            identity, home = Identity(account.uid, account.gid), account.home
        sight = forward_at_first_sight(home)
        if sight == "none" or not self._may_open(identity):
            self.answer(m.ForwardNone(request.query, "none"))
        elif sight == "temporary":
            text = f"{home} is sticky, so .forward is just being changed"
            self.answer(m.ForwardNone(request.query, "temporary", text))
        else:
            self._open_forward(request, identity, home)

    def _may_open(self, identity: Identity) -> bool:
        """The daemon's own users have no .forward, root may have; without root there is only one user."""
        if self.lookup is None:
            return identity.uid == os.getuid()
        return identity.uid == 0 or identity.name not in self.forbidden_users

    def _open_forward(self, request: m.ForwardOpen, identity: Identity, home: str) -> None:
        def done(verdict: str, text: str, fd: int | None) -> None:
            match verdict:
                case "found" if fd is not None:
                    self.answer(m.ForwardFile(request.query, identity.uid == 0), fd)
                case "none":
                    self.answer(m.ForwardNone(request.query, "none"))
                case "refused":
                    self.answer(m.ForwardNone(request.query, "refused", text))
                case _:
                    self.answer(m.ForwardNone(request.query, "temporary", text))

        self.open_as(identity, lambda: open_forward(home, identity.uid), done)

    # Included files.

    def include(self, request: m.IncludeOpen) -> None:
        """Opened as lookup would, were it not confined."""
        if not request.path.startswith("/") or "\0" in request.path:
            self.answer(m.IncludeNone(request.query, "not an absolute path"))
            return

        def done(verdict: str, text: str, fd: int | None) -> None:
            if verdict == "found" and fd is not None:
                self.answer(m.IncludeFile(request.query), fd)
            else:
                self.answer(m.IncludeNone(request.query, text or f"{request.path}: cannot be opened"))

        self.open_as(self.lookup, lambda: open_include(request.path), done)

    # Children.

    def open_as(self, identity: Identity | None, work: Callable[[], int], done: Done) -> None:
        """Have a child with these rights do the work; `done` is told once, later."""
        if self._room():
            self._start(identity, work, done)
        elif len(self._waiting) < MAX_WAITING:
            self._waiting.append(lambda: self._start(identity, work, done))
        else:
            done("temporary", "too many files are being opened", None)

    def _start(self, identity: Identity | None, work: Callable[[], int], done: Done) -> None:
        if self.lookup is None:
            identity = None
        try:
            ours, theirs = socket.socketpair()
            try:
                pid = os.fork()
            except OSError:
                ours.close()
                theirs.close()
                raise
        except OSError as error:
            self.log.error(f"cannot start a child to open a file: {error}")
            self.loop.call_soon(lambda: done("temporary", "no file can be opened now", None))
            return
        if not pid:
            serve(theirs, identity, work)
        theirs.close()
        timer = self.loop.call_later(DEADLINE_SECS, lambda: self._end(pid, "temporary", "it takes too long"))
        self._running[pid] = _Opener(pid, ours, timer, done)
        self.loop.read_on(ours.fileno(), lambda: self._spoken(pid))

    def _spoken(self, pid: int) -> None:
        try:
            data, fds, _flags, _address = socket.recv_fds(self._running[pid].sock, MAX_ANSWER, 1, _CLOSED_IN_CHILDREN)
        except OSError:
            data, fds = b"", []
        for fd in fds:
            os.set_inheritable(fd, False)
        verdict, _, text = data.decode(errors="replace").partition("\n")
        self._end(pid, verdict or "temporary", text, fds[0] if fds else None)

    def _end(self, pid: int, verdict: str, text: str, fd: int | None = None) -> None:
        opener = self._running.pop(pid)
        opener.timer.cancel()
        self.loop.forget(opener.sock.fileno())
        opener.sock.close()
        os.kill(pid, 9)  # it has spoken or it is late; either way it is over
        self._leaving.add(pid)
        opener.done(verdict, text, fd)
        self.reap()

    def _room(self) -> bool:
        return len(self._running) + len(self._leaving) < MAX_CHILDREN

    @property
    def busy(self) -> bool:
        """Whether there are children still."""
        return bool(self._running or self._leaving)

    def reap(self) -> None:
        """Collect those that have ended (after SIGCHLD, too), and start others that wait."""
        for pid in list(self._leaving):
            if os.waitpid(pid, os.WNOHANG)[0]:
                self._leaving.remove(pid)
        while self._waiting and self._room():
            self._waiting.popleft()()
