"""The author's domain: of the one address in the From field of a message (RFC 5322, 3.6.2).

Runs in filter-dkim and filter-auth; parses the header of any message.
"""

from email.utils import getaddresses

from smtpd_ps.pure.address import domain_valid

MAX_FIELD_BYTES = 65536


def header_fields(message: bytes | bytearray) -> list[tuple[bytes, bytes]]:
    """Name in lower case and raw value of each field of the header; what is no field is passed over."""
    end = message.find(b"\r\n\r\n")
    head = bytes(message[: end + 2 if end >= 0 else len(message)])
    if message.startswith(b"\r\n"):
        return []
    fields: list[tuple[bytes, bytes]] = []
    for line in head.split(b"\r\n"):
        if line[:1] in (b" ", b"\t"):
            if fields:
                name, value = fields[-1]
                fields[-1] = name, value + b"\r\n" + line
            continue
        name, colon, value = line.partition(b":")
        if colon:
            fields.append((name.rstrip().lower(), value))
    return fields


def author_domains(message: bytes | bytearray) -> tuple[str, ...]:
    """The domains of all authors in lower case, in A-labels; "" for one that is no address."""
    values = [value[:MAX_FIELD_BYTES] for name, value in header_fields(message) if name == b"from"]
    texts = [value.replace(b"\r\n", b"").decode(errors="replace").strip() for value in values]
    return tuple(_domain(address) for _name, address in getaddresses(texts))


def author_domain(message: bytes | bytearray) -> str:
    """The domain of the author; "" where there is not exactly one."""
    domains = author_domains(message)
    return domains[0] if len(domains) == 1 else ""


def _domain(address: str) -> str:
    domain = address.rpartition("@")[2].lower().rstrip(".") if "@" in address else ""
    if not domain.isascii():
        try:
            domain = domain.encode("idna").decode()
        except UnicodeError:
            return ""
    return domain if domain_valid(domain) else ""
