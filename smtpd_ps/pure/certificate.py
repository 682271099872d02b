"""What the daemon must know of a certificate: its public key, its names, its dates (RFC 5280).

Runs in keys, smtp and delivery before they are confined, and in `smtpd_ps -n`; parses the
operator's certificates, never a peer's. Signatures are not verified here: OpenSSL reads the same
file again and peers verify it.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass

from smtpd_ps.pure import der

MAX_PEM_BYTES = 1_048_576

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----\s(.*?)-----END \1-----", re.DOTALL)
_CERTIFICATE_LABELS = (b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE")
_VERSION, _ISSUER_ID, _SUBJECT_ID, _EXTENSIONS = 0xA0, 0x81, 0x82, 0xA3
_DNS_NAME = 0x82  # GeneralName [2]

_RSA_KEY = "1.2.840.113549.1.1.1"
_EC_KEY = "1.2.840.10045.2.1"
CURVES = {"1.2.840.10045.3.1.7": 256, "1.3.132.0.34": 384, "1.3.132.0.35": 521}  # name to bits of the order
_COMMON_NAME = "2.5.4.3"
_SUBJECT_ALT_NAME = "2.5.29.17"


class CertificateError(ValueError):
    """Not a certificate that can be used here; the text says why."""


@dataclass(frozen=True, slots=True)
class RsaPublicKey:
    """RFC 8017 3.1."""

    modulus: int
    exponent: int

    @property
    def block_bytes(self) -> int:
        """Length of a block and of a signature."""
        return (self.modulus.bit_length() + 7) // 8


@dataclass(frozen=True, slots=True)
class EcPublicKey:
    """RFC 5480; the point is uncompressed (04 X Y)."""

    curve: str  # object identifier, a key of CURVES
    point: bytes


PublicKey = RsaPublicKey | EcPublicKey


@dataclass(frozen=True, slots=True)
class Certificate:
    """The parts of one certificate."""

    public_key: PublicKey
    names: tuple[str, ...]  # DNS names of subjectAltName, lower case; where there is none, the common name
    not_before_secs: int  # Unix time
    not_after_secs: int

    def matches(self, server_name: str) -> bool:
        """Whether it is for this host name: exactly, or by `*.` for one label (RFC 6125 6.4)."""
        name = server_name.lower().rstrip(".")
        wild = "*." + name.partition(".")[2]
        return name in self.names or (wild != "*." and wild in self.names)


def chain(pem: bytes) -> list[bytes]:
    """The certificates (DER) of a PEM file, leaf first. Raises CertificateError."""
    if len(pem) > MAX_PEM_BYTES:
        raise CertificateError("too large for a certificate file")
    found = []
    for label, body in _PEM.findall(pem):
        if label in _CERTIFICATE_LABELS:
            try:
                found.append(base64.b64decode(b"".join(body.split()), validate=True))
            except binascii.Error:
                raise CertificateError("broken base64 in a certificate") from None
    if not found:
        raise CertificateError("no PEM certificate in it")
    return found


def leaf(pem: bytes) -> Certificate:
    """The first certificate of a PEM file. Raises CertificateError."""
    return parse(chain(pem)[0])


def parse(data: bytes) -> Certificate:
    """One certificate (DER). Raises CertificateError."""
    try:
        return _parse(data)
    except CertificateError:
        raise
    except (ValueError, IndexError) as error:
        raise CertificateError(f"not an X.509 certificate: {error}") from None


def _parse(data: bytes) -> Certificate:
    outer = list(der.elements(der.only(data, der.SEQUENCE)))
    fields = list(der.elements(der.expect(outer[0], der.SEQUENCE)))
    if fields[0][0] == _VERSION:
        del fields[0]
    _serial, _algorithm, _issuer, validity, subject, key = fields[:6]
    not_before, not_after = der.elements(der.expect(validity, der.SEQUENCE))
    names: tuple[str, ...] = ()
    for tag, content in fields[6:]:
        if tag == _EXTENSIONS:
            names = _alternative_names(der.only(content, der.SEQUENCE))
    return Certificate(
        public_key=_public_key(der.expect(key, der.SEQUENCE)),
        names=names or _common_names(der.expect(subject, der.SEQUENCE)),
        not_before_secs=_time(not_before),
        not_after_secs=_time(not_after),
    )


def _public_key(info: bytes) -> PublicKey:
    algorithm, bits = der.elements(info)
    parameters: Sequence[der.Element] = list(der.elements(der.expect(algorithm, der.SEQUENCE)))
    kind = der.read_oid(parameters[0])
    if kind == _RSA_KEY:
        modulus, exponent = der.elements(der.only(der.read_bits(bits), der.SEQUENCE))
        return RsaPublicKey(der.read_integer(modulus), der.read_integer(exponent))
    if kind != _EC_KEY:
        raise CertificateError(f"a key that is neither RSA nor ECDSA ({kind})")
    curve = der.read_oid(parameters[1])
    if curve not in CURVES:
        raise CertificateError("an EC key on a curve other than P-256, P-384 and P-521")
    point = der.read_bits(bits)
    if len(point) != 1 + 2 * ((CURVES[curve] + 7) // 8) or point[0] != 4:
        raise CertificateError("an EC key that is not an uncompressed point of its curve")
    return EcPublicKey(curve, point)


def _alternative_names(extensions: bytes) -> tuple[str, ...]:
    for extension in der.elements(extensions):
        fields = list(der.elements(der.expect(extension, der.SEQUENCE)))
        if der.read_oid(fields[0]) == _SUBJECT_ALT_NAME:
            general = der.elements(der.only(der.expect(fields[-1], der.OCTET_STRING), der.SEQUENCE))
            return tuple(_text(content) for tag, content in general if tag == _DNS_NAME)
    return ()


def _common_names(subject: bytes) -> tuple[str, ...]:
    found = []
    for relative in der.elements(subject):
        for attribute in der.elements(der.expect(relative, der.SET)):
            kind, value = der.elements(der.expect(attribute, der.SEQUENCE))
            if der.read_oid(kind) == _COMMON_NAME:
                found.append(_text(value[1]))
    return tuple(found)


def _text(content: bytes) -> str:
    return content.decode("ascii", "backslashreplace").lower()


def _time(element: der.Element) -> int:
    """RFC 5280 4.1.2.5: YYMMDDHHMMSSZ up to 2049, YYYYMMDDHHMMSSZ after."""
    tag, content = element
    if tag == der.UTC_TIME:
        content = (b"19" if content[:1] >= b"5" else b"20") + content
    elif tag != der.GENERALIZED_TIME:
        raise der.DerError("no date")
    if not re.fullmatch(rb"[0-9]{14}Z", content):
        raise der.DerError("a bad date")
    year, *rest = int(content[:4]), *(int(content[at : at + 2]) for at in range(4, 14, 2))
    month, day, hour, minute, second = rest
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60 and year):
        raise der.DerError("a bad date")
    return ((_days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second


def _days(year: int, month: int, day: int) -> int:
    """Days since 1970-01-01 in the Gregorian calendar; years are counted from March, months too."""
    year, month = (year, month - 3) if month > 2 else (year - 1, month + 9)
    return 365 * year + year // 4 - year // 100 + year // 400 + (153 * month + 2) // 5 + day - 719_469
