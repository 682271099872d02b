"""System users that whole-daemon tests need; made once, harmless to keep."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path


def ensure_mail_user(name: str = "spsmail") -> str:
    """A user who receives mail: a fresh system user as root, else the one who runs the tests."""
    if os.getuid() != 0:
        return pwd.getpwuid(os.getuid()).pw_name
    try:
        pwd.getpwnam(name)
    except KeyError:
        subprocess.run(["useradd", "-r", "-M", "-s", "/usr/sbin/nologin", "-U", name], check=True)
    return name


def ensure_daemon_users() -> None:
    """The users of the processes, by the project's own set-up."""
    if os.getuid() == 0:
        from support.daemon import cli

        done = cli("smtpctl_ps", "setup")
        assert done.returncode == 0, done.stdout + done.stderr


def ensure_user_with_home(name: str) -> Path:
    """A user of the system with an empty home of mode 0700. Needs root."""
    try:
        home = Path(pwd.getpwnam(name).pw_dir)
    except KeyError:
        subprocess.run(
            ["useradd", "-r", "-M", "-d", f"/home/{name}", "-s", "/usr/sbin/nologin", "-U", name], check=True
        )
        home = Path(pwd.getpwnam(name).pw_dir)
    assert home.name == name
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(mode=0o700)
    shutil.chown(home, name, name)
    return home
