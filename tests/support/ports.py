"""Ports for daemons with many listeners, on a loopback address that no other run of the tests has."""

import contextlib
import os
import socket
import sys

_PID = os.getpid()
HERE = f"127.77.{_PID >> 8 & 255}.{_PID & 255}" if sys.platform == "linux" else "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Ports of HERE that were free a moment ago, none of them twice."""
    with contextlib.ExitStack() as stack:
        socks = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in socks:
            sock.bind((HERE, 0))
        return [sock.getsockname()[1] for sock in socks]
