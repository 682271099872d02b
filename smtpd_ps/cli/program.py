"""What the programs for users share: exit statuses of sysexits(3), lines on standard error.

Runs in sendmail and the smtp client, as whoever calls them.
"""

import errno
import os
import pwd
import sys
from enum import IntEnum

MAX_LINE = 2000


class Exit(IntEnum):
    """sysexits(3)."""

    OK = 0
    USAGE = 64
    DATAERR = 65
    NOINPUT = 66
    NOUSER = 67
    NOHOST = 68
    UNAVAILABLE = 69
    SOFTWARE = 70
    OSERR = 71
    CANTCREAT = 73
    IOERR = 74
    TEMPFAIL = 75
    PROTOCOL = 76
    NOPERM = 77


def complain(program: str, text: str) -> None:
    """One line on standard error, with nothing in it that a terminal would take as an order."""
    shown = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:MAX_LINE])
    print(f"{program}: {shown}", file=sys.stderr)


def read_message() -> bytes:
    """All of standard input. Raises OSError, also where it is closed."""
    if sys.stdin is None:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return sys.stdin.buffer.read()


def show(line: str) -> None:
    """Print a line. A reader who is gone does not end what is under way."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.close(null)


def entry_of_caller(by_login: bool) -> pwd.struct_passwd | None:
    """The passwd entry of who calls. `by_login`: of several users of one uid, who logged in here."""
    uid = os.getuid()
    if by_login:
        try:
            entry = pwd.getpwnam(os.getlogin())
        except (OSError, KeyError):  # no terminal, or nobody of that name
            entry = None
        if entry is not None and uid in (0, entry.pw_uid):
            return entry
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None


def full_name(entry: pwd.struct_passwd) -> str:
    """The name in the comment field: up to the first comma, & standing for the user's name."""
    return entry.pw_gecos.partition(",")[0].replace("&", entry.pw_name.capitalize())
