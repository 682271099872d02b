"""Decoy keys: PEM private keys with the true public part and made-up private numbers.

Runs in smtp and delivery before they are confined. SSLContext wants a private key beside a
certificate; the true one lives in keys alone, so it gets this, and a method callback
(osdep/libcrypto) signs instead. Used by itself, a decoy makes signatures that nobody accepts.
"""

import base64

from smtpd_ps.pure import der
from smtpd_ps.pure.certificate import CURVES, EcPublicKey, PublicKey, RsaPublicKey


def decoy_pem(key: PublicKey) -> bytes:
    """The decoy for a public key, in PKCS#1 (RFC 8017 A.1.2) or SEC 1 (RFC 5915) form."""
    match key:
        case RsaPublicKey():
            return pem("RSA PRIVATE KEY", _rsa(key))
        case EcPublicKey():
            return pem("EC PRIVATE KEY", _ec(key))


def _rsa(key: RsaPublicKey) -> bytes:
    # version, modulus, publicExponent, privateExponent, prime1, prime2, exponent1, exponent2, coefficient
    numbers = (0, key.modulus, key.exponent, 1, 1, 1, 1, 1, 1)
    return der.write(der.SEQUENCE, *(der.write_integer(number) for number in numbers))


def _ec(key: EcPublicKey) -> bytes:
    scalar = (1).to_bytes((CURVES[key.curve] + 7) // 8)
    return der.write(
        der.SEQUENCE,
        der.write_integer(1),
        der.write(der.OCTET_STRING, scalar),
        der.write(0xA0, der.write_oid(key.curve)),
        der.write(0xA1, der.write_bits(key.point)),
    )


def pem(label: str, data: bytes) -> bytes:
    """DER as PEM (RFC 7468)."""
    text = base64.b64encode(data).decode()
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join((f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", "")).encode()
