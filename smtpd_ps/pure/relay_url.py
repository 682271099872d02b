"""Relay URLs of smtpd.conf: `[proto://][label@]host[:port]`, and LMTP destinations.

Runs in the parent (config), lookup and delivery; parses what the administrator wrote.
"""

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal

Protocol = Literal["smtp", "smtp+tls", "smtp+notls", "smtps", "lmtp"]

# smtpd.conf(5), "relay host". LMTP has no well-known port: RFC 2033 5 forbids 25.
DEFAULT_PORTS: dict[Protocol, int] = {"smtp": 25, "smtp+tls": 25, "smtp+notls": 25, "smtps": 465, "lmtp": 0}
_WITH_CREDENTIALS: tuple[Protocol, ...] = ("smtp+tls", "smtps")
_LABEL = re.compile(r"[!-~]{1,255}")
_HOST_LABEL = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_HOST_PORT = re.compile(r"(?P<host>\[[^\[\]]*\]|[^:\[\]]*)(?::(?P<port>.*))?", re.DOTALL)


class RelayUrlError(ValueError):
    """Why a text is no relay URL; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class RelayUrl:
    """A host to relay to.

    `host` is a name in the case it was written in, or an IP address without brackets.
    `label` is the key of the credentials table, "" for none.
    """

    protocol: Protocol
    label: str
    host: str
    port: int

    @property
    def is_address(self) -> bool:
        """Whether `host` is an IP address, so that nothing is to be resolved."""
        return as_address(self.host) is not None


def parse_relay_url(text: str) -> RelayUrl:
    """The parts of a relay URL (smtpd.conf(5)). Raises RelayUrlError.

    The protocol defaults to smtp, the port to the protocol's. A label needs a protocol that
    always encrypts: smtp+tls or smtps.
    """
    scheme, separator, rest = text.partition("://")
    protocol: Protocol = "smtp"
    if separator:
        found = next((known for known in DEFAULT_PORTS if known == scheme.lower()), None)
        if found is None:
            raise RelayUrlError(f'unknown protocol "{scheme}", expected one of {", ".join(DEFAULT_PORTS)}')
        protocol = found
    else:
        rest = text
    label, separator, place = rest.partition("@")
    if not separator:
        label, place = "", rest
    elif not _LABEL.fullmatch(label):
        raise RelayUrlError("the label before @ must be 1 to 255 printable characters without spaces")
    elif protocol not in _WITH_CREDENTIALS:
        raise RelayUrlError(f"{protocol}:// does not always encrypt; a label needs smtp+tls:// or smtps://")
    host, port = parse_host_port(place, DEFAULT_PORTS[protocol])
    if not port:
        raise RelayUrlError("lmtp:// needs a port")
    return RelayUrl(protocol, label, host, port)


def parse_host_port(text: str, default_port: int) -> tuple[str, int]:
    """`host`, `host:port`, `[address]` or `[address]:port`. Raises RelayUrlError.

    `[IPv6:address]` (RFC 5321 4.1.3) is taken as well; the host returned has no brackets.
    """
    match = _HOST_PORT.fullmatch(text)
    if match is None:
        raise RelayUrlError(f'expected a host name or an address in brackets, found "{text}"')
    host, digits = match["host"], match["port"]
    if host.startswith("["):
        inner = host[1:-1]
        if inner[:5].lower() == "ipv6:":
            inner = inner[5:]
        if as_address(inner) is None:
            raise RelayUrlError(f'"{inner}" in brackets is not an IP address')
        host = inner
    elif not host:
        raise RelayUrlError("the host name is missing")
    elif not is_host_name(host):
        raise RelayUrlError(f'"{host}" is not a host name')
    if digits is None:
        return host, default_port
    if not re.fullmatch("[0-9]{1,5}", digits) or not 1 <= int(digits) <= 65535:
        raise RelayUrlError(f'"{digits}" is not a port number (1 to 65535)')
    return host, int(digits)


def is_host_name(text: str) -> bool:
    """Whether `text` has the form of a host name or dotted IPv4 address, underscores allowed."""
    return len(text) <= 253 and all(_HOST_LABEL.fullmatch(part) for part in text.split("."))


def as_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address that `text` is, if it is one."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
