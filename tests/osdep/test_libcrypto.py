"""libcrypto's method callbacks: every private-key operation of a process is a Python function."""

import hashlib
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from keys.certificates import PrivateKey, certificate, ec_key, key_pem, rsa_key

from smtpd_ps.keys.private_key import PrivateKey as LoadedKey
from smtpd_ps.osdep import libcrypto
from smtpd_ps.pure import certificate as x509
from smtpd_ps.pure.decoy_key import decoy_pem


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    libcrypto.restore_signer()


def handshake(folder: Path, key: PrivateKey, maximum: ssl.TLSVersion, ciphers: str = "") -> None:
    """One handshake in memory with the decoy of `key`; raises what ssl raises."""
    pem = certificate(key, "a.example")
    (folder / "cert").write_bytes(pem)
    (folder / "decoy").write_bytes(decoy_pem(x509.leaf(pem).public_key))
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.maximum_version = maximum
    server_side.load_cert_chain(folder / "cert", folder / "decoy")
    client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_side.load_verify_locations(folder / "cert")
    if ciphers:
        server_side.set_ciphers(ciphers)
        client_side.set_ciphers(ciphers)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    client = client_side.wrap_bio(to_client, to_server, server_hostname="a.example")
    for _ in range(4):
        for end in (client, server):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    server.write(b"220 a.example\r\n")
    assert client.read(100) == b"220 a.example\r\n"


def refuse(_public: bytes, _data: bytes) -> bytes:
    return b""


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_rsa_is_signed_by_the_function(tmp_path: Path, version: ssl.TLSVersion) -> None:
    """The function gets the modulus and a padded block, and its answer is the signature."""
    asked: list[tuple[bytes, bytes]] = []
    key = LoadedKey(bytearray(key_pem(rsa_key())))

    def sign(modulus: bytes, block: bytes) -> bytes:
        asked.append((modulus, block))
        return key.sign(block)

    libcrypto.install_signer(sign, refuse)
    handshake(tmp_path, rsa_key(), version)
    assert [(int.from_bytes(modulus), len(block)) for modulus, block in asked] == [
        (rsa_key().public_key().public_numbers().n, 256)
    ]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1])
def test_ecdsa_is_signed_by_the_function(
    tmp_path: Path, version: ssl.TLSVersion, curve: type[ec.EllipticCurve]
) -> None:
    """The function gets the point and a digest, and its answer (DER) is the signature."""
    asked: list[tuple[bytes, bytes]] = []
    key = LoadedKey(bytearray(key_pem(ec_key(curve))))

    def sign(point: bytes, digest: bytes) -> bytes:
        asked.append((point, digest))
        return key.sign(digest)

    libcrypto.install_signer(refuse, sign)
    handshake(tmp_path, ec_key(curve), version)
    (point, digest), *others = asked
    assert not others
    assert point == x509.leaf(certificate(ec_key(curve), "a")).public_key.point  # type: ignore[union-attr]
    assert len(digest) in (32, 48, 64)


def explode(_public: bytes, _data: bytes) -> bytes:
    raise RuntimeError("not caught")


@pytest.mark.parametrize("answer", [refuse, explode, lambda _p, _d: b"x" * 255, lambda _p, _d: b"x" * 1000])
@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_a_bad_answer_fails_the_handshake(tmp_path: Path, kind: str, answer: libcrypto.Signer) -> None:
    """No answer, an exception, a wrong length: ssl raises, and nothing worse happens."""
    libcrypto.install_signer(answer, answer)
    with pytest.raises(ssl.SSLError):
        handshake(tmp_path, rsa_key() if kind == "rsa" else ec_key(), ssl.TLSVersion.TLSv1_2)


def test_a_decoy_alone_is_worthless(tmp_path: Path) -> None:
    """Without the callbacks a decoy's signatures do not verify."""
    for key in (rsa_key(), ec_key()):
        with pytest.raises(ssl.SSLError):
            handshake(tmp_path, key, ssl.TLSVersion.TLSv1_3)


def test_rsa_decryption_is_refused(tmp_path: Path) -> None:
    """RSA key exchange, which decrypts, never succeeds."""
    asked: list[bytes] = []
    libcrypto.install_signer(lambda _modulus, block: asked.append(block) or b"", refuse)
    with pytest.raises(ssl.SSLError):
        handshake(tmp_path, rsa_key(), ssl.TLSVersion.TLSv1_2, "kRSA+AES:@SECLEVEL=0")
    assert asked == []


def test_only_keys_loaded_later_are_changed() -> None:
    """Every key loaded after install_signer asks the function; restore_signer ends that."""
    libcrypto.install_signer(refuse, refuse)
    digest = hashlib.sha256(b"x").digest()
    signature = LoadedKey(bytearray(key_pem(ec_key()))).sign(digest)
    assert signature == b""
    libcrypto.restore_signer()
    signature = LoadedKey(bytearray(key_pem(ec_key()))).sign(digest)
    ec_key().public_key().verify(signature, b"x", ec.ECDSA(hashes.SHA256()))


def test_it_is_the_library_of_ssl() -> None:
    """The loaded libcrypto is the one in ssl's process image, and loading it does not import ssl."""
    code = (
        "import sys; from smtpd_ps.osdep import libcrypto; lib = libcrypto.load(); assert 'ssl' not in sys.modules\n"
        "import ctypes, ssl; lib.OpenSSL_version_num.restype = ctypes.c_ulong\n"
        "assert lib.OpenSSL_version_num() == ssl.OPENSSL_VERSION_NUMBER, lib.OpenSSL_version_num()\n"
        "try: maps = open('/proc/self/maps').read()\n"
        "except FileNotFoundError: sys.exit()\n"
        "assert len({line.split()[-1] for line in maps.splitlines() if 'libcrypto' in line}) <= 1"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
