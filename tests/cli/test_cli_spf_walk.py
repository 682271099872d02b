"""`spf walk` against a name server of the test."""

import contextlib
import threading
from collections.abc import Iterator

import pytest
from support.daemon import cli
from support.dns_server import DnsServer

from smtpd_ps.runtime.loop import Loop

ZONE = {
    ("one.test", "TXT"): ['"v=spf1 ip4:192.0.2.0/24 a mx:mail.test//64 include:two.test -all"', '"something else"'],
    ("one.test", "A"): ["192.0.2.7"],
    ("one.test", "AAAA"): ["2001:db8::7"],
    ("mail.test", "MX"): ["10 m1.test.", "20 m2.test."],
    ("m1.test", "A"): ["198.51.100.1"],
    ("m2.test", "AAAA"): ["2001:db8:1::2"],
    ("two.test", "TXT"): ['"v=spf1 " "ip6:2001:db8:2::/48 include:one.test a:%{i}.test ip4:192.0.2.0/24 ~all"'],
}


@contextlib.contextmanager
def serving(**more: object) -> Iterator[DnsServer]:
    """The zone, from a thread."""
    loop = Loop()
    server = DnsServer(loop)
    server.zone |= ZONE
    for name, value in more.items():
        setattr(server, name, value)
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield server
    finally:
        loop.call_soon(loop.stop)
        cli("smtpctl_ps", "spf", "walk", "--resolver", f"127.0.0.1:{server.port}", input="wake.test\n")
        thread.join(30)
        server.close()


def walk(server: DnsServer, given: str, *words: str) -> tuple[set[str], str, int]:
    done = cli("smtpctl_ps", "spf", "walk", *words, "--resolver", f"127.0.0.1:{server.port}", input=given)
    lines = done.stdout.splitlines()
    assert len(set(lines)) == len(lines)
    return set(lines), done.stderr, done.returncode


@pytest.mark.parametrize("family", ["", "-4", "-6"])
def test_all_that_may_send(family: str) -> None:
    """Networks, hosts, exchangers with prefixes, included records, which may include each other."""
    four = {"192.0.2.0/24", "192.0.2.7", "198.51.100.1"}
    six = {"2001:db8::7", "2001:db8:1::2/64", "2001:db8:2::/48"}
    with serving() as server:
        found, said, status = walk(server, "one.test\n\nno-such.test\n", *([family] if family else []))
    assert found == {"": four | six, "-4": four, "-6": six}[family]
    assert "%{i}.test has a macro" in said and status == 0


def test_a_name_server_that_cannot_say() -> None:
    """It is told, and the status is 1; the rest is listed."""
    with serving(rcodes={"mail.test": 2}) as server:
        found, said, status = walk(server, "one.test\n", "-4")
    assert found == {"192.0.2.0/24", "192.0.2.7"}
    assert "mail.test MX: no name server could say" in said and status == 1


def test_wrong_words() -> None:
    """Status 255 and the usage."""
    done = cli("smtpctl_ps", "spf", "walk", "-5", input="")
    assert done.returncode == 255 and "spf walk takes -4, -6" in done.stderr
