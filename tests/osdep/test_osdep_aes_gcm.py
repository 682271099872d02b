"""AES-256-GCM through ctypes, against published vectors and another implementation."""

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.osdep.aes_gcm import Key

# Test case 16 of the GCM submission to NIST (McGrew and Viega, appendix B).
KEY = bytes.fromhex("feffe9928665731c6d6a8f9467308308" * 2)
NONCE = bytes.fromhex("cafebabefacedbaddecaf888")
PLAIN = bytes.fromhex(
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525"
    "b16aedf5aa0de657ba637b39"
)
ASSOCIATED = bytes.fromhex("feedfacedeadbeeffeedfacedeadbeefabaddad2")
CIPHER = bytes.fromhex(
    "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838"
    "c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b"
)


def test_a_published_vector() -> None:
    """Ciphertext and tag are those of the specification's test case."""
    assert Key(KEY).encrypt(NONCE, ASSOCIATED, PLAIN) == CIPHER
    assert Key(KEY).decrypt(NONCE, ASSOCIATED, CIPHER) == PLAIN


@given(st.binary(min_size=32, max_size=32), st.binary(min_size=12, max_size=12), st.binary(max_size=40), st.binary())
def test_as_another_implementation(key: bytes, nonce: bytes, associated: bytes, plain: bytes) -> None:
    """The cryptography package makes the same bytes."""
    assert Key(key).encrypt(nonce, associated, plain) == AESGCM(key).encrypt(nonce, plain, associated)


@given(st.integers(0, len(CIPHER) * 8 - 1))
def test_a_flipped_bit_is_noticed(bit: int) -> None:
    """Any bit of ciphertext or tag."""
    damaged = bytearray(CIPHER)
    damaged[bit // 8] ^= 1 << bit % 8
    assert Key(KEY).decrypt(NONCE, ASSOCIATED, bytes(damaged)) is None


def test_the_rest_is_bound_too() -> None:
    """Another key, nonce, associated data or length."""
    assert Key(KEY[::-1]).decrypt(NONCE, ASSOCIATED, CIPHER) is None
    assert Key(KEY).decrypt(NONCE[::-1], ASSOCIATED, CIPHER) is None
    assert Key(KEY).decrypt(NONCE, b"", CIPHER) is None
    assert Key(KEY).decrypt(NONCE, ASSOCIATED, CIPHER[:-1]) is None
    assert Key(KEY).decrypt(NONCE, ASSOCIATED, CIPHER[:8]) is None


def test_in_pieces() -> None:
    """Pieces make the same as the whole."""
    with Key(KEY).encryption(NONCE, ASSOCIATED) as sealing:
        made = b"".join(sealing.update(PLAIN[at : at + 7]) for at in range(0, len(PLAIN), 7)) + sealing.finish()
    assert made == CIPHER


def test_a_key_has_32_bytes_and_is_not_shown() -> None:
    """A key of another length is refused, and none is in a log by accident."""
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        Key(KEY[1:])
    assert KEY.hex() not in repr(Key(KEY)) and "fe" not in repr(Key(KEY))
