"""A name server in a thread of the test."""

import contextlib
import threading
from collections.abc import Iterator

from support.dns_server import DnsServer

from smtpd_ps.runtime.loop import Loop


@contextlib.contextmanager
def zone(listen: tuple[str, int] = ("127.0.0.1", 0), **records: list[str]) -> Iterator[DnsServer]:
    """A name server in a thread; records as `MX_d_test=["10 a.test."]`."""
    loop = Loop()
    server = DnsServer(loop, listen)
    for key, values in records.items():
        kind, _, name = key.partition("_")
        server.zone[name.replace("_", "."), kind] = values
    ended = threading.Event()

    def serve() -> None:
        while not ended.is_set():
            loop.turn(0.05)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield server
    finally:
        ended.set()
        thread.join()
        server.close()
