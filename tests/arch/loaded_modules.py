"""Which code each process holds: its own modules, packages of others, and standard modules worth watching.

usage: loaded_modules.py       writes tests/arch/modules/*.txt anew (make docs)
A process's `__main__` is imported in a fresh interpreter, as the parent starts it, and `sys.modules` is looked at.
"""

import subprocess
import sys
from pathlib import Path

from smtpd_ps.contract.values import Process
from smtpd_ps.runtime.spawn import python_argv

LISTS = Path(__file__).parent / "modules"
PROCESSES = [process for process in Process if process not in (Process.CLIENT, Process.PARENT)]
FOLDERS = {Process.AGENT: "agents"}

# Standard modules that a process without them cannot misuse. Others come and go with versions of Python.
WATCHED = frozenset(
    (
        "asyncio", "ctypes", "email", "http", "multiprocessing", "pickle", "smtplib", "sqlite3", "ssl", "subprocess",
        "threading", "xml",
    )
)  # fmt: skip
IGNORED = frozenset(("typing_extensions",))  # msgspec takes it where something else has installed it

_PROGRAM = "import sys; before = set(sys.modules); import {module}; print(*sorted(set(sys.modules) - before))"


def module_of(process: Process) -> str:
    """The module that the process starts with."""
    return f"smtpd_ps.{FOLDERS.get(process, process.title)}.__main__"


def loaded(process: Process) -> list[str]:
    """What importing the process's main loads, sorted."""
    words = python_argv("unused")[1:-2]
    done = subprocess.run(
        [sys.executable, *words, "-c", _PROGRAM.format(module=module_of(process))],
        capture_output=True, text=True, check=True, env={}, timeout=60,
    )  # fmt: skip
    names = set()
    for name in done.stdout.split():
        top = name.partition(".")[0]
        if top == "smtpd_ps":
            names.add(name)
        elif (top in WATCHED or top not in sys.stdlib_module_names) and top not in IGNORED:
            names.add(top)
    return sorted(name for name in names if not name.startswith("_") and name != module_of(process))


def main() -> None:
    """Write every list."""
    LISTS.mkdir(exist_ok=True)
    for process in PROCESSES:
        (LISTS / f"{process.title}.txt").write_text("".join(f"{name}\n" for name in loaded(process)))


if __name__ == "__main__":
    main()
