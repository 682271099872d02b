"""One password check against the system: `python -m smtpd_ps.parent.system_auth`.

A short-lived process of its own, as root, started by the parent for each check: it reads "user NUL
password" from descriptor 3, says "ok" or "no" there, and ends. On OpenBSD by BSD authentication
(style auth-smtp's default), elsewhere by the shadow file and crypt(3).
"""

import os
import socket

from smtpd_ps.osdep import system_password
from smtpd_ps.runtime.child import PARENT_FD

MAX_REQUEST_BYTES = 2048


def main() -> None:
    """Read the request, answer, end."""
    sock = socket.socket(fileno=PARENT_FD)
    request = b""
    while len(request) <= MAX_REQUEST_BYTES and (data := sock.recv(MAX_REQUEST_BYTES)):
        request += data
    user, separator, password = request.partition(b"\0")
    right = bool(separator) and system_password.check(os.fsdecode(user), os.fsdecode(password))
    sock.sendall(b"ok" if right else b"no")


if __name__ == "__main__":
    main()
