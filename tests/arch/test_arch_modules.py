"""What code each process holds is a checked-in list: a new import shows in review."""

import loaded_modules
import pytest
from loaded_modules import LISTS, PROCESSES, loaded

from smtpd_ps.contract.values import Process

# What no process of that kind may hold, whatever its list says.
NEVER = {
    Process.KEYS: {"sqlite3", "dns", "passlib", "ssl"},
    Process.CONTROL: {"sqlite3", "dns", "passlib", "ssl", "cryptography"},
    Process.SMTP: {"sqlite3", "dns", "passlib", "cryptography"},
    Process.LOOKUP: {"sqlite3", "ssl", "cryptography"},
    Process.QUEUE: {"dns", "passlib", "ssl", "cryptography"},
    Process.DELIVERY: {"sqlite3", "dns", "passlib", "cryptography"},
    Process.AGENT: {"sqlite3", "dns", "passlib", "ssl", "cryptography"},
}
NOWHERE = {"asyncio", "pickle", "multiprocessing", "subprocess", "email", "http", "smtplib"}
EXCUSED = {Process.LOOKUP: {"email"}}  # dnspython asks importlib.metadata for versions, which parses them with it


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.title)
def test_process_loads_what_its_list_says(process: Process) -> None:
    """tests/arch/modules/NAME.txt is what the process loads (make docs writes it anew)."""
    assert loaded(process) == (LISTS / f"{process.title}.txt").read_text().split()


@pytest.mark.parametrize("process", PROCESSES, ids=lambda process: process.title)
def test_process_does_not_load_what_is_not_its_business(process: Process) -> None:
    """No TLS library in queue, no database in smtp, no DNS but in lookup, and so on."""
    names = loaded(process)
    others = {module.split(".")[1] for module in names if module.startswith("smtpd_ps.")}
    folders = {loaded_modules.module_of(other).split(".")[1] for other in PROCESSES if other is not process}
    assert not others & folders
    assert not set(names) & (NEVER[process] | NOWHERE - EXCUSED.get(process, set()))
