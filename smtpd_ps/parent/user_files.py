"""A .forward, an included file or a kept message, opened with the rights of whoever it concerns.

Runs in a short-lived child of the parent, forked for one file (parent/file_openers): it becomes the
user before it looks at anything, so that nothing is opened that the user could not read, and a file
system that never answers stops nobody but this child. The bytes are not parsed here.
"""

import array
import errno
import os
import signal
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

MAX_FORWARD_BYTES = 4096  # that many are too many
MAX_TEXT = 500
LIFE_SECS = 10  # the parent does not wait that long
CHANNEL_FD = 3

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_LINKS = (errno.ELOOP, getattr(errno, "EMLINK", errno.ELOOP), getattr(errno, "EFTYPE", errno.ELOOP))  # O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose rights. `name` gets the groups of the system's databases; "" has no other group than `gid`."""

    uid: int
    gid: int
    name: str = ""


class Refusal(Exception):
    """Why there is no descriptor: "none", or a text."""

    def __init__(self, verdict: str, text: str = "") -> None:
        super().__init__(text)
        self.verdict = verdict


def forward_at_first_sight(home: str) -> str:
    """ "none" and "temporary" as a ForwardNone says, or "look": only the user can tell.

    Made by root, in the parent itself, since nearly nobody has a .forward: two looks at names, no
    file is opened.
    """
    if not home.startswith("/"):
        return "none"
    try:
        if os.stat(home).st_mode & stat.S_ISVTX:
            return "temporary"
        os.lstat(f"{home}/.forward")
    except FileNotFoundError:
        return "none"
    except OSError:
        return "look"
    return "look"


def open_forward(home: str, uid: int) -> int:
    """A pipe that holds the bytes of the file. Raises Refusal, OSError.

    The file and the home must be safe from others: owned by the user (the home perhaps by root),
    writable by nobody else, the file no link. Only the home is looked at, not what is above it.
    """
    directory = _open_directory(home)
    try:
        status = os.fstat(directory)
        if status.st_mode & stat.S_ISVTX:
            raise Refusal("temporary", f"{home} is sticky, so .forward is just being changed")
        try:
            fd = os.open(".forward", _FILE | os.O_NOFOLLOW, dir_fd=directory)
        except FileNotFoundError:
            raise Refusal("none") from None
    finally:
        os.close(directory)
    try:
        if status.st_uid not in (0, uid) or status.st_mode & 0o022:
            raise Refusal("refused", f"{home}: others may write to this directory")
        _check_forward(f"{home}/.forward", os.fstat(fd), uid)
        return _in_a_pipe(f"{home}/.forward", fd)
    finally:
        os.close(fd)


def _open_directory(path: str) -> int:
    try:
        return os.open(path, _DIRECTORY | getattr(os, "O_PATH", 0))
    except FileNotFoundError:
        raise Refusal("none") from None


def _check_forward(path: str, status: os.stat_result, uid: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise Refusal("refused", f"{path} is not a regular file")
    if status.st_uid != uid:
        raise Refusal("refused", f"{path} is not the user's own")
    if status.st_mode & 0o022:
        raise Refusal("refused", f"{path}: others may write to this file")
    if status.st_size >= MAX_FORWARD_BYTES:
        raise Refusal("temporary", f"{path} has {MAX_FORWARD_BYTES} bytes or more")


def _in_a_pipe(path: str, fd: int) -> int:
    """Who reads the pipe need not wait for a file system that a user may have made."""
    data = b""
    while len(data) < MAX_FORWARD_BYTES and (part := os.read(fd, MAX_FORWARD_BYTES - len(data))):
        data += part
    if len(data) >= MAX_FORWARD_BYTES:
        raise Refusal("temporary", f"{path} has {MAX_FORWARD_BYTES} bytes or more")
    reader, writer = os.pipe()
    os.write(writer, data)  # a pipe holds that much
    os.close(writer)
    return reader


def open_include(path: str) -> int:
    """The file, to read from. Raises Refusal, OSError."""
    fd = os.open(path, _FILE)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise Refusal("refused", f"{path} is not a regular file")
    return fd


def open_kept(path: str, uid: int) -> int:
    """A message that sendmail kept, to read from. Raises Refusal, OSError.

    A link to somebody's file is no mail of his, wherever it leads (CVE-2020-8793).
    """
    fd = os.open(path, _FILE | os.O_NOFOLLOW)
    text = kept_refusal(os.fstat(fd), uid)
    if text:
        os.close(fd)
        raise Refusal("refused", text)
    return fd


def kept_refusal(status: os.stat_result, uid: int) -> str:
    """Why a file of the offline folder is not one that sendmail made as that user, "" where it is."""
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    if status.st_nlink != 1:
        return "it has several names"
    if status.st_uid != uid:
        return "its owner has changed"
    if stat.S_IMODE(status.st_mode) != 0o600:
        return f"its mode is {stat.S_IMODE(status.st_mode):04o}"
    return ""


def serve(channel: socket.socket, identity: Identity | None, work: Callable[[], int]) -> NoReturn:
    """In the child: become that user, do the work, tell the outcome, end. Never returns to the parent's code.

    The outcome is "found" with a descriptor, or a verdict, a line feed and a text.
    """
    status = 1
    try:
        _leave_the_parent(channel.fileno())
        if identity is not None:
            _become(identity)
        answer, fds = b"found", []
        try:
            fds = [work()]
        except Refusal as refusal:
            answer = f"{refusal.verdict}\n{refusal}".encode(errors="replace")
        except OSError as error:
            # A link, and a home that is no directory, will be the same tomorrow.
            verdict = "refused" if isinstance(error, NotADirectoryError) or error.errno in _LINKS else "temporary"
            answer = f"{verdict}\n{error.filename or ''}: {os.strerror(error.errno or 0)}".encode(errors="replace")
        with socket.socket(fileno=CHANNEL_FD) as answers:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            answers.sendmsg([answer[:MAX_TEXT]], rights)
        status = 0
    finally:
        os._exit(status)


def _leave_the_parent(channel_fd: int) -> None:
    """Before the user can send signals to this process: handlers and descriptors of the parent are not its own."""
    signal.set_wakeup_fd(-1)  # else a signal to this child would arrive in the parent's loop
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, signal.SIG_DFL)
    signal.alarm(LIFE_SECS)  # where the parent is gone
    os.dup2(channel_fd, CHANNEL_FD)
    os.closerange(CHANNEL_FD + 1, os.sysconf("SC_OPEN_MAX"))


def _become(identity: Identity) -> None:
    if identity.name:
        os.initgroups(identity.name, identity.gid)
    else:
        os.setgroups([identity.gid])
    os.setresgid(identity.gid, identity.gid, identity.gid)
    os.setresuid(identity.uid, identity.uid, identity.uid)
