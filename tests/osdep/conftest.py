"""Places in which confined children run."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from confined_processes import Place


def _place(privileged: bool) -> Iterator[Place]:
    # Not below pytest's own directory, which only its user may enter.
    base = Path(tempfile.mkdtemp(prefix="smtpd_ps-")).resolve()
    made = Place(base, privileged)
    yield made
    for child in made.running:
        child.popen.kill()
        child.end()
    shutil.rmtree(base)


@pytest.fixture
def place() -> Iterator[Place]:
    """Root directories as root's daemon has them."""
    yield from _place(privileged=True)


@pytest.fixture
def plain_place() -> Iterator[Place]:
    """The same for the unprivileged mode."""
    yield from _place(privileged=False)
