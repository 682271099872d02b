"""Does a request to sign have the form of a TLS signature? What has not, keys refuses.

Runs in keys; judges bytes of smtp and delivery, which may have been taken over. The answer keeps
a thief of the signing channel from decrypting and from signing certificates or mail with other
forms; it cannot tell a true handshake from a made-up one.
"""

import hashlib

# DigestInfo up to the digest (RFC 8017 9.2 note 1). SHA-1 and MD5 are no longer signed (RFC 9155).
_DIGEST_INFO = {
    bytes.fromhex("3031300d060960864801650304020105000420"): 32,  # SHA-256
    bytes.fromhex("3041300d060960864801650304020205000430"): 48,  # SHA-384
    bytes.fromhex("3051300d060960864801650304020305000440"): 64,  # SHA-512
}
_PSS_HASHES = ("sha256", "sha384", "sha512")
_MIN_FILL_BYTES = 8
DIGEST_BYTES = frozenset((32, 48, 64))


def is_rsa_block(block: bytes, modulus_bits: int) -> bool:
    """Whether `block`, of the modulus's length, is PKCS#1 v1.5 or PSS as TLS 1.2 and 1.3 use them."""
    if len(block) != (modulus_bits + 7) // 8:
        return False
    return is_pkcs1_block(block) or is_pss_block(block, modulus_bits)


def is_pkcs1_block(block: bytes) -> bool:
    """EMSA-PKCS1-v1_5 (RFC 8017 9.2) of SHA-256, SHA-384 or SHA-512: 00 01 FF... 00 DigestInfo."""
    if block[:2] != b"\0\1":
        return False
    fill, found, info = block[2:].partition(b"\0")
    if not found or len(fill) < _MIN_FILL_BYTES or fill.strip(b"\xff"):
        return False
    return any(info.startswith(prefix) and len(info) == len(prefix) + size for prefix, size in _DIGEST_INFO.items())


def is_pss_block(block: bytes, modulus_bits: int) -> bool:
    """EMSA-PSS (RFC 8017 9.1.2) with MGF1 of the same hash and a salt of its length (RFC 8446 4.2.3).

    The message is not known here, so its hash cannot be compared; all the structure is.
    """
    em_bits = modulus_bits - 1
    em = block[-((em_bits + 7) // 8) :]
    if len(em) < len(block) and block[0]:
        return False
    if em[-1] != 0xBC or em[0] >> (8 - (8 * len(em) - em_bits)):
        return False
    return any(_is_pss(em, em_bits, name) for name in _PSS_HASHES)


def _is_pss(em: bytes, em_bits: int, name: str) -> bool:
    size = hashlib.new(name).digest_size
    db_bytes = len(em) - size - 1
    if db_bytes < size + 2:
        return False
    masked, seed = em[:db_bytes], em[db_bytes:-1]
    mask = b"".join(
        hashlib.new(name, seed + counter.to_bytes(4)).digest() for counter in range((db_bytes + size - 1) // size)
    )
    db = int.from_bytes(masked) ^ int.from_bytes(mask[:db_bytes])
    db &= (1 << (8 * db_bytes - (8 * len(em) - em_bits))) - 1
    return db >> (8 * size) == 1  # 00...00 01, then the salt
