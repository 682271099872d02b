"""Programs for users, run as other users: their modules are loaded as root, who can read this checkout."""

import os
import subprocess
import sys

from support.daemon import Daemon

_BECOME = """
import os, pwd, sys
from smtpd_ps.cli import sendmail, smtp_relay
entry = pwd.getpwnam(sys.argv.pop(1))
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
sys.exit(sendmail.main(sys.argv[1:]))
"""


def sendmail(
    daemon: Daemon, *words: str, message: bytes = b"Subject: x\n\nhi\n", user: str = ""
) -> subprocess.CompletedProcess[bytes]:
    """Run sendmail as that user ("": whoever runs the tests) against this daemon's state."""
    program = ["-c", _BECOME, user] if user else ["-m", "smtpd_ps.cli.sendmail"]
    argv = [sys.executable, "-I", *program, "--state-dir", str(daemon.state), *words]
    return subprocess.run(argv, input=message, capture_output=True, timeout=60, check=False, cwd="/")


def is_root() -> bool:
    """Whether other users can be had."""
    return os.getuid() == 0
