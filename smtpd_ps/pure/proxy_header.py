"""The binary header of the PROXY protocol, version 2, by which a proxy says whom it connected for.

Runs in smtp on the bytes of whoever connects to a listener with `proxy-v2`. Source: "The PROXY
protocol", haproxy.org, 2.2. What follows the addresses (TLVs) is bounded and ignored, as OpenSMTPD does.
"""

from ipaddress import IPv6Address
from typing import Final

FIXED_BYTES: Final = 16
MAX_REST_BYTES: Final = 4096
_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
_VERSION: Final = 2
_LOCAL, _PROXY = 0, 1
_UNSPECIFIED, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_ADDRESS_BYTES: Final = {_UNSPECIFIED: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216}


class ProxyError(ValueError):
    """Not a header that we take; the connection is closed without a word."""


def rest_bytes(fixed: bytes) -> int:
    """How many bytes follow the first FIXED_BYTES, which `fixed` is. Raises ProxyError."""
    if not fixed.startswith(_SIGNATURE):
        raise ProxyError("no PROXY header")
    if fixed[12] >> 4 != _VERSION:
        raise ProxyError("a PROXY header of another version")
    command, family = fixed[12] & 0x0F, fixed[13]
    if command not in (_LOCAL, _PROXY):
        raise ProxyError("an unknown PROXY command")
    if family not in _ADDRESS_BYTES or (command == _PROXY and family == _UNSPECIFIED):
        raise ProxyError("an address family that is not supported")
    size = int.from_bytes(fixed[14:16])
    if size < _ADDRESS_BYTES[family]:
        raise ProxyError("a PROXY header that is too short for its addresses")
    if size > MAX_REST_BYTES:
        raise ProxyError("a PROXY header that is too long")
    return size


def source_address(fixed: bytes, rest: bytes) -> str:
    """The client's address as text, "local" for a Unix socket; "" where the proxy speaks for itself.

    `fixed` has passed `rest_bytes`, and `rest` is that long.
    """
    if fixed[12] & 0x0F == _LOCAL:
        return ""
    match fixed[13]:
        case 0x11:
            return ".".join(str(byte) for byte in rest[:4])
        case 0x21:
            address = IPv6Address(rest[:16])
            return str(address.ipv4_mapped or address)
        case _:
            return "local"
