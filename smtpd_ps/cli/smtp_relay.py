"""`sendmail -bs`: SMTP on standard input and output, which is the daemon's local socket.

Runs in sendmail, as whoever calls it; the bytes of both sides pass and are not looked at.
"""

import os
import select
import socket

from smtpd_ps.cli.program import Exit, complain

READ_BYTES = 65_536
QUIET_SECS = 10.0  # of the daemon's, after the end of the input


def relay(path: str, stdin: int = 0, stdout: int = 1) -> int:
    """Until the daemon ends the session; the exit status."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with sock:
        try:
            sock.connect(path)
        except OSError as error:
            complain("sendmail", f"{path}: {error.strerror}; is smtpd_ps running?")
            return Exit.TEMPFAIL
        try:
            _copy(sock, stdin, stdout)
        except OSError as error:
            complain("sendmail", f"the session broke off: {error.strerror}")
            return Exit.IOERR
    return Exit.OK


def _copy(sock: socket.socket, stdin: int, stdout: int) -> None:
    """Raises OSError. What the daemon says comes first, so that neither side waits for the other.

    The end of the input does not end the session at once: the answers to what was written are still to come.
    """
    waiting = b""  # for the daemon
    ended = False
    while True:
        sources: list[int | socket.socket] = [sock] if waiting or ended else [sock, stdin]
        readable, writable, _ = select.select(sources, [sock] if waiting else [], [], QUIET_SECS if ended else None)
        if ended and not readable and not writable:
            sock.shutdown(socket.SHUT_WR)
        if sock in readable:
            data = sock.recv(READ_BYTES)
            if not data:
                return
            while data:
                data = data[os.write(stdout, data) :]
        if writable:
            waiting = waiting[sock.send(waiting, getattr(socket, "MSG_DONTWAIT", 0)) :]
        elif stdin in readable:
            waiting = os.read(stdin, READ_BYTES)
            ended = not waiting
