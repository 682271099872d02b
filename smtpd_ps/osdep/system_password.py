"""Is this the password of that system user? BSD authentication on OpenBSD, else shadow and crypt(3).

Runs only in the parent's short-lived checker, as root; parses /etc/shadow (FreeBSD:
/etc/master.passwd).
"""

import ctypes
import ctypes.util
import hmac
import sys
from pathlib import Path

from smtpd_ps.osdep import crypt_r

_SHADOW_FILES = ("/etc/shadow", "/etc/master.passwd")
_DUMMY = b"$6$rounds=5000$aaaaaaaaaaaaaaaa$"


def shadow_hash(user: str, files: tuple[str, ...] = _SHADOW_FILES) -> str:
    """The user's hash, "" where there is no such user, no file, or no password login."""
    for path in files:
        try:
            lines = Path(path).read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            fields = line.split(":")
            if len(fields) > 1 and fields[0] == user:
                return fields[1] if fields[1].startswith(("$", "_")) else ""
    return ""


def check(user: str, password: str) -> bool:
    """Whether `password` is right for the system user `user`. Never true for an empty hash."""
    if not user or "\0" in password or ":" in user:
        return False
    if sys.platform.startswith("openbsd"):
        return bsd_auth(user, password)
    system = crypt_r.load()
    if system is None:
        return False
    stored = shadow_hash(user).encode("utf-8", "surrogateescape")
    # The same work for a user who does not exist.
    computed = system.hash(password.encode("utf-8", "surrogateescape"), stored or _DUMMY)
    return bool(stored) and computed is not None and hmac.compare_digest(computed, stored)


def bsd_auth(user: str, password: str, libc: ctypes.CDLL | None = None) -> bool:
    """auth_userokay(3) with the type auth-smtp, as OpenSMTPD asks it."""
    library = libc or ctypes.CDLL(ctypes.util.find_library("c"))
    okay = library.auth_userokay
    okay.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p]
    okay.restype = ctypes.c_int
    buffer = ctypes.create_string_buffer(password.encode())  # it wipes what it is given
    return bool(okay(user.encode(), None, b"auth-smtp", ctypes.cast(buffer, ctypes.c_char_p)))
