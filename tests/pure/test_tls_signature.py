"""Only blocks with the form of a TLS signature pass; blocks are made by undoing real signatures."""

import functools

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa, utils
from hypothesis import given
from hypothesis import strategies as st
from keys.certificates import rsa_key

from smtpd_ps.pure.tls_signature import is_pkcs1_block, is_pss_block, is_rsa_block

GOOD_HASHES = [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()]
BAD_HASHES = [hashes.SHA1(), hashes.SHA224(), hashes.MD5()]
SIZES = [2048, 2049, 2050, 2051, 2056, 3072]


@functools.cache
def sized_key(bits: int) -> rsa.RSAPrivateKey:
    """A key whose modulus has exactly so many bits; OpenSSL itself makes even ones only."""
    if bits % 2 == 0:
        return rsa_key(bits)
    for number in range(100):
        p = rsa_key(bits + 1, number).private_numbers().p
        q = rsa_key(bits - 1, number).private_numbers().q
        if (p * q).bit_length() == bits:
            break
    d = rsa.rsa_recover_private_exponent(65537, p, q)
    crt = (rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q))
    return rsa.RSAPrivateNumbers(p, q, d, *crt, rsa.RSAPublicNumbers(65537, p * q)).private_key()


def undo(signature: bytes, key: rsa.RSAPrivateKey) -> bytes:
    """The padded block that was signed."""
    numbers = key.public_key().public_numbers()
    return pow(int.from_bytes(signature), numbers.e, numbers.n).to_bytes((numbers.n.bit_length() + 7) // 8)


def pss(algorithm: hashes.HashAlgorithm, salt_bytes: int, mgf: hashes.HashAlgorithm | None = None) -> padding.PSS:
    return padding.PSS(padding.MGF1(mgf or algorithm), salt_bytes)


@pytest.mark.parametrize("algorithm", GOOD_HASHES, ids=lambda h: h.name)
def test_pkcs1_passes(algorithm: hashes.HashAlgorithm) -> None:
    """RFC 5246 4.7: PKCS#1 v1.5 of SHA-2."""
    block = undo(rsa_key().sign(b"x", padding.PKCS1v15(), algorithm), rsa_key())
    assert is_pkcs1_block(block)
    assert is_rsa_block(block, 2048)
    assert not is_pss_block(block, 2048)


@pytest.mark.parametrize("algorithm", GOOD_HASHES, ids=lambda h: h.name)
@pytest.mark.parametrize("bits", SIZES)
def test_pss_passes(algorithm: hashes.HashAlgorithm, bits: int) -> None:
    """RFC 8446 4.2.3: PSS with a salt of the digest's length, whatever the modulus's length."""
    key = sized_key(bits)
    assert key.key_size == bits
    for _ in range(4):  # other salts
        assert is_rsa_block(undo(key.sign(b"x", pss(algorithm, algorithm.digest_size), algorithm), key), bits)


@pytest.mark.parametrize("algorithm", BAD_HASHES, ids=lambda h: h.name)
def test_old_hashes_are_refused(algorithm: hashes.HashAlgorithm) -> None:
    """SHA-1, SHA-224 and MD5 are signed in no form."""
    for form in (padding.PKCS1v15(), pss(algorithm, algorithm.digest_size)):
        assert not is_rsa_block(undo(rsa_key().sign(b"x", form, algorithm), rsa_key()), 2048)


def test_bare_digests_are_refused() -> None:
    """TLS 1.0's MD5 with SHA-1, and anything else without a DigestInfo."""
    for size in (16, 20, 32, 36, 48, 51, 64):
        assert not is_rsa_block(b"\0\1" + b"\xff" * (253 - size) + b"\0" + b"d" * size, 2048)


def test_other_pss_parameters_are_refused() -> None:
    """Another salt length, or another hash in MGF1, is not TLS."""
    sha256 = hashes.SHA256()
    for form in (pss(sha256, 0), pss(sha256, 20), pss(sha256, 222), pss(sha256, 32, hashes.SHA1())):
        assert not is_rsa_block(undo(rsa_key().sign(b"x", form, sha256), rsa_key()), 2048)


def test_encryption_blocks_are_refused() -> None:
    """A block of type 2 or OAEP, or a ciphertext, would be decryption."""
    public = rsa_key().public_key()
    oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
    for form in (padding.PKCS1v15(), oaep):
        ciphertext = public.encrypt(b"premaster", form)
        assert not is_rsa_block(ciphertext, 2048)
    numbers = rsa_key().private_numbers()
    for form in (padding.PKCS1v15(), oaep):
        clear = pow(int.from_bytes(public.encrypt(b"premaster", form)), numbers.d, numbers.public_numbers.n)
        assert not is_rsa_block(clear.to_bytes(256), 2048)


def test_damaged_pkcs1_is_refused() -> None:
    """Short fill, other fill, other type, bytes after the digest (Bleichenbacher 2006)."""
    block = undo(rsa_key().sign(b"x", padding.PKCS1v15(), hashes.SHA256()), rsa_key())
    info = block[block.index(b"\0", 2) + 1 :]
    wrong = [
        b"\0\2" + block[2:],
        b"\1\1" + block[2:],
        b"\0\1" + b"\xff" * 20 + b"\xfe" + block[23:],
        b"\0\1" + b"\xff" * 8 + b"\0" + info + b"x" * (256 - 11 - len(info)),
        b"\0\1" + b"\xff" * 7 + b"\0" + info + b"x" * (256 - 10 - len(info)),
        block[:-1],
        block + b"x",
        b"",
    ]
    assert not [bad for bad in wrong if is_rsa_block(bad, 2048)]


@given(st.data())
def test_a_changed_pss_block_is_refused(data: st.DataObject) -> None:
    """Any other byte outside the salt breaks the structure."""
    digest = utils.Prehashed(hashes.SHA256())
    block = bytearray(undo(rsa_key().sign(b"d" * 32, pss(hashes.SHA256(), 32), digest), rsa_key()))
    at = data.draw(st.integers(0, 255))
    block[at] ^= data.draw(st.integers(1, 255))
    in_salt = 256 - 1 - 32 - 32 <= at < 256 - 1 - 32
    assert is_pss_block(bytes(block), 2048) is in_salt


@given(st.binary(min_size=256, max_size=256))
def test_arbitrary_blocks_are_refused(block: bytes) -> None:
    """Bytes chosen at random are no signature."""
    assert not is_rsa_block(block, 2048)
    assert not is_rsa_block(b"\0\1\xff" + block[3:-1] + b"\xbc", 2048)
