"""Self-signed certificates for tests, laid out as an ACME client leaves them."""

import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


def make_key(kind: str) -> Key:
    """A fresh "rsa" or "ecdsa" key."""
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def make_certificate(key: Key, name: str = "mx.example.com", issuer: tuple[Key, str] | None = None) -> bytes:
    """A certificate for `name` and 127.0.0.1, as PEM, signed by itself or by the key and name of an authority."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName(name), x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer[1])]) if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(issuer[0] if issuer else key, hashes.SHA256())
    )
    return built.public_bytes(serialization.Encoding.PEM)


def key_pem(key: Key) -> bytes:
    """The key as unencrypted PKCS#8."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def write_acme(folder: Path, key: Key, name: str = "mx.example.com") -> tuple[Path, Path]:
    """live/fullchain.pem and live/privkey.pem as symlinks into archive/, which only root may enter."""
    archive, live = folder / "archive", folder / "live"
    for directory in (archive, live):
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
    pem = key_pem(key)
    (archive / "fullchain1.pem").write_bytes(make_certificate(key, name))
    (archive / "privkey1.pem").write_bytes(pem)
    (archive / "privkey1.pem").chmod(0o600)
    for link, target in (("fullchain.pem", "fullchain1.pem"), ("privkey.pem", "privkey1.pem")):
        path = live / link
        path.unlink(missing_ok=True)
        path.symlink_to(f"../archive/{target}")
    return live / "fullchain.pem", live / "privkey.pem"
