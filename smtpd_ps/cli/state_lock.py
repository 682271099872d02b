"""The lock of a state directory: one daemon, or one import, at a time. Runs as whoever starts it."""

import fcntl
import os
import time

from smtpd_ps.contract.installation import StatePaths

LOCK_SECS = 1.0  # for a daemon that was killed to be gone


def hold(state: StatePaths) -> int:
    """Hold the state directory, while the descriptor is open. Raises OSError where it is held already."""
    fd = os.open(f"{state.run}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + LOCK_SECS
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(fd)
                raise OSError(f"{state.run}: another smtpd_ps is running here") from None
            time.sleep(0.02)
        else:
            return fd
