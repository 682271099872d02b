"""Whether a file or a command is one that this user's own .forward names.

Runs in agents, as the mail user; parses that user's file. Lookup read the file before, and delivery
said what it found there: an agent believes neither, and looks for itself (docs/DESIGN "The processes").
"""

import os
import stat

from smtpd_ps.pure.expand_files import MAX_FORWARD_BYTES, parse_forward
from smtpd_ps.pure.expand_targets import TargetError


def forward_names(home: str, target: str) -> bool:
    """Whether `target`, "/path" or "|command", stands in the .forward of `home`. Raises OSError, TargetError."""
    fd = os.open(f"{home}/.forward", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
            raise TargetError("the .forward is not a file that this user alone may write")
        data = os.read(fd, MAX_FORWARD_BYTES)
    finally:
        os.close(fd)
    wanted = ("command", target[1:]) if target.startswith("|") else ("file", target)
    return any((each.kind, each.text) == wanted for each in parse_forward(data).targets)
