"""Messages that sendmail kept while nobody took them: found, opened as their owners, handed to agents.

Runs in the parent, as root, which reads names and what stat(2) says, and no message. Each file is opened by
a child that is its owner (parent/user_files); an agent of the owner, who holds nothing but that file and a
connection to smtp's local socket, submits it. The file is removed when smtp has taken the message, and
stays otherwise. What root kept is submitted by the user who owns nothing.
"""

import contextlib
import os
import pwd
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.installation import ALIAS_USER
from smtpd_ps.contract.settings import AgentSettings
from smtpd_ps.contract.values import Phase, Process
from smtpd_ps.parent.file_openers import FileOpeners
from smtpd_ps.parent.system import connect_lmtp
from smtpd_ps.parent.user_files import Identity, kept_refusal, open_kept
from smtpd_ps.pure.offline_mail import EXIT_REFUSED, name_valid
from smtpd_ps.runtime.channel import Channel
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop, Timer
from smtpd_ps.runtime.spawn import describe_exit, spawn

AGAIN_SECS = 30.0  # from one look through the folder to the next
STEP_SECS = 0.1
STEP_FILES = 20  # looked at in one step
MAX_RUNNING = 5
LIMIT_SECS = 900.0  # for an agent
DRAFT_SECS = 86_400  # a file that was not finished is removed then
MAX_LEFT = 10_000  # files that are remembered as no mail


@dataclass(slots=True)
class _Submission:
    name: str
    inode: int
    user: str
    channel: Channel
    timer: Timer


@dataclass(slots=True)
class Offline:
    """`start` once the daemon serves, `end` when it stops."""

    log: Log
    folder: str
    socket_path: str
    hostname: str
    privileged: bool
    foreground: bool
    forbidden_users: frozenset[str] = frozenset()
    again_secs: float = AGAIN_SECS
    _loop: Loop | None = None
    _openers: FileOpeners | None = None
    _timer: Timer | None = None
    _entries: Iterator[os.DirEntry[str]] | None = None
    _running: dict[int, _Submission] = field(default_factory=dict)  # by pid
    _opening: set[str] = field(default_factory=set)
    _left: dict[str, tuple[int, int]] = field(default_factory=dict)  # inode and time of change
    _seen: set[str] = field(default_factory=set)  # of those, in this look
    _ending: bool = False

    def start(self, loop: Loop) -> None:
        """Look through the folder now and from time to time."""
        self._loop = loop
        self._openers = FileOpeners(
            loop, self.log, {}, Identity(0, 0) if self.privileged else None, lambda *_message: None
        )
        self._timer = loop.call_later(STEP_SECS, self._step)

    def users(self) -> dict[int, str]:
        """The users of the agents that run, by pid."""
        return {pid: one.user for pid, one in self._running.items()}

    # Looking.

    def _step(self) -> None:
        assert self._loop is not None
        if self._look():
            self._timer = self._loop.call_later(STEP_SECS, self._step)
        else:
            self._timer = self._loop.call_later(self.again_secs, self._step)

    def _look(self) -> bool:
        """Look at a few files; whether there may be more."""
        try:
            if self._entries is None:
                self._seen.clear()
                self._entries = os.scandir(self.folder)
            for _ in range(STEP_FILES):
                if len(self._running) + len(self._opening) >= MAX_RUNNING:
                    return True
                entry = next(self._entries, None)
                if entry is None:
                    self._forget_others()
                    return False
                self._examine(entry.name)
        except OSError as error:
            self.log.error(f"offline mail: {error.filename or self.folder}: {os.strerror(error.errno or 0)}")
            self._close()
            return False
        return True

    def _close(self) -> None:
        if self._entries is not None:
            self._entries.close()  # type: ignore[attr-defined]  # of os.scandir
            self._entries = None

    def _forget_others(self) -> None:
        self._close()
        self._left = {name: found for name, found in self._left.items() if name in self._seen}

    def _examine(self, name: str) -> None:
        path = f"{self.folder}/{name}"
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return
        if name in self._opening or any(one.name == name for one in self._running.values()):
            return
        mark = (status.st_ino, status.st_ctime_ns)
        if self._left.get(name) == mark:
            self._seen.add(name)
        elif name_valid(name.removeprefix(".")) and name.startswith("."):
            if stat.S_ISREG(status.st_mode) and time.time() - status.st_mtime > DRAFT_SECS:
                self._remove(name, status.st_ino)
        elif not name_valid(name):
            self._leave(name, mark, "sendmail gives no such name")
        elif text := kept_refusal(status, status.st_uid):
            self._leave(name, mark, text)
        else:
            self._open(name, status)

    def _leave(self, name: str, mark: tuple[int, int], why: str) -> None:
        """Not looked at again until it has changed."""
        if len(self._left) >= MAX_LEFT:
            return
        self._left[name] = mark
        self._seen.add(name)
        self.log.warning(f"offline mail: {self.folder}/{name} is left there: {why}")

    def _remove(self, name: str, inode: int) -> None:
        """The file itself, and not what has its name now."""
        path = f"{self.folder}/{name}"
        try:
            if os.lstat(path).st_ino == inode:
                os.unlink(path)
        except OSError as error:
            self.log.error(f"offline mail: {path} was sent and cannot be removed: {os.strerror(error.errno or 0)}")

    # Submitting.

    def _open(self, name: str, status: os.stat_result) -> None:
        mark = (status.st_ino, status.st_ctime_ns)
        try:
            owner = pwd.getpwuid(status.st_uid)
        except KeyError:
            self._leave(name, mark, f"there is no user of uid {status.st_uid}")
            return
        if owner.pw_name in self.forbidden_users or not (self.privileged or owner.pw_uid == os.getuid()):
            self._leave(name, mark, f"{owner.pw_name} sends no mail here")
            return

        def done(verdict: str, text: str, fd: int | None) -> None:
            self._opening.discard(name)
            if self._ending and fd is not None:
                os.close(fd)
            elif verdict == "found" and fd is not None:
                self._submit(name, status.st_ino, owner, fd)
            elif verdict == "refused":
                self._leave(name, mark, text)
            else:
                self.log.warning(f"offline mail: {self.folder}/{name}: {text}")

        self._opening.add(name)
        assert self._openers is not None
        identity = Identity(owner.pw_uid, owner.pw_gid, owner.pw_name)
        self._openers.open_as(identity, lambda: open_kept(f"{self.folder}/{name}", owner.pw_uid), done)

    def _submit(self, name: str, inode: int, owner: pwd.struct_passwd, fd: int) -> None:
        try:
            self._start(name, inode, owner, fd)
        except (OSError, KeyError) as error:
            self.log.warning(f"offline mail: {self.folder}/{name} cannot be submitted now: {error}")

    def _start(self, name: str, inode: int, owner: pwd.struct_passwd, fd: int) -> None:
        """Raises OSError, KeyError (no such user). Closes `fd`."""
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, fd)
            user = owner
            if self.privileged and not (owner.pw_uid and owner.pw_gid):
                user = pwd.getpwnam(ALIAS_USER)
            groups = tuple(os.getgrouplist(user.pw_name, user.pw_gid)) if self.privileged else ()
            connection = connect_lmtp(self.socket_path)
            undo.callback(os.close, connection)
            pid, ours = spawn(Process.AGENT, self.foreground)
            undo.pop_all()
        assert self._loop is not None
        channel = Channel(
            self._loop, ours, Process.PARENT, Process.AGENT, {m.Ready: lambda _message: None}, lambda _why: None,
            Phase.SETUP,
        )  # fmt: skip
        timer = self._loop.call_later(LIMIT_SECS, lambda: os.kill(pid, 9))
        self._running[pid] = _Submission(name, inode, user.pw_name, channel, timer)
        channel.send(
            m.Common(
                root="", uid=user.pw_uid, gid=user.pw_gid, verbose=self.log.verbose, foreground=self.foreground,
                privileged=self.privileged, user=user.pw_name, groups=groups, assets=1, submits=True,
            )
        )  # fmt: skip
        settings = AgentSettings(user.pw_name, user.pw_dir, "", "submit", hostname=self.hostname)
        channel.send(m.AgentSetup(settings))
        channel.send(m.AgentSubmit(name), fd, connection)

    def reap(self) -> None:
        """Collect agents that have ended (after SIGCHLD)."""
        if self._openers is not None:
            self._openers.reap()
        for pid in list(self._running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                self._ended(pid, status)

    def _ended(self, pid: int, status: int) -> None:
        one = self._running.pop(pid)
        one.timer.cancel()
        one.channel.close()
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            self._remove(one.name, one.inode)
        elif code == EXIT_REFUSED:
            with contextlib.suppress(FileNotFoundError):
                found = os.lstat(f"{self.folder}/{one.name}")
                self._leave(one.name, (found.st_ino, found.st_ctime_ns), "see above")
        else:
            self.log.debug(f"offline mail: {one.name} is tried again: {describe_exit(status)}")

    def end(self) -> None:
        """Look no more, and end the agents: what they had stays, to be submitted another time."""
        self._ending = True
        if self._timer is not None:
            self._timer.cancel()
        self._close()
        for pid, one in self._running.items():
            one.timer.cancel()
            one.channel.close()
            os.kill(pid, 9)
        for pid in list(self._running):
            _pid, status = os.waitpid(pid, 0)
            one = self._running.pop(pid)
            if status == 0:  # it had just ended
                self._remove(one.name, one.inode)
