"""Each check of `make check` fails on a planted fault; run by `make check` itself.

The faults go into a scratch copy of the package with this tree's own configuration.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package and its configuration, without a fault."""
    shutil.copytree(ROOT / "smtpd_ps", tmp_path / "smtpd_ps", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def run(tool: str, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a tool of this environment, or of the system."""
    found = shutil.which(tool, path=str(BIN)) or shutil.which(tool)
    if found is None:
        pytest.skip(f"{tool} is not installed here; `make check` installs it and runs this test")
    return subprocess.run(
        [found, *words], cwd=cwd, capture_output=True, text=True, timeout=100, check=False, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("F401", "import os\n"),
        ("D100", "X = 1\n"),
        ("E722", '"""A."""\n\ntry:\n    X = 1\nexcept:\n    X = 2\n'),
        ("BLE001", '"""A."""\n\ntry:\n    X = 1\nexcept Exception:\n    X = 2\n'),
        ("TID251", '"""A."""\n\nimport pickle\n\nX = pickle\n'),
        ("S602", '"""A."""\n\nfrom subprocess import run\n\nrun("ls", shell=True)\n'),
        ("T201", '"""A."""\n\nprint(1)\n'),
        ("E501", f'"""A."""\n\nX = "{"x" * 120}"\n'),
    ],
)
def test_ruff_fails(copy: Path, code: str, fault: str) -> None:
    """ruff check ends 1 and names the rule."""
    planted = copy / "smtpd_ps" / "smtp" / "planted.py"
    planted.write_text(fault)
    done = run("ruff", "check", "--no-cache", str(planted), cwd=copy)
    assert done.returncode == 1
    assert code in done.stdout


def test_ruff_format_fails(copy: Path) -> None:
    """ruff format --check ends 1 on a file that it would change."""
    planted = copy / "smtpd_ps" / "smtp" / "planted.py"
    planted.write_text('"""A."""\nX = { "a":1 }\n')
    assert run("ruff", "format", "--no-cache", "--check", str(planted), cwd=copy).returncode == 1


@pytest.mark.parametrize(
    ("fault", "finding"),
    [
        ('"""A."""\n\n\ndef f(x):\n    """A."""\n    return x\n', "no-untyped-def"),
        ('"""A."""\n\nX: int = "one"\n', "assignment"),
        (
            '"""A."""\n\nfrom typing import Any\n\n\ndef f(x: Any) -> int:\n    """A."""\n    return x\n',
            "no-any-return",
        ),
    ],
)
def test_mypy_fails(copy: Path, fault: str, finding: str) -> None:
    """mypy, as strict as pyproject.toml says, ends 1 and names the fault."""
    planted = copy / "smtpd_ps" / "planted.py"
    planted.write_text(fault)
    done = run("mypy", "--cache-dir=/dev/null", str(planted), cwd=copy)
    assert done.returncode == 1
    assert finding in done.stdout


@pytest.mark.parametrize(
    ("module", "statement", "contract"),
    [
        ("smtp/planted.py", "import smtpd_ps.queue", "Imports go downward only"),
        ("runtime/planted.py", "import smtpd_ps.cli", "Imports go downward only"),
        ("osdep/planted.py", "import smtpd_ps.config", "Imports go downward only"),
        ("contract/planted.py", "import smtpd_ps.pure", "Imports go downward only"),
        ("pure/planted.py", "import socket", "no clock and no randomness"),
        ("pure/planted.py", "from time import monotonic", "no clock and no randomness"),
        ("contract/planted.py", "import os.path", "no clock and no randomness"),
        ("parent/planted.py", "import ssl", "The parent holds no TLS"),
    ],
)
def test_import_linter_fails(copy: Path, module: str, statement: str, contract: str) -> None:
    """lint-imports ends 1, with the contract that was broken."""
    (copy / "smtpd_ps" / module).write_text(f'"""Planted."""\n\n{statement}\n')
    done = run("lint-imports", "--no-cache", cwd=copy)
    assert done.returncode == 1
    broken = re.findall(r"^(.*) BROKEN", done.stdout, re.MULTILINE)
    assert any(contract in name for name in broken), done.stdout


def test_shellcheck_fails(tmp_path: Path) -> None:
    """shellcheck ends 1 on an unquoted variable in a command."""
    (tmp_path / "planted").write_text("#!/bin/sh\nrm -rf $1\n")
    assert run("shellcheck", "planted", cwd=tmp_path).returncode == 1


@pytest.mark.parametrize("fault", [".Xyz nothing\n", ".Bl -tag\n.It a\n"])
def test_mandoc_fails(tmp_path: Path, fault: str) -> None:
    """mandoc ends with an error or warning on a manual page with a fault."""
    page = ".Dd $Mdocdate$\n.Dt PLANTED 8\n.Os\n.Sh NAME\n.Nm planted\n.Nd a page\n" + fault
    (tmp_path / "planted.8").write_text(page)
    assert run("mandoc", "-T", "lint", "-W", "warning", "planted.8", cwd=tmp_path).returncode >= 2
