"""The files that a resolver reads: hosts(5) and resolv.conf(5).

Runs in lookup, on bytes that the parent opened. Lines that say nothing to us are left out, as
every resolver does.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from smtpd_ps.pure.address import domain_valid

MAX_BYTES = 4 * 1024 * 1024
MAX_SERVERS = 3
DNS_PORT = 53


@dataclass(frozen=True, slots=True)
class Hosts:
    """Names and addresses of a hosts file. Names in lower case, addresses in canonical form."""

    addresses: Mapping[str, tuple[str, ...]]  # by name
    names: Mapping[str, str]  # the first name of an address


@dataclass(frozen=True, slots=True)
class ResolverSettings:
    """Whom to ask, in order, and how patiently."""

    servers: tuple[tuple[str, int], ...]  # address and port
    timeout_secs: float = 5.0
    attempts: int = 2


NO_HOSTS = Hosts({}, {})


def canonical(address: str) -> str:
    """An IP address as Python prints it; the zone of a link-local one is kept. Raises ValueError."""
    return str(ip_address(address))


def parse_hosts(data: bytes) -> Hosts:
    """The hosts file `data` (at most MAX_BYTES of it)."""
    addresses: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    for line in _lines(data):
        address, *hosts = line.split()
        try:
            address = canonical(address)
        except ValueError:
            continue
        hosts = [host.rstrip(".") for host in hosts if domain_valid(host.rstrip("."))]
        for host in hosts:
            name = host.lower()
            known = addresses.setdefault(name, [])
            if address not in known:
                known.append(address)
        if hosts:
            names.setdefault(address, hosts[0])
    return Hosts({name: tuple(found) for name, found in addresses.items()}, names)


def parse_resolv_conf(data: bytes) -> ResolverSettings:
    """Name servers and options of resolv.conf; 127.0.0.1 where it names none, as resolv.conf(5) says.

    `search` and `domain` are left out: the names of mail are complete.
    """
    servers: list[tuple[str, int]] = []
    timeout_secs, attempts = 5, 2
    for line in _lines(data, b"#;"):
        keyword, *values = line.split()
        if keyword == "nameserver" and values:
            server = _server(values[0])
            if server and server not in servers and len(servers) < MAX_SERVERS:
                servers.append(server)
        elif keyword == "options":
            for option in values:
                name, _, number = option.partition(":")
                if number.isascii() and number.isdigit() and len(number) < 6:
                    if name == "timeout":
                        timeout_secs = min(max(int(number), 1), 30)
                    elif name == "attempts":
                        attempts = min(max(int(number), 1), 5)
    return ResolverSettings(tuple(servers) or (("127.0.0.1", DNS_PORT),), float(timeout_secs), attempts)


def parse_resolver(text: str) -> tuple[str, int]:
    """The server in "192.0.2.1:53" or "[::1]:53". Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise ValueError(f"expected ADDRESS:PORT instead of {text!r}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    return canonical(host), int(port)


def _server(text: str) -> tuple[str, int] | None:
    """An address, or OpenBSD's [address]:port."""
    try:
        return parse_resolver(text) if text.startswith("[") else (canonical(text), DNS_PORT)
    except ValueError:
        return None


def _lines(data: bytes, comments: bytes = b"#") -> list[str]:
    out = []
    for raw in data[:MAX_BYTES].split(b"\n"):
        for mark in comments:
            raw = raw.partition(bytes((mark,)))[0]
        text = raw.decode("ascii", "replace").strip()
        if text:
            out.append(text)
    return out
