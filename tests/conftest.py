"""Makes tests/support importable, and says once why root-only tests are skipped."""

import os
from collections.abc import Iterator

import pytest

NEED_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="needs root: real users, chroot and separation")


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """What a test opens in this process (a spool, an import) sets it; the next test's programs read files of ours."""
    before = os.umask(0o022)
    yield
    os.umask(before)
