"""Mail addresses: paths of MAIL and RCPT, mailboxes, domains, HELO arguments.

Runs in smtp on the bytes of remote clients (decoded), in lookup on table values, and in the
parent on smtpd.conf. What is not valid here never becomes part of an envelope: no control
character, no space, no quoted local part. Outside ASCII (RFC 6531) there are local parts alone, of
printable characters: a domain becomes its A-labels, so that it has one form everywhere.
"""

import encodings.punycode  # noqa: F401 - looked up by name, and no file is there any more once confined
import re

MAX_LOCAL = 255  # RFC 5321 4.5.3.1.1 gives 64; OpenSMTPD takes 255
MAX_DOMAIN = 255

_LOCAL = re.compile(r"[A-Za-z0-9!#$%&'*/?^`{|}~+=_-]+(?:\.[A-Za-z0-9!#$%&'*/?^`{|}~+=_-]+)*").fullmatch
_UTF8_ATOM = r"[^\x00- \"(),:;<>@\[\\\].\x7f]+"
_UTF8_LOCAL = re.compile(rf"{_UTF8_ATOM}(?:\.{_UTF8_ATOM})*").fullmatch
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*").fullmatch
_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_BYTE}(?:\.{_BYTE}){{3}}").fullmatch
_GROUP = re.compile(r"[0-9A-Fa-f]{1,4}").fullmatch


class AddressError(ValueError):
    """Not an address that we take."""


def split(address: str) -> tuple[str, str]:
    """Local part and domain of `address`, cut at the last "@"; the domain is "" without one."""
    local, at, domain = address.rpartition("@")
    return (local, domain) if at else (address, "")


def ipv4_valid(text: str) -> bool:
    """Whether `text` is a dotted quad (no leading zeros)."""
    return _IPV4(text) is not None


def ipv6_valid(text: str) -> bool:
    """Whether `text` is an IPv6 address as of RFC 4291 2.2, without a zone."""
    if len(text) > 45:
        return False
    head, double, tail = text.partition("::")
    groups = head.split(":") if head else []
    if double:
        tail_groups = tail.split(":") if tail else []
        groups += tail_groups
    if groups and (tail or not double) and "." in groups[-1]:
        if not ipv4_valid(groups.pop()):
            return False
        groups += ["0", "0"]
    if not all(_GROUP(group) for group in groups):
        return False
    return len(groups) <= 7 if double else len(groups) == 8


def literal_address(domain: str) -> str:
    """The IP address in an address literal such as "[192.0.2.1]" or "[IPv6:::1]"; "" if none."""
    if not (domain.startswith("[") and domain.endswith("]")):
        return ""
    inner = domain[1:-1]
    if inner[:5].lower() == "ipv6:":
        inner = inner[5:]
        return inner if ipv6_valid(inner) else ""
    return inner if ipv4_valid(inner) or ipv6_valid(inner) else ""


def local_valid(local: str) -> bool:
    """Whether `local` is a dot-atom (RFC 5321 4.1.2) of at most 255 characters."""
    return len(local) <= MAX_LOCAL and _LOCAL(local) is not None


def domain_valid(domain: str) -> bool:
    """Whether `domain` is a host name (underscores tolerated, no final dot) or an address literal."""
    if len(domain) > MAX_DOMAIN:
        return False
    return _DOMAIN(domain) is not None or (domain[:1] == "[" and literal_address(domain) != "")


def helo_valid(argument: str) -> bool:
    """Whether `argument` may stand behind HELO or EHLO: what a domain may be (QUIRKS 8)."""
    return domain_valid(argument)


def mailbox_valid(address: str) -> bool:
    """Whether `address` is local@domain, both valid. The null sender "" is not a mailbox."""
    local, domain = split(address)
    return domain_valid(domain) and (local_valid(local) or _utf8_local_valid(local))


def _utf8_local_valid(local: str) -> bool:
    """Whether `local` is a dot-atom with other characters than ASCII in it, all of which can be seen."""
    return (
        not local.isascii()
        and local.isprintable()
        and len(local.encode(errors="replace")) <= MAX_LOCAL
        and _UTF8_LOCAL(local) is not None
    )


def ascii_domain(domain: str) -> str:
    """The domain with every label outside ASCII as its A-label (RFC 5890, RFC 3492). Raises AddressError.

    Labels of letters, digits, marks and hyphens only: nothing that compatibility mappings turn into a
    dot or another character of syntax.
    """
    if domain.isascii():
        return domain
    labels = []
    for label in domain.lower().split("."):
        if label.isascii():
            labels.append(label)
            continue
        if not f"x{label.replace('-', '_')}".isidentifier() or "-" in (label[0], label[-1]) or len(label) > MAX_DOMAIN:
            raise AddressError("invalid domain")
        labels.append("xn--" + label.encode("punycode").decode("ascii"))
    return ".".join(labels)


def parse_path(path: str, default_domain: str, null_allowed: bool = False, utf8: bool = False) -> str:
    """The mailbox in `path`, the text between "<" and ">" of MAIL or RCPT.

    "" and "@" are the null sender, returned as "" where `null_allowed`. A source route
    ("@a,@b:user@c", RFC 5321 appendix C) is cut at its colon. A local part without a domain,
    and one that ends in "@", get `default_domain`. With `utf8` neither part need be ASCII; the
    domain is returned as A-labels. Raises AddressError.
    """
    local, domain = split(path)
    if local[:1] == "@" and ":" in local:
        local = local.partition(":")[2]
    if not local:
        if null_allowed and not domain:
            return ""
        raise AddressError("no local part")
    if not domain:
        domain = default_domain
    if utf8:
        domain = ascii_domain(domain)
    if not local_valid(local) and not (utf8 and _utf8_local_valid(local)):
        raise AddressError("invalid local part")
    if not domain_valid(domain):
        raise AddressError("invalid domain")
    return f"{local}@{domain}"
