"""pure/proxy_header: the PROXY protocol's binary header."""

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.pure.proxy_header import FIXED_BYTES, MAX_REST_BYTES, ProxyError, rest_bytes, source_address

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def header(command: int = 1, family: int = 0x11, rest: bytes = bytes(12), version: int = 2, size: int = -1) -> bytes:
    """A header; `size` is what it says of `rest`."""
    return SIGNATURE + struct.pack("!BBH", version << 4 | command, family, len(rest) if size < 0 else size) + rest


def read(data: bytes) -> str:
    """The address that a whole header gives."""
    size = rest_bytes(data[:FIXED_BYTES])
    assert len(data) == FIXED_BYTES + size
    return source_address(data[:FIXED_BYTES], data[FIXED_BYTES:])


V4 = ipaddress.IPv4Address("192.0.2.7").packed + ipaddress.IPv4Address("198.51.100.1").packed + b"\x10\0\0\x19"
V6 = ipaddress.IPv6Address("2001:db8::7").packed + bytes(20)
MAPPED = ipaddress.IPv6Address("::ffff:192.0.2.7").packed + bytes(20)


@pytest.mark.parametrize(
    ("data", "address"),
    [
        (header(rest=V4), "192.0.2.7"),
        (header(rest=V4 + b"\x04\0\x01x"), "192.0.2.7"),
        (header(family=0x21, rest=V6), "2001:db8::7"),
        (header(family=0x21, rest=MAPPED), "192.0.2.7"),
        (header(family=0x31, rest=b"/run/x".ljust(216, b"\0")), "local"),
        (header(command=0, rest=V4), ""),
        (header(command=0, family=0, rest=b""), ""),
        (header(command=0, family=0, rest=b"\x03\0\x04abcd"), ""),
        (header(rest=V4.ljust(MAX_REST_BYTES, b"\0")), "192.0.2.7"),
    ],
)
def test_addresses(data: bytes, address: str) -> None:
    """TCP over IPv4 and IPv6, Unix sockets, LOCAL; what follows the addresses is passed over."""
    assert read(data) == address


@pytest.mark.parametrize(
    "data",
    [
        b"EHLO proxy.example\r\n",
        b"PROXY TCP4 192.0.2.7",
        header(version=1, rest=V4),
        header(command=2, rest=V4),
        header(family=0x12, rest=V4),
        header(family=0x22, rest=V6),
        header(family=0x41, rest=V4),
        header(family=0, rest=b""),
        header(rest=V4[:11]),
        header(family=0x21, rest=V6[:35]),
        header(family=0x31, rest=bytes(215)),
        header(rest=V4, size=MAX_REST_BYTES + 1),
        header(rest=V4, size=65535),
    ],
)
def test_what_is_refused(data: bytes) -> None:
    """Other versions, commands and transports, UNSPEC for somebody, too short and too long ones (QUIRKS 14)."""
    with pytest.raises(ProxyError):
        rest_bytes(data[:FIXED_BYTES])


@given(st.one_of(
    st.binary(min_size=FIXED_BYTES, max_size=300),
    st.builds(lambda tail: SIGNATURE + tail, st.binary(min_size=4, max_size=300)),
))  # fmt: skip
def test_any_bytes(data: bytes) -> None:
    """A header gives an address or is refused, whatever it holds."""
    try:
        size = rest_bytes(data[:FIXED_BYTES])
    except ProxyError:
        return
    address = source_address(data[:FIXED_BYTES], data[FIXED_BYTES:].ljust(size, b"\0"))
    assert address in ("", "local") or ipaddress.ip_address(address)
