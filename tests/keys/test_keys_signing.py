"""keys: loading pairs, refusing what is no TLS signature, and the check that `smtpd_ps -n` makes."""

import hashlib
import os
import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, padding, rsa, utils
from keys.certificates import EC_SEC1, PKCS8, RSA_PKCS1, certificate, ec_key, key_pem, rsa_key

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import PkiSettings
from smtpd_ps.contract.values import Process
from smtpd_ps.keys.check import check_pair
from smtpd_ps.keys.files import PairError, load_keys
from smtpd_ps.keys.private_key import KeyFileError, PrivateKey, load_pair
from smtpd_ps.keys.signing import SigningService
from smtpd_ps.pure.certificate import CertificateError

DIGEST = hashlib.sha256(b"x").digest()
DIGEST_INFO = bytes.fromhex("3031300d060960864801650304020105000420") + DIGEST
BLOCK = b"\0\1" + b"\xff" * (253 - len(DIGEST_INFO)) + b"\0" + DIGEST_INFO


def loaded(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> PrivateKey:
    return PrivateKey(bytearray(key_pem(key)))


@pytest.mark.parametrize("form", [PKCS8, RSA_PKCS1])
def test_rsa_signature_verifies(form: serialization.PrivateFormat) -> None:
    """A PKCS#1 v1.5 block becomes the signature that others accept."""
    key = PrivateKey(bytearray(key_pem(rsa_key(), form)))
    assert key.scheme == "rsa"
    rsa_key().public_key().verify(key.sign(BLOCK), b"x", padding.PKCS1v15(), hashes.SHA256())


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
@pytest.mark.parametrize("form", [PKCS8, EC_SEC1])
def test_ecdsa_signature_verifies(form: serialization.PrivateFormat, curve: type[ec.EllipticCurve]) -> None:
    """A digest becomes a DER signature that others accept, and never the same twice."""
    key = PrivateKey(bytearray(key_pem(ec_key(curve), form)))
    assert key.scheme == "ecdsa"
    signature = key.sign(DIGEST)
    ec_key(curve).public_key().verify(signature, DIGEST, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
    assert key.sign(DIGEST) != signature


def test_other_forms_are_not_signed() -> None:
    """Anything but a block of TLS's form, or a digest of SHA-2's length, gives an empty signature."""
    for data in (b"", DIGEST, BLOCK[:-1], BLOCK + b"x", b"\0\2" + BLOCK[2:], os.urandom(256)):
        assert loaded(rsa_key()).sign(data) == b""
    for data in (b"", b"d" * 20, b"d" * 31, b"d" * 36, b"d" * 256):
        assert loaded(ec_key()).sign(data) == b""


def test_the_pem_is_wiped() -> None:
    """The buffer with the key's text holds zeros afterwards, also after an error."""
    good, bad = bytearray(key_pem(rsa_key())), bytearray(key_pem(rsa_key())[:-400])
    PrivateKey(good)
    with pytest.raises(KeyFileError):
        PrivateKey(bad)
    for_nothing = bytearray(key_pem(rsa_key()))
    with pytest.raises(CertificateError):
        load_pair(b"", for_nothing)
    assert not any(good) and not any(bad) and not any(for_nothing)


def encrypted() -> bytes:
    return rsa_key().private_bytes(
        serialization.Encoding.PEM, PKCS8, serialization.BestAvailableEncryption(b"passphrase")
    )


def traditional_encrypted() -> bytes:
    return rsa_key().private_bytes(
        serialization.Encoding.PEM, RSA_PKCS1, serialization.BestAvailableEncryption(b"passphrase")
    )


def plain(key: object) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, PKCS8, serialization.NoEncryption())  # type: ignore[attr-defined,no-any-return]


def inconsistent() -> bytes:
    """An RSA key whose private exponent belongs to another key."""
    from smtpd_ps.pure import der
    from smtpd_ps.pure.decoy_key import pem

    mine, other = rsa_key().private_numbers(), rsa_key(number=1).private_numbers()
    numbers = (
        0, mine.public_numbers.n, 65537, other.d, other.p, other.q, other.dmp1, other.dmq1, other.iqmp,
    )  # fmt: skip
    return pem("RSA PRIVATE KEY", der.write(der.SEQUENCE, *map(der.write_integer, numbers)))


@pytest.mark.parametrize(
    ("pem", "text"),
    [
        (b"", "no PEM private key"),
        (certificate(rsa_key(), "a"), "no PEM private key"),
        (key_pem(rsa_key())[:900], "no PEM private key|does not parse"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "does not parse"),
        (encrypted(), "encrypted with a passphrase"),
        (traditional_encrypted(), "encrypted with a passphrase"),
        (plain(ed25519.Ed25519PrivateKey.generate()), "neither RSA nor ECDSA"),
        (plain(dsa.generate_private_key(2048)), "neither RSA nor ECDSA"),
        (key_pem(rsa_key(1024)), "1024 bits"),
        (inconsistent(), "do not fit each other"),
    ],
)
def test_bad_key_files(pem: bytes, text: str) -> None:
    """What is wrong is said in words; no passphrase is ever asked for."""
    with pytest.raises(KeyFileError, match=text):
        PrivateKey(bytearray(pem))


def test_check_pair() -> None:
    """None for a good pair; otherwise which file, and what is wrong with it."""
    good = certificate(rsa_key(), "mx.example.com")
    now = time.time()
    assert check_pair(good, key_pem(rsa_key())) is None
    assert check_pair(certificate(ec_key(), "a.example") + good, key_pem(ec_key(), EC_SEC1)) is None
    assert check_pair(good, key_pem(rsa_key(number=1))) == "key: the private key does not belong to the certificate"
    assert check_pair(good, key_pem(ec_key())) == "key: the private key does not belong to the certificate"
    assert check_pair(good, b"") == "key: no PEM private key in it"
    assert check_pair(b"", key_pem(rsa_key())) == "certificate: no PEM certificate in it"
    assert check_pair(certificate(rsa_key(), common_name=""), key_pem(rsa_key())) == "the certificate names no host"
    expired = check_pair(certificate(rsa_key(), "a", days=-1), key_pem(rsa_key()))
    assert expired is not None and expired.startswith("the certificate expired on 20")
    early = check_pair(good, key_pem(rsa_key()), now - 90 * 86400)
    assert early is not None and early.startswith("the certificate is not valid before 20")
    broken_chain = good + b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"
    assert (check_pair(broken_chain, key_pem(rsa_key())) or "").startswith("certificate: not an X.509 certificate")


class Answers:
    def __init__(self) -> None:
        self.sent: list[m.Message] = []

    def send(self, message: m.Message, *fds: int) -> None:
        assert not fds
        self.sent.append(message)


def test_service_answers_every_request() -> None:
    """A good request is signed; an unknown pki, another scheme or form is refused and logged."""
    warnings: list[str] = []
    service = SigningService({"a": loaded(ec_key()), "b": loaded(rsa_key())}, warnings.append)
    assert service.sign(Process.SMTP, m.Sign("a", "ecdsa", DIGEST))
    assert service.sign(Process.SMTP, m.Sign("b", "rsa", BLOCK))
    assert not warnings
    for request in (m.Sign("c", "rsa", BLOCK), m.Sign("b", "ecdsa", DIGEST), m.Sign("a", "rsa", BLOCK),
                    m.Sign("b", "rsa", os.urandom(256))):  # fmt: skip
        assert service.sign(Process.SMTP, request) == b""
    assert len(warnings) == 4 and all("smtp asks" in warning for warning in warnings)
    assert (service.signed, service.refused) == (2, 4)


def opened(path: Path, content: bytes) -> int:
    path.write_bytes(content)
    return os.open(path, os.O_RDONLY)


def test_load_keys_from_descriptors(tmp_path: Path) -> None:
    """Keys come by name; a certificate that is not valid today is a warning, not a failure."""
    pki = PkiSettings("a", "a.crt", "a.key")
    certs = {"a": opened(tmp_path / "c", certificate(rsa_key(), "a.example", days=-1))}
    keys = {"a": opened(tmp_path / "k", key_pem(rsa_key()))}
    found, warnings = load_keys([pki], certs, keys)
    assert found["a"].sign(BLOCK)
    assert warnings == ["pki a: a.crt: the certificate is not valid today"]
    for fd in (certs["a"], keys["a"]):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_load_keys_names_the_file(tmp_path: Path) -> None:
    """The error names the pki and the path of the file at fault."""
    pki = PkiSettings("a", "a.crt", "a.key")
    good_cert, good_key = certificate(rsa_key(), "a.example"), key_pem(rsa_key())
    for cert, key, text in (
        (b"nothing", good_key, "pki a: a.crt: no PEM certificate"),
        (good_cert, b"nothing", "pki a: a.key: no PEM private key"),
        (good_cert, key_pem(ec_key()), "pki a: a.key: the private key does not belong"),
        (b"x" * (2 << 20), good_key, "pki a: a.crt: too large"),
    ):
        with pytest.raises(PairError, match=text):
            load_keys([pki], {"a": opened(tmp_path / "c", cert)}, {"a": opened(tmp_path / "k", key)})
    with pytest.raises(PairError, match="the parent sent no"):
        load_keys([pki], {}, {})
