"""The real host, as the configuration asks of it.

Runs in the parent and in `smtpd_ps -n`, before any process is started.
"""

import socket
from collections.abc import Callable, Mapping
from pathlib import Path

MAILNAME_PATH = "/etc/mail/mailname"
MAX_FILE_BYTES = 16 << 20


class SystemEnvironment:
    """Files, names and addresses of this host (config.load.Environment).

    The interface functions come from osdep: addresses by interface, and the interfaces of a
    group, where the system has groups.
    """

    def __init__(
        self,
        interface_addresses: Callable[[], Mapping[str, tuple[str, ...]]],
        interface_group: Callable[[str], tuple[str, ...]] = lambda _name: (),
        mailname_path: str = MAILNAME_PATH,
    ) -> None:
        self._interface_addresses = interface_addresses
        self._interface_group = interface_group
        self._mailname_path = mailname_path

    def read_text(self, path: str) -> str:
        """The file's text. Raises OSError, also for one over 16 MiB, and UnicodeError."""
        with Path(path).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise OSError(0, f"is larger than {MAX_FILE_BYTES >> 20} MiB")
        return content.decode()

    def hostname(self) -> str:
        """The first line of /etc/mail/mailname, else the host's name, made canonical if it has no dot."""
        try:
            lines = Path(self._mailname_path).read_text(encoding="ascii", errors="replace").splitlines()
        except OSError:
            lines = []
        if lines and lines[0].strip():
            return lines[0].strip()
        name = socket.gethostname()
        if "." in name:
            return name
        try:
            found = socket.getaddrinfo(name, None, flags=socket.AI_CANONNAME)
        except OSError:
            return name
        return found[0][3] or name

    def interface_addresses(self) -> Mapping[str, tuple[str, ...]]:
        """The IP addresses of each interface."""
        return self._interface_addresses()

    def interface_group(self, name: str) -> tuple[str, ...]:
        """The interfaces of a group."""
        return self._interface_group(name)

    def resolve(self, host: str) -> tuple[str, ...]:
        """The host's addresses by the system's resolver; none on any failure."""
        try:
            found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
        except (OSError, UnicodeError):
            return ()
        return tuple(dict.fromkeys(str(entry[4][0]) for entry in found))

    def service_port(self, name: str) -> int | None:
        """The TCP port of services(5)."""
        try:
            return socket.getservbyname(name, "tcp")
        except (OSError, UnicodeError, ValueError):
            return None
