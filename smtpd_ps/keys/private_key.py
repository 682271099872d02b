"""One private key, held inside libcrypto: loaded, compared with its certificate, signing.

Runs in keys (and in `smtpd_ps -n`, which only checks); parses the operator's key files. The
arithmetic is libcrypto's, constant in time and blinded; Python never sees the numbers.
"""

import ctypes

from smtpd_ps.osdep import libcrypto
from smtpd_ps.pure import certificate as x509
from smtpd_ps.pure.tls_signature import DIGEST_BYTES, is_rsa_block

MIN_RSA_BITS = 2048
MAX_RSA_BITS = 8192  # a signature must fit into messages.Signature


class KeyFileError(ValueError):
    """A key file that cannot be used; the text says why and holds nothing of the key."""


class PrivateKey:
    """An RSA or ECDSA key.

    `scheme` is the one that messages.Sign names: "rsa" or "ecdsa".
    """

    __slots__ = ("_address", "_library", "_public_bytes", "block_bits", "scheme")

    def __init__(self, pem: bytearray) -> None:
        """Load a PEM key: PKCS#8, PKCS#1 or SEC 1, not encrypted. Raises KeyFileError.

        `pem` is overwritten, whatever happens.
        """
        self._library = libcrypto.load()
        self._address = 0
        try:
            if b"ENCRYPTED" in pem:
                raise KeyFileError("the key is encrypted with a passphrase")
            if b"-----BEGIN" not in pem or b"PRIVATE KEY-----" not in pem:
                raise KeyFileError("no PEM private key in it")
            self._load(pem)
        finally:
            wipe(pem)

    def _load(self, pem: bytearray) -> None:
        library = self._library
        buffer = (ctypes.c_char * len(pem)).from_buffer(pem)
        bio = library.BIO_new_mem_buf(buffer, len(pem))
        envelope = library.PEM_read_bio_PrivateKey(bio, None, None, b"")  # b"": never ask for a passphrase
        library.BIO_free(bio)
        del buffer
        if not envelope:
            library.ERR_clear_error()
            raise KeyFileError("the private key does not parse")
        rsa = library.EVP_PKEY_get1_RSA(envelope)
        ec = 0 if rsa else library.EVP_PKEY_get1_EC_KEY(envelope)
        library.EVP_PKEY_free(envelope)
        library.ERR_clear_error()
        if rsa:
            self.scheme, self._address = "rsa", rsa
            self._public_bytes = libcrypto.rsa_modulus(rsa)
            self.block_bits = int.from_bytes(self._public_bytes).bit_length()
            if not MIN_RSA_BITS <= self.block_bits <= MAX_RSA_BITS:
                raise KeyFileError(f"an RSA key of {self.block_bits} bits; {MIN_RSA_BITS} to {MAX_RSA_BITS} are taken")
        elif ec:
            self.scheme, self._address = "ecdsa", ec
            self._public_bytes = libcrypto.ec_point(ec)
            self.block_bits = 0
        else:
            raise KeyFileError("a key that is neither RSA nor ECDSA")
        consistent = library.RSA_check_key(rsa) if rsa else library.EC_KEY_check_key(ec)
        library.ERR_clear_error()
        if consistent != 1:
            raise KeyFileError("the numbers of the private key do not fit each other")

    def __del__(self) -> None:
        if self._address:
            (self._library.RSA_free if self.scheme == "rsa" else self._library.EC_KEY_free)(self._address)

    def belongs_to(self, public_key: x509.PublicKey) -> bool:
        """Whether this is the private part of `public_key`."""
        match public_key:
            case x509.RsaPublicKey():
                return self.scheme == "rsa" and int.from_bytes(self._public_bytes) == public_key.modulus
            case x509.EcPublicKey():
                return self.scheme == "ecdsa" and self._public_bytes == public_key.point

    def sign(self, data: bytes) -> bytes:
        """The signature of a padded block (RSA) or of a digest (ECDSA, in DER).

        b"" for what has not the form of a TLS signature, and when libcrypto fails.
        """
        if self.scheme == "rsa":
            return self._sign_rsa(data) if is_rsa_block(data, self.block_bits) else b""
        return self._sign_ecdsa(data) if len(data) in DIGEST_BYTES else b""

    def _sign_rsa(self, block: bytes) -> bytes:
        out = ctypes.create_string_buffer(len(block))
        size = self._library.RSA_private_encrypt(len(block), block, out, self._address, libcrypto.RSA_NO_PADDING)
        self._library.ERR_clear_error()
        return out.raw if size == len(block) else b""

    def _sign_ecdsa(self, digest: bytes) -> bytes:
        out = ctypes.create_string_buffer(self._library.ECDSA_size(self._address))
        size = ctypes.c_uint()
        made = self._library.ECDSA_sign(0, digest, len(digest), out, ctypes.byref(size), self._address)
        self._library.ERR_clear_error()
        return out.raw[: size.value] if made == 1 else b""


def load_pair(cert_pem: bytes, key_pem: bytearray) -> tuple[x509.Certificate, PrivateKey]:
    """The leaf certificate and its key, which is overwritten.

    Raises CertificateError (all of the certificate file's faults) and KeyFileError (the key file's,
    and that the two do not belong together).
    """
    try:
        for der in x509.chain(cert_pem)[1:]:
            x509.parse(der)
        certificate = x509.leaf(cert_pem)
        key = PrivateKey(key_pem)
    finally:
        wipe(key_pem)
    if not key.belongs_to(certificate.public_key):
        raise KeyFileError("the private key does not belong to the certificate")
    return certificate, key


def wipe(secret: bytearray) -> None:
    """Overwrite with zeros, in place."""
    secret[:] = bytes(len(secret))
