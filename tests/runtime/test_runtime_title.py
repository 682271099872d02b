"""The process title, and what it costs to have one."""

import subprocess
import sys

PROGRAM = """
import sys
from smtpd_ps.runtime.title import set_title
set_title("queue")
print(open("/proc/self/cmdline").read().rstrip("\\0").strip())
print("logging" in sys.modules, "setproctitle._setproctitle" in sys.modules)
"""


def test_the_title_is_set_without_logging() -> None:
    """ps shows the role, and the process does not hold a logging framework for it."""
    argv = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60, env={"LC_ALL": "C.UTF-8"})
    assert done.stdout.splitlines() == ["smtpd_ps: queue", "False True"]
