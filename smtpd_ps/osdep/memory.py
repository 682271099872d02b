"""What the C library's allocator keeps for later, given back to the system.

Runs in every process once it is ready to serve; parses nothing. Reading modules and the configuration leaves
free memory behind that the daemon never needs again: half a MiB a process with glibc's allocator. Those of the
BSDs and of musl have no such call, and need none.
"""

import ctypes


def give_back() -> None:
    """Return what is free above and inside the heap (malloc_trim(3))."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(ctypes.c_size_t(0))
