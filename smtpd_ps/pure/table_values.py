"""What stands in tables: the values of table(5), one parser for each sort.

Runs in lookup on tables of the operator, and in makemap and the parser of smtpd.conf for those in place.
Every parser raises ValueError with what is wrong; who reads a file puts path and line before it.
"""

from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address

from smtpd_ps.pure.address import domain_valid, split

MAX_ID = 2**32 - 2  # -1 as a uid or gid means none to setresuid(2)
MAX_HOME_BYTES = 1024  # contract.values.Path
MAX_USER = 255  # what a Route holds
MAX_PASSWORD = 1024
MAX_MAILADDRS = 1000  # of one user


@dataclass(frozen=True, slots=True)
class UserInfo:
    """Whose mail this is to the system (service userinfo)."""

    uid: int
    gid: int
    home: str  # an absolute path


def parse_userinfo(value: str) -> UserInfo:
    """`uid:gid:home` (to.c, text_to_userinfo). The home is all that follows, colons too."""
    parts = value.split(":", 2)
    if len(parts) != 3:
        raise ValueError(f'expected uid:gid:home, found "{value}"')
    uid, gid = _id(parts[0], "uid"), _id(parts[1], "gid")
    home = parts[2]
    if not home.startswith("/"):
        raise ValueError(f'the home directory must start with "/", found "{home}"')
    if len(home.encode(errors="replace")) > MAX_HOME_BYTES or "\0" in home:
        raise ValueError("the home directory is no path")
    return UserInfo(uid, gid, home)


def _id(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) <= MAX_ID):
        raise ValueError(f'a {what} is a number up to {MAX_ID}, found "{text}"')
    return int(text)


def parse_address(text: str) -> str:
    """An IP address, IPv6 also in brackets, in its usual form (service source, keys of addrname)."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if bare[:5].lower() == "ipv6:" and bare is not text:
        bare = bare[5:]
    try:
        return str(IPv4Address(bare))
    except AddressValueError:
        pass
    try:
        if "%" not in bare:
            return str(IPv6Address(bare))
    except AddressValueError:
        pass
    raise ValueError(f'expected an IP address, found "{text}"')


def parse_host_name(text: str) -> str:
    """The name of a host, as it is said in HELO (values of addrname); an address literal is one."""
    if not domain_valid(text):
        raise ValueError(f'expected a host name, found "{text}"')
    return text


def parse_mailaddr(text: str) -> str:
    """`user@domain`, `@domain`, `user` or `@` in lower case; the domain may be a glob (service mailaddr)."""
    if not text or any(c.isspace() or not c.isprintable() for c in text) or "," in text:
        raise ValueError(f'expected user@domain, @domain or user, found "{text}"')
    user, domain = split(text)
    if "@" in user:
        raise ValueError(f'expected user@domain, @domain or user, found "{text}"')
    return f"{user}@{domain}".lower() if domain else (user.lower() or "@")


def parse_mailaddrs(value: str) -> tuple[str, ...]:
    """Addresses with commas between them (service mailaddrmap), in lower case."""
    parts = tuple(parse_mailaddr(part.strip()) for part in value.split(","))
    if len(parts) > MAX_MAILADDRS:
        raise ValueError(f"at most {MAX_MAILADDRS} addresses, found {len(parts)}")
    return parts


def split_credentials(label: str, value: str) -> tuple[str, str] | None:
    """User and password of a relay credentials entry `label user:password`; None where malformed.

    A value without a colon is the password of a user named like the label, as in OpenSMTPD.
    """
    user, colon, password = value.partition(":")
    if not colon:
        user, password = label, value if len(value) > 2 else ""
    good = 0 < len(user) <= MAX_USER and 0 < len(password) <= MAX_PASSWORD
    return (user, password) if good else None


def check_credentials(value: str) -> None:
    """That a relay can use the value as user and password; it is never quoted, since it is a secret."""
    if split_credentials("label", value) is None:
        raise ValueError("expected user:password, or a password of at least three characters")
