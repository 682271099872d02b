"""hosts(5) and resolv.conf(5)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.pure.hosts_file import ResolverSettings, parse_hosts, parse_resolv_conf, parse_resolver


def test_hosts() -> None:
    """Names in any case with all their addresses; the first name of an address is its name."""
    hosts = parse_hosts(
        b"# comment\n127.0.0.1\tLocalhost loop # x\n::1 localhost\n\nrubbish here\n192.0.2.1\n2001:DB8:0::1 six.\n"
    )
    assert hosts.addresses == {
        "localhost": ("127.0.0.1", "::1"), "loop": ("127.0.0.1",), "six": ("2001:db8::1",),
    }  # fmt: skip
    assert hosts.names == {"127.0.0.1": "Localhost", "::1": "localhost", "2001:db8::1": "six"}


def test_resolv_conf() -> None:
    """Servers (three at most), timeout and attempts; search is left out."""
    settings = parse_resolv_conf(
        b"search a b\nnameserver 192.0.2.1\nnameserver bad\n;x\nnameserver [::1]:5353\nnameserver 192.0.2.1\n"
        b"nameserver 192.0.2.3\nnameserver 192.0.2.4\noptions ndots:2 timeout:3 attempts:900 rotate timeout:x\n"
    )
    assert settings == ResolverSettings((("192.0.2.1", 53), ("::1", 5353), ("192.0.2.3", 53)), 3.0, 5)


def test_empty_resolv_conf() -> None:
    """Without a server it is the one on this host."""
    assert parse_resolv_conf(b"") == ResolverSettings((("127.0.0.1", 53),), 5.0, 2)


def test_resolver() -> None:
    """ADDRESS:PORT, IPv6 in brackets."""
    assert parse_resolver("127.0.0.1:5353") == ("127.0.0.1", 5353)
    assert parse_resolver("[::1]:53") == ("::1", 53)
    for bad in ("", "127.0.0.1", "host:53", "127.0.0.1:0", "127.0.0.1:99999", "127.0.0.1:x"):
        with pytest.raises(ValueError, match=r"."):
            parse_resolver(bad)


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Neither parser raises on any file."""
    parse_hosts(data)
    parse_resolv_conf(data)
