"""tests/arch/check_tree.py sees each fault that it is there for, and nothing in a clean tree."""

from pathlib import Path

import pytest
from check_tree import BANNED_WORDS, check

DOC = '"""What it is."""\n'
TEST = 'def test_it() -> None:\n    """A rule."""\n'

# Name of the fault, the file that gets it, its text, and a part of the finding.
FAULTS = [
    ("too long", "smtpd_ps/smtp/a.py", DOC + "x = 1\n" * 600, "601 lines"),
    ("long test", "tests/smtp/test_a.py", DOC + "x = 1\n" * 600, "601 lines"),
    ("no docstring", "smtpd_ps/smtp/a.py", "x = 1\n", "no docstring"),
    ("a module that says nothing", "smtpd_ps/runtime/utils.py", DOC, "says nothing"),
    ("a folder that says nothing", "smtpd_ps/helpers/a.py", DOC, "says nothing"),
    ("ctypes in smtp", "smtpd_ps/smtp/a.py", DOC + "import ctypes\n", "ctypes is only for"),
    ("a part of ctypes", "smtpd_ps/smtp/a.py", DOC + "from ctypes.util import find_library\n", "ctypes is only for"),
    ("late import", "smtpd_ps/smtp/a.py", DOC + "def f():\n    import ctypes\n", "ctypes is only for"),
    ("sqlite3 beside the store", "smtpd_ps/queue/a.py", DOC + "import sqlite3\n", "sqlite3 is only for"),
    ("a name like the store", "smtpd_ps/queue/storeroom.py", DOC + "import sqlite3\n", "sqlite3 is only for"),
    ("DNS outside lookup", "smtpd_ps/delivery/a.py", DOC + "import dns.resolver\n", "dns is only for"),
    ("passlib in smtp", "smtpd_ps/smtp/a.py", DOC + "from passlib.hash import bcrypt\n", "passlib is only for"),
    ("TLS in the parent", "smtpd_ps/parent/a.py", DOC + "import ssl\n", "ssl is only for"),
    ("pickle", "smtpd_ps/queue/a.py", DOC + "import pickle\n", "pickle is banned"),
    ("asyncio", "smtpd_ps/queue/a.py", DOC + "from asyncio import run\n", "asyncio is only for"),
    ("relative import", "smtpd_ps/queue/a.py", DOC + "from . import b\n", "relative import"),
    ("eval", "smtpd_ps/queue/a.py", DOC + "eval('1')\n", "eval is banned"),
    ("exec", "smtpd_ps/queue/a.py", DOC + "exec('1')\n", "exec is banned"),
    ("os.system", "smtpd_ps/agents/a.py", DOC + "import os\nos.system('ls')\n", "os.system is banned"),
    (
        "shell=True",
        "smtpd_ps/cli/a.py",
        DOC + "from subprocess import run\nrun('ls', shell=True)\n",
        "shell= is banned",
    ),
    ("subprocess in queue", "smtpd_ps/queue/a.py", DOC + "import subprocess\n", "subprocess is only for"),
    ("a test without its rule", "tests/smtp/test_a.py", DOC + "def test_x() -> None:\n    pass\n", "does not say"),
    ("tests as a package", "tests/smtp/__init__.py", DOC, "not packages"),
    *((f"word {n}", "docs/A.md", f"see {word}\n", "no place") for n, word in enumerate(BANNED_WORDS)),
    ("word in capitals", "docs/A.md", f"see {BANNED_WORDS[0].upper()}\n", "no place"),
]


def plant(root: Path, name: str, text: str) -> None:
    """Write a file of the scratch tree."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small clean tree."""
    for name in ("smtpd_ps/__init__.py", "smtpd_ps/queue/store/sqlite.py", "smtpd_ps/keys/callbacks.py"):
        plant(tmp_path, name, DOC)
    plant(tmp_path, "smtpd_ps/queue/store/sqlite.py", DOC + "import sqlite3\n")
    plant(tmp_path, "smtpd_ps/keys/callbacks.py", DOC + "import ctypes\n")
    plant(tmp_path, "tests/queue/test_queue.py", TEST)
    plant(tmp_path, "docs/B.md", "A document.\n")
    return tmp_path


def test_clean_tree_has_no_finding(tree: Path) -> None:
    """Nothing is found where nothing is wrong, in modules that may do what others may not."""
    assert check(tree) == []


@pytest.mark.parametrize(("name", "text", "finding"), [fault[1:] for fault in FAULTS], ids=[f[0] for f in FAULTS])
def test_fault_is_found(tree: Path, name: str, text: str, finding: str) -> None:
    """The fault is found, once, in the file that has it."""
    plant(tree, name, text)
    found = check(tree)
    assert len(found) == 1, found
    assert found[0][0] == tree / name
    assert finding in found[0][2]


def test_same_test_file_name_is_found(tree: Path) -> None:
    """Two test files of one name are found: folders of tests are not packages."""
    plant(tree, "tests/smtp/test_queue.py", TEST)
    assert [text for _path, _line, text in check(tree) if "another test_queue.py" in text]
