"""Addresses of network interfaces, by getifaddrs(3).

Runs in the parent (`listen on`) and in smtpd_ps -n. Reads structures of the C library only.
"""

import ctypes
import socket
import sys

_BSD = not sys.platform.startswith("linux")


class _Ifaddrs(ctypes.Structure):
    pass


# Linux and the BSDs agree on the order of the fields that are used here.
_Ifaddrs._fields_ = [
    ("next", ctypes.POINTER(_Ifaddrs)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("address", ctypes.c_void_p),
]


def interface_addresses() -> dict[str, tuple[str, ...]]:
    """IPv4 and IPv6 addresses as text by interface name, in the system's order.

    Link-local IPv6 addresses are left out: they mean nothing without a scope. An interface
    without an address is there with an empty tuple. Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    first = ctypes.POINTER(_Ifaddrs)()
    if libc.getifaddrs(ctypes.byref(first)) != 0:
        raise OSError(ctypes.get_errno(), "getifaddrs")
    found: dict[str, list[str]] = {}
    try:
        entry = first
        while entry:
            row = entry.contents
            addresses = found.setdefault(row.name.decode("utf-8", "replace"), [])
            if row.address:
                text = _address(row.address)
                if text and text not in addresses:
                    addresses.append(text)
            entry = row.next
    finally:
        libc.freeifaddrs(first)
    return {name: tuple(addresses) for name, addresses in found.items()}


def _address(at: int) -> str | None:
    """The address of a struct sockaddr in memory, None where it is no usable IP address."""
    head = ctypes.string_at(at, 2)
    family = head[1] if _BSD else int.from_bytes(head, sys.byteorder)  # BSD has a length byte first
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, ctypes.string_at(at + 4, 4))
    if family == socket.AF_INET6:
        raw = ctypes.string_at(at + 8, 16)
        if raw[0] == 0xFE and raw[1] & 0xC0 == 0x80:
            return None
        return socket.inet_ntop(socket.AF_INET6, raw)
    return None
