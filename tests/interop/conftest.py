"""Interop tests run as root against the real programs; `make interop` installs them."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.users import ensure_daemon_users

from bench.packages import Packages

NEEDED = (
    "/usr/sbin/dovecot", "/usr/lib/cyrus/bin/master", "/usr/sbin/postfix", "/usr/sbin/dnsmasq", "/usr/bin/swaks",
    "/usr/bin/msmtp", "/usr/bin/mutt",
)  # fmt: skip


@pytest.fixture(scope="session", autouse=True)
def _peers() -> None:
    if os.getuid() != 0:
        pytest.skip("interop needs root")
    missing = [path for path in NEEDED if not Path(path).exists()]
    assert not missing, f"not installed: {missing} (make interop installs them)"
    ensure_daemon_users()


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A directory every user may enter."""
    folder = Path("/var/tmp") / f"sps-interop-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def packages() -> Iterator[Packages]:
    """Packages that are unpacked and not installed."""
    folder = Path("/var/tmp") / f"sps-interop-packages-{os.getpid()}"
    yield Packages(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def module_scratch() -> Iterator[Path]:
    """The same as `scratch` for all tests of a module."""
    folder = Path("/var/tmp") / f"sps-interop-module-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
