"""Decoy keys: the true public part, nothing else."""

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from keys.certificates import PrivateKey, certificate, ec_key, rsa_key

from smtpd_ps.pure import certificate as x509
from smtpd_ps.pure.decoy_key import decoy_pem


def test_rsa_decoy() -> None:
    """PKCS#1 with the modulus and exponent; every private number is 1."""
    key = rsa_key()
    decoy = decoy_pem(x509.leaf(certificate(key, "a.example")).public_key)
    loaded = serialization.load_pem_private_key(decoy, None, unsafe_skip_rsa_key_validation=True)
    numbers = key.public_key().public_numbers()
    secrets = key.private_numbers()
    body = _der(decoy)
    assert body.count(numbers.n.to_bytes(256)) == 1
    for secret in (secrets.p, secrets.q, secrets.d, secrets.dmp1, secrets.dmq1, secrets.iqmp):
        assert secret.to_bytes(256).lstrip(b"\0") not in body
    assert loaded is not None


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
def test_ec_decoy(curve: type[ec.EllipticCurve]) -> None:
    """SEC 1 with the curve and the point; the scalar is 1."""
    key: PrivateKey = ec_key(curve)
    public = x509.leaf(certificate(key, "a.example")).public_key
    assert isinstance(public, x509.EcPublicKey)
    body = _der(decoy_pem(public))
    size = (curve().key_size + 7) // 8
    assert public.point in body
    assert (1).to_bytes(size) in body
    assert ec_key(curve).private_numbers().private_value.to_bytes(size) not in body


def _der(pem: bytes) -> bytes:
    import base64

    return base64.b64decode(b"".join(pem.splitlines()[1:-1]))
