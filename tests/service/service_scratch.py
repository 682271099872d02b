"""A scratch system for the service scripts: recorded commands, one fake daemon, and a ps that sees only it."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BSD_TITLE = f"{Path(sys.executable).name}: smtpd_ps: parent"  # as BSD's setproctitle(3) shows it

_DAEMON = """#!{python}
import os, signal, sys, time
from pathlib import Path
here = Path({home!r})
with (here / "calls").open("a") as calls:
    print("smtpd_ps", *sys.argv[1:], file=calls)
if "-n" in sys.argv:
    sys.exit((here / "configuration-is-bad").exists())
from setproctitle import setproctitle
ready, done = os.pipe()
if os.fork():
    os.close(done)
    os.read(ready, 1)
    os._exit(0)
os.setsid()
setproctitle({title!r})
(here / "run" / "smtpd_ps.pid").write_text(f"{{os.getpid()}}\\n")
for fd in (0, 1, 2):
    os.dup2(os.open("/dev/null", os.O_RDWR), fd)
def hup(_number, _frame):
    with (here / "calls").open("a") as calls:
        print("SIGHUP", file=calls)
signal.signal(signal.SIGHUP, hup)
os.write(done, b".")
while True:
    signal.pause()
"""

_CONTROL = """#!/bin/sh
echo "smtpctl_ps $*" >>'{home}/calls'
test ! -e '{home}/setup-differs'
"""

# pgrep, pkill and ps for the one process of the pid file, whatever else runs on this machine.
_PROCESSES = """#!{python}
import os, re, signal, sys
from pathlib import Path
words = sys.argv[1:]
try:
    pid = int(Path({home!r}, "run", "smtpd_ps.pid").read_text())
    title = Path(f"/proc/{{pid}}/cmdline").read_bytes().rstrip(b"\\0").replace(b"\\0", b" ").decode()
except (OSError, ValueError):
    sys.exit(1)
name = Path(sys.argv[0]).name
if not title or (name != "ps" and not re.fullmatch(words[-1], title)):
    sys.exit(1)
if name == "ps":
    if "-p" not in words or words[words.index("-p") + 1] != str(pid):
        sys.exit(1)
    print(pid, 0, title)
elif name == "pkill":
    os.kill(pid, signal.SIGHUP if "-HUP" in words else signal.SIGTERM)
"""

_LAST_WORD = '#!/bin/sh\nfor word; do :; done\nexec sh -c "$word"\n'  # su -l -c class -s shell user -c COMMAND
_LIMITS = '#!/bin/sh\nwhile [ "${1#-}" != "$1" ]; do shift 2; done\nexec "$@"\n'  # limits -C class COMMAND


@dataclass
class Scratch:
    """One scratch system in `home`; `script` runs a service script with `shell` in it."""

    home: Path
    shell: str = "/bin/sh"
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def calls(self) -> list[str]:
        """The commands that were run, in order."""
        path = self.home / "calls"
        return path.read_text().splitlines() if path.exists() else []

    def forget_calls(self) -> None:
        """Start recording anew."""
        (self.home / "calls").unlink(missing_ok=True)

    def install(self, shell: str, name: str, subr: str, replace: dict[str, str]) -> None:
        """Put rc.d/NAME and the text of an rc.subr in place, with the paths of this scratch system."""
        found = shutil.which(shell)
        if found is None:
            pytest.skip(f"{shell} is not installed")
        self.shell = found
        text = (ROOT / "rc.d" / name).read_text()
        for old, new in {"/usr/local/bin": f"{self.home}/bin", **replace}.items():
            assert old in text, old
            text = text.replace(old, new)
        # A named shell, and a real rc.subr that starts itself anew ($0), both need the right first line.
        (self.home / "smtpd_ps").write_text(re.sub(r"\A#!.*", f"#!{self.shell}", text))
        (self.home / "smtpd_ps").chmod(0o755)
        (self.home / "rc.subr").write_text(subr)

    def script(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the installed service script."""
        environment = {"PATH": f"{self.home}/shims:/usr/bin:/bin:/usr/sbin:/sbin", **self.environment}
        return subprocess.run(
            [self.shell, str(self.home / "smtpd_ps"), *words],
            env=environment, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    @property
    def daemon_pid(self) -> int | None:
        """The fake daemon, if it runs."""
        try:
            pid = int((self.home / "run" / "smtpd_ps.pid").read_text())
            alive = Path(f"/proc/{pid}/cmdline").read_bytes()  # empty when it only waits to be reaped
        except (OSError, ValueError):
            return None
        return pid if alive else None


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Scratch]:
    """A scratch system; the daemon is ended with it."""
    for name in ("bin", "shims", "run"):
        (tmp_path / name).mkdir()
    values = {"python": sys.executable, "home": str(tmp_path), "title": BSD_TITLE}
    programs = {
        "bin/smtpd_ps": _DAEMON,
        "bin/smtpctl_ps": _CONTROL,
        **dict.fromkeys(("shims/pgrep", "shims/pkill", "shims/ps"), _PROCESSES),
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(text.format(**values))
    (tmp_path / "shims" / "su").write_text(_LAST_WORD)
    (tmp_path / "shims" / "limits").write_text(_LIMITS)
    (tmp_path / "shims" / "id").write_text("#!/bin/sh\necho 0\n")
    (tmp_path / "shims" / "getcap").write_text("#!/bin/sh\nexit 1\n")
    for path in (*(tmp_path / "bin").iterdir(), *(tmp_path / "shims").iterdir()):
        path.chmod(0o755)
    made = Scratch(tmp_path)
    yield made
    pid = made.daemon_pid
    if pid is not None:
        os.kill(pid, signal.SIGKILL)
