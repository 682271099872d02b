"""`smtpctl_ps setup`: make users and directories, or only say what differs; and the daemon's start.

Runs as root (the check, and the state of the unprivileged mode, as anyone). What it makes
stands in contract/installation and nowhere else.
"""

import os
from typing import TextIO

from smtpd_ps.cli.accounts import Run, SetupError, missing_users, plans, run_command
from smtpd_ps.cli.directories import differences, make, wanted

__all__ = ("ensure_state", "missing_users", "run_setup", "state_differences")


def run_setup(state_dir: str | None, check: bool, out: TextIO, run: Run = run_command) -> int:
    """Bring users and directories to what the table says; twice does nothing more.

    With `check` nothing is changed. Returns 0 when all is as declared (now), else 1.
    """
    if check:
        found = [plan.text for plan in plans()] + state_differences(state_dir)
        for text in found:
            out.write(f"{text}\n")
        out.write(f"{len(found)} differences\n" if found else "users and directories are as declared\n")
        return 1 if found else 0
    if os.getuid() != 0:
        out.write("setup makes users and must be run as root (setup --check need not)\n")
        return 1
    left = 0
    for plan in plans():
        if not plan.commands:
            out.write(f"{plan.text}: put it right by hand\n")
            left += 1
            continue
        for command in plan.commands:
            try:
                run(command)
            except SetupError as error:
                out.write(f"{plan.text}; {error}\n")
                return 1
        out.write(f"{plan.text.removesuffix(': missing')}: made\n")
    return 1 if _make_directories(state_dir, out) or left else 0


def _make_directories(state_dir: str | None, out: TextIO) -> int:
    left = 0
    try:
        for directory in wanted(state_dir):
            found = differences(directory)
            if not found:
                continue
            _make_above(directory.path)
            make(directory)
            still = differences(directory)
            left += len(still)
            done = "made" if found == ["missing"] else f"{', '.join(found)}: put right"
            out.write(f"{directory.path}: {', '.join(still) if still else done}\n")
    except OSError as error:
        out.write(f"{error.filename or ''}: {error.strerror or error}\n".removeprefix(": "))
        return 1
    return left


def _make_above(path: str) -> None:
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)


def state_differences(state_dir: str | None, owner: tuple[int, int] | None = None) -> list[str]:
    """What differs in the directories, one line each. `owner` as in directories.wanted."""
    try:
        every = wanted(state_dir, owner)
    except OSError as error:
        return [str(error)]
    return [f"{one.path}: {text}" for one in every for text in differences(one)]


def ensure_state(state_dir: str | None, privileged: bool) -> None:
    """At the daemon's start: make directories that are missing (/var/run is empty after a reboot).

    Raises OSError where one is there and is not as declared: then nobody knows who wrote to it.
    """
    for directory in wanted(state_dir, None if privileged else (os.getuid(), os.getgid())):
        found = differences(directory)
        if found == ["missing"]:
            _make_above(directory.path)
            make(directory)
            found = differences(directory)
        if found:
            raise OSError(f"{directory.path}: {found[0]} (smtpctl_ps setup puts it right)")
