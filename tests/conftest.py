"""Makes tests/support importable, and says once why root-only tests are skipped."""

import os

import pytest

NEED_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="needs root: real users, chroot and separation")
