"""Comparing a table with what a client says."""

from ipaddress import IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.pure.match_tables import match_domains, match_mailaddrs, match_netaddrs, match_words, parse_network


def reference_match(hostname: str, pattern: str) -> bool:
    """A character walk: a star skips to the first occurrence of what follows it, for good."""
    p = h = 0
    while p < len(pattern) and h < len(hostname):
        if pattern[p] == "*":
            while p < len(pattern) and pattern[p] == "*":
                p += 1
            follow = pattern[p] if p < len(pattern) else None
            while h < len(hostname) and hostname[h] != follow:
                h += 1
            continue
        if pattern[p] != hostname[h]:
            return False
        p, h = p + 1, h + 1
    return p == len(pattern) and h == len(hostname)


@pytest.mark.parametrize(
    ("glob", "domain", "expected"),
    [
        ("example.org", "example.org", True),
        ("example.org", "xexample.org", False),
        ("*.example.org", "a.example.org", True),
        ("*.example.org", "a.b.example.org", False),
        ("*.example.org", "example.org", False),
        ("*example.org", "example.org", True),
        ("*", "any.thing", True),
        ("*", "", False),
        ("mail*", "mail", False),
        ("mail*", "mailhost", True),
        ("a*c*e", "abcde", True),
    ],
)
def test_domain_globs(glob: str, domain: str, expected: bool) -> None:
    """A `*` does not backtrack (QUIRKS 12)."""
    assert match_domains([glob])(domain) is expected


@given(
    st.lists(st.text("ab.*", min_size=1, max_size=6), min_size=1, max_size=4), st.text("ab.", max_size=8)
)  # fmt: skip
def test_globs_as_the_reference(globs: list[str], domain: str) -> None:
    """Any globs match what the character walk matches."""
    assert match_domains(globs)(domain) is any(reference_match(domain, glob) for glob in globs)


def test_words() -> None:
    """Plain words are compared in lower case."""
    assert match_words(["Office"])("office")
    assert not match_words(["office*"])("office1")


@pytest.mark.parametrize(
    ("key", "address", "expected"),
    [
        ("user", "user@a", True),
        ("user", "user+tag@a", True),
        ("user+tag", "user@a", False),
        ("user+tag", "user+tag@a", True),
        ("user+tag@b", "user+tag@b", True),
        ("User@A", "user@a", True),
        ("user@a", "user+x@a", True),
        ("user@a", "user@b", False),
        ("@a", "other@a", True),
        ("@a", "@", False),
        ("@a", "", False),
        ("@", "", True),
        ("@", "x@y", True),
        ("user@*.a", "user@b.a", True),
        ("user@*.a", "user+t@b.a", True),
        ("user@*.a", "user@a", False),
        ("@*", "user@a", True),
        ("@*", "", False),
        ("user", "+user@a", False),
        ("a@b", "a@b@c", False),
        ("@c", "a@b@c", True),
    ],
)
def test_mailaddr(key: str, address: str, expected: bool) -> None:
    """`user`, `@domain`, `user@domain`, `@`; a tag counts only where the key has one."""
    assert match_mailaddrs([key], "+")(address) is expected


def test_mailaddr_delimiter() -> None:
    """The tag starts at the configured delimiter."""
    assert match_mailaddrs(["user"], "-")("user-x@a")
    assert not match_mailaddrs(["user"], "-")("user+x@a")


@pytest.mark.parametrize(
    ("key", "address", "expected"),
    [
        ("192.168.1.0/24", "192.168.1.77", True),
        ("192.168.1.0/24", "192.168.2.77", False),
        ("192.168.1.5/24", "192.168.1.77", True),
        ("192.168.1.1", "192.168.1.1", True),
        ("0.0.0.0/0", "1.2.3.4", True),
        ("0.0.0.0/0", "::1", False),
        ("10/8", "10.1.2.3", True),
        ("[::1]", "::1", True),
        ("::1", "::1", True),
        ("IPv6:::1", "::1", True),
        ("[IPv6:2001:db8::/32]", "2001:db8:1::1", True),
        ("[2001:db8::]/32", "2001:db8:1::1", True),
        ("[2001:db8::]/32", "2001:db9::1", False),
        ("[2001:db8::", "2001:db8::", False),
        ("[2001:db8::]x/32", "2001:db8::", False),
        ("2001:DB8::/32", "2001:db9::1", False),
        ("local", "local", True),
        ("local", "127.0.0.1", False),
        ("1.2.3.4/33", "1.2.3.4", False),
        ("1.2.3", "1.2.3.0", False),
    ],
)
def test_netaddr(key: str, address: str, expected: bool) -> None:
    """Addresses and networks of both families, IPv6 also in brackets."""
    assert match_netaddrs([key])(address) is expected


@given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 128))
def test_netaddr_as_ipaddress(address: object, net: object, bits: int) -> None:
    """Membership is what the standard library says; IPv4 carried by IPv6 counts as IPv4."""
    parsed, base = ip_address(str(address)), ip_address(str(net))
    bits = min(bits, base.max_prefixlen)
    real = (parsed.ipv4_mapped if isinstance(parsed, IPv6Address) else None) or parsed
    expected = real.version == base.version and real in ip_network((base, bits), strict=False)
    assert match_netaddrs([f"{base}/{bits}"])(str(parsed)) is expected


@given(st.text(max_size=30))
def test_any_network_text(text: str) -> None:
    """No text raises."""
    parse_network(text)
    match_netaddrs([text])(text)
    match_domains([text])(text)
    match_mailaddrs([text], "+")(text)


def test_clients_of_every_form() -> None:
    """Scoped link-local clients and IPv4 carried by IPv6 are compared by their address (CVE-2023-29323)."""
    assert match_netaddrs(["fe80::/10"])("fe80::1%eth0")
    assert match_netaddrs(["10.0.0.0/8"])("::ffff:10.1.2.3")
    assert not match_netaddrs(["::/0"])("::ffff:10.1.2.3")
