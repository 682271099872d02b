"""Commands of filter and table programs: their words, and where they are found.

Runs in the parent and in `smtpd_ps -n`; parses text of smtpd.conf.
"""

import grp
import os
import pwd
import re
import sys
from collections.abc import Callable, Iterable

from smtpd_ps.config.model import Proc
from smtpd_ps.contract.installation import LIBEXEC
from smtpd_ps.contract.policy import POLICIES
from smtpd_ps.contract.settings import ProgramSettings

SHELL = "/bin/sh"
MAX_COMMAND = 2048  # contract.values.Line
MAX_WORDS = 64  # contract.settings.ProgramSettings
_PLAIN = re.compile(r"[A-Za-z0-9_@%+:,./-][A-Za-z0-9_@%+=:,./ \t-]*")

DEFAULT_USERS = {"filter": "_sps_filter", "table": "_sps_table"}
# A program that ran as one of these could send that process signals.
_DAEMON_USERS = frozenset(policy.user for policy in POLICIES.values() if policy.user not in ("", "root"))


class ProgramError(Exception):
    """Why a program cannot be run, in a line."""


def command_words(text: str) -> tuple[tuple[str, ...], bool]:
    """The words of a command and False; or the text as one word and True, where only a shell understands it.

    Raises ValueError where there is no word, or too many.
    """
    words = tuple(text.split())
    if not words:
        raise ValueError("the command is empty")
    if len(words) > MAX_WORDS or len(text) > MAX_COMMAND:
        raise ValueError(f"the command has more than {MAX_WORDS} words or {MAX_COMMAND} characters")
    if _PLAIN.fullmatch(text) and "=" not in words[0]:
        return words, False
    return (text.strip(),), True


def program_settings(proc: Proc) -> ProgramSettings:
    """A filter program, whose command has been checked, as the parent starts it."""
    words, shell = command_words(proc.command)
    return ProgramSettings(proc.name, "filter", words, shell, proc.user, proc.group, proc.chroot)


def directories(machine: str = "") -> tuple[str, ...]:
    """Where programs are looked for on this host."""
    machine = machine or str(getattr(sys.implementation, "_multiarch", ""))
    return tuple(path.format(arch=machine) for path in LIBEXEC if machine or "{arch}" not in path)


def _executable(path: str) -> bool:
    return os.path.isfile(path) and os.access(path, os.X_OK)


def find(command: str, root: str = "", runs: Callable[[str], bool] = _executable) -> str:
    """The absolute path of a command, as seen below the directory `root`. Raises ProgramError."""
    if command.startswith("/"):
        if not runs(root + command):
            raise ProgramError(f"{root}{command} is not there or cannot be executed")
        return command
    places = directories()
    for place in places:
        if runs(f"{root}{place}/{command}"):
            return f"{place}/{command}"
    raise ProgramError(f"{command} is in none of {', '.join(root + place for place in places)}")


def argv(program: ProgramSettings) -> tuple[str, tuple[str, ...]]:
    """The file to execute and its argument vector. Raises ProgramError.

    A text for the shell that begins with no slash begins with the name of a program, which is found
    as one without a shell is.
    """
    first, *rest = program.words
    if not program.shell:
        path = find(first, program.chroot)
        return path, (program.title or path, *rest)
    name = first.split(maxsplit=1)[0]
    text = first if name.startswith("/") else find(name, program.chroot) + first[len(name) :]
    return find(SHELL, program.chroot), ("sh", "-c", f"exec {text}")


def identity(program: ProgramSettings) -> tuple[str, int, str, int]:
    """User name and id, group name and id to run it as. Raises ProgramError."""
    name = program.user or DEFAULT_USERS[program.kind]
    if name in _DAEMON_USERS:
        raise ProgramError(f"user {name} is one of smtpd_ps's own processes' and must not run a program")
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise ProgramError(f"there is no user {name}") from None
    try:
        group = grp.getgrnam(program.group) if program.group else grp.getgrgid(user.pw_gid)
    except KeyError:
        raise ProgramError(f"there is no group {program.group or user.pw_gid}") from None
    return user.pw_name, user.pw_uid, group.gr_name, group.gr_gid


def faults(program: ProgramSettings, privileged: bool) -> Iterable[tuple[str, bool]]:
    """What is wrong with a program, each with True where it is only a warning. Nothing is run."""
    try:
        argv(program)
    except ProgramError as error:
        yield str(error), False
    if not privileged:
        return
    if program.chroot and not os.path.isdir(program.chroot):
        yield f"{program.chroot} is not a directory", False
    try:
        _user, uid, _group, gid = identity(program)
    except ProgramError as error:
        yield str(error), False
        return
    if uid == 0:
        yield "runs as root", True
    elif gid == 0:
        yield "runs with root's group", True
