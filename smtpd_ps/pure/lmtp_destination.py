"""The destination of an `lmtp` action: a socket's path, or host:port.

Pure; runs in delivery; parses an argument of smtpd.conf that the configuration has checked.
"""

from smtpd_ps.pure.relay_network import Target
from smtpd_ps.pure.relay_url import as_address, parse_host_port


def parse_destination(destination: str) -> Target | None:
    """Where to connect; None for a host name, which lookup must resolve. Raises RelayUrlError."""
    if destination.startswith("/"):
        return Target(destination, destination, 0, tls="never", lmtp=True)
    host, port = parse_host_port(destination, 0)
    address = as_address(host)
    return None if address is None else Target(host, str(address), port, tls="never", lmtp=True)
