"""crypt(3) of the system, thread-safe: the only one that knows all hashes the system makes.

Loaded in lookup before confinement; called from its checking threads. ctypes releases the
interpreter lock while the C code computes, so that other sessions go on. Parses nothing: hash
and password go to the C library as they are.
"""

import ctypes
import threading
from collections.abc import Callable

# struct crypt_data is 32 KiB in libxcrypt, 128 KiB in the old glibc, 1 KiB in FreeBSD.
_DATA_BYTES = 262_144
_NAMES = ("libcrypt.so.1", "libcrypt.so.2", "libcrypt.so.5", "libcrypt.so", None)  # None: libc itself

# One known answer for each scheme we would use; what the library gets wrong or does not know is
# not used. The passwords are all "password"; the costs are the lowest.
KNOWN: dict[str, bytes] = {
    "$5$": b"$5$rounds=1000$saltsalt$azOwbpkvuuBKkE82dQPwTsQE8JyT9Fflpr9aKid3aT9",
    "$6$": (
        b"$6$rounds=1000$saltsalt$Z/J9iYO1iE9xnr8JPQL57ZWsVRtVjrUv3CiWc/wKWseqXgSqn3HFYJ/Ng7YXa8XlLj.wpdAwHOJJzuGFqBBRa0"
    ),
    "$2a$": b"$2a$04$abcdefghijklmnopqrstuughE8Ev8uGFaUgY2cNEySvxngrb/Jzdm",
    "$2b$": b"$2b$04$abcdefghijklmnopqrstuughE8Ev8uGFaUgY2cNEySvxngrb/Jzdm",
    "$2y$": b"$2y$04$abcdefghijklmnopqrstuughE8Ev8uGFaUgY2cNEySvxngrb/Jzdm",
    "$y$": b"$y$j75$saltsaltsalt$EJVmvLaWqQibNwAKXpgavjVqkjgw4EyKMKuwMa4X504",
}


class SystemCrypt:
    """The library, and which of the schemes in KNOWN it has proven to compute."""

    def __init__(self, function: Callable[[bytes, bytes], bytes | None]) -> None:
        self._function = function
        self.schemes = frozenset(
            scheme for scheme, answer in KNOWN.items() if self.hash(b"password", answer) == answer
        )  # fmt: skip

    def hash(self, password: bytes, setting: bytes) -> bytes | None:
        """The hash of `password` made as `setting` (a whole hash will do) says; None where it cannot.

        `password` without NUL bytes: the library would cut it there.
        """
        made = self._function(password, setting)
        # Failure is NULL or a token that starts with "*" (crypt(5)).
        return None if made is None or made.startswith(b"*") else made


def load() -> SystemCrypt | None:
    """The system's crypt(3), or None where there is none."""
    for name in _NAMES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        if hasattr(library, "crypt_r"):
            return SystemCrypt(_reentrant(library))
        if hasattr(library, "crypt"):
            return SystemCrypt(_locked(library))
    return None


def _reentrant(library: ctypes.CDLL) -> Callable[[bytes, bytes], bytes | None]:
    function = library.crypt_r
    function.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p)
    function.restype = ctypes.c_char_p

    def crypt(password: bytes, setting: bytes) -> bytes | None:
        data = ctypes.create_string_buffer(_DATA_BYTES)
        made: bytes | None = function(password, setting, data)
        ctypes.memset(data, 0, _DATA_BYTES)  # it held the password
        return made

    return crypt


def _locked(library: ctypes.CDLL) -> Callable[[bytes, bytes], bytes | None]:
    """crypt() has one static buffer: one caller at a time."""
    function = library.crypt
    function.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
    function.restype = ctypes.c_char_p
    lock = threading.Lock()

    def crypt(password: bytes, setting: bytes) -> bytes | None:
        with lock:
            made: bytes | None = function(password, setting)
        return made

    return crypt
