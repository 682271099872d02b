"""Certificates and keys for tests, made on the spot."""

import datetime
import functools

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

RSA_PKCS1 = EC_SEC1 = serialization.PrivateFormat.TraditionalOpenSSL
PKCS8 = serialization.PrivateFormat.PKCS8


@functools.cache
def rsa_key(bits: int = 2048, number: int = 0) -> rsa.RSAPrivateKey:
    """An RSA key; another `number` is another key."""
    del number
    return rsa.generate_private_key(65537, bits)


@functools.cache
def ec_key(curve: type[ec.EllipticCurve] = ec.SECP256R1, number: int = 0) -> ec.EllipticCurvePrivateKey:
    """An EC key; another `number` is another key."""
    del number
    return ec.generate_private_key(curve())


def certificate(key: PrivateKey, *names: str, days: int = 30, common_name: str | None = None) -> bytes:
    """A self-signed certificate (PEM) for the host names; the first is the common name too.

    A negative `days` makes an expired one.
    """
    now = datetime.datetime.now(datetime.UTC)
    common_name = names[0] if common_name is None else common_name
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else [])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=60))
        .not_valid_after(now + datetime.timedelta(days=days))
    )
    if names:
        alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
        builder = builder.add_extension(alternatives, critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def key_pem(key: PrivateKey, form: serialization.PrivateFormat = PKCS8) -> bytes:
    """The key as PEM in PKCS#8, or in its traditional form (PKCS#1, SEC 1)."""
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
