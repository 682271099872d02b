from collections.abc import Iterator

import pytest
from support.dns_server import DnsServer
from support.still_loop import StillLoop

from smtpd_ps.lookup import dns_wire
from smtpd_ps.runtime.loop import Loop

dns_wire.preload()


@pytest.fixture
def loop() -> Loop:
    return StillLoop()


@pytest.fixture
def dns_server(loop: Loop) -> Iterator[DnsServer]:
    server = DnsServer(loop)
    yield server
    server.close()
