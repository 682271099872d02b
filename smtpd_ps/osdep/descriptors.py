"""Closing what a process should not have inherited. Runs in the parent's children before exec."""

import os
from collections.abc import Collection

_LISTINGS = ("/proc/self/fd", "/dev/fd")


def close_from(lowfd: int, keep: Collection[int] = ()) -> None:
    """Close every descriptor from `lowfd` up that is not in `keep`. Closed ones are not an error."""
    kept = sorted({fd for fd in keep if fd >= lowfd})
    highest = _highest(max([lowfd, *kept]))
    start = lowfd
    for fd in (*kept, highest + 1):
        os.closerange(start, fd)
        start = fd + 1


def _highest(at_least: int) -> int:
    for listing in _LISTINGS:
        try:
            names = os.listdir(listing)
        except OSError:
            continue
        return max([at_least, *(int(name) for name in names if name.isdigit())])
    return max(at_least, os.sysconf("SC_OPEN_MAX") - 1)
