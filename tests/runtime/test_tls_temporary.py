"""The path through which SSLContext gets certificates: gone as soon as they are read."""

import os
import sys
from pathlib import Path

import pytest

from smtpd_ps.runtime import tls_context


@pytest.mark.parametrize("platform", ["linux", "openbsd7"])
def test_path_holds_the_content_and_vanishes(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the block the path can be read; afterwards neither file nor descriptor is left."""
    if platform == "linux" and not hasattr(os, "memfd_create"):
        pytest.skip("this system has no memfd_create")
    monkeypatch.setattr(sys, "platform", platform)
    before = len(os.listdir("/dev/fd"))
    with tls_context._TemporaryFile(b"content") as path:
        assert Path(path).read_bytes() == b"content"
        if platform != "linux":
            assert Path(path).parent.stat().st_mode & 0o777 == 0o700
    assert len(os.listdir("/dev/fd")) == before
    if platform != "linux":
        assert not Path(path).parent.exists()
