"""AES-256-GCM (NIST SP 800-38D) from the libcrypto that Python's ssl is linked to.

Runs in queue, where the spool is encrypted, and in smtpctl_ps for the import of an OpenSMTPD spool.
Everything is loaded when a `Key` is made, before confinement; a cipher needs nothing but memory.
Parses nothing. (The cryptography package does the same and costs a process 10 MiB.)
"""

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_void_p
from typing import Any, Self

from smtpd_ps.osdep import libcrypto

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16

_SET_TAG, _GET_TAG = 0x11, 0x10  # EVP_CTRL_AEAD_*
_START = [c_void_p, c_void_p, c_void_p, c_char_p, c_char_p]
_UPDATE = [c_void_p, c_void_p, POINTER(c_int), c_char_p, c_int]
_PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "EVP_aes_256_gcm": (c_void_p, []),
    "EVP_CIPHER_CTX_new": (c_void_p, []),
    "EVP_CIPHER_CTX_free": (None, [c_void_p]),
    "EVP_CIPHER_CTX_ctrl": (c_int, [c_void_p, c_int, c_int, c_void_p]),
    "EVP_EncryptInit_ex": (c_int, _START),
    "EVP_EncryptUpdate": (c_int, _UPDATE),
    "EVP_EncryptFinal_ex": (c_int, [c_void_p, c_void_p, POINTER(c_int)]),
    "EVP_DecryptInit_ex": (c_int, _START),
    "EVP_DecryptUpdate": (c_int, _UPDATE),
    "EVP_DecryptFinal_ex": (c_int, [c_void_p, c_void_p, POINTER(c_int)]),
}


class Key:
    """A key of KEY_BYTES bytes. Raises libcrypto.LibcryptoError where there is no AES-GCM."""

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
        self._key = key
        self._library = libcrypto.load()
        try:
            for name, (result, arguments) in _PROTOTYPES.items():
                function = getattr(self._library, name)
                function.restype, function.argtypes = result, arguments
        except AttributeError as error:
            raise libcrypto.LibcryptoError(f"Python's libcrypto has no AES-GCM: {error}") from None
        self._cipher = self._library.EVP_aes_256_gcm()
        nonce = bytes(NONCE_BYTES)  # of nothing at all: libcrypto reads its files now or never
        with self.encryption(nonce, b"") as first:
            first.finish()

    def __repr__(self) -> str:
        return "Key(...)"  # never in a log

    def encryption(self, nonce: bytes, associated: bytes) -> "Encryption":
        """One encryption. A nonce must never be used twice with a key."""
        return Encryption(self._library, self._cipher, self._key, nonce, associated)

    def decryption(self, nonce: bytes, associated: bytes) -> "Decryption":
        """One decryption; nothing it gives is to be used before `finish` has said yes."""
        return Decryption(self._library, self._cipher, self._key, nonce, associated)

    def encrypt(self, nonce: bytes, associated: bytes, data: bytes) -> bytes:
        """Ciphertext and tag."""
        with self.encryption(nonce, associated) as one:
            return one.update(data) + one.finish()

    def decrypt(self, nonce: bytes, associated: bytes, data: bytes) -> bytes | None:
        """The plain text of ciphertext and tag; None where they are not what this key made."""
        with self.decryption(nonce, associated) as one:
            plain = one.update(data[:-TAG_BYTES])
            return plain if one.finish(data[-TAG_BYTES:]) else None


class _Stream:
    """A cipher context; a context manager, so that it is freed."""

    _way = ""

    def __init__(self, library: ctypes.CDLL, cipher: int, key: bytes, nonce: bytes, associated: bytes) -> None:
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"a nonce has {NONCE_BYTES} bytes")
        self._library = library
        self._context = library.EVP_CIPHER_CTX_new()
        if not self._context:
            raise MemoryError("no cipher context")
        start = getattr(library, f"EVP_{self._way}Init_ex")
        self._update = getattr(library, f"EVP_{self._way}Update")
        self._final = getattr(library, f"EVP_{self._way}Final_ex")
        if not start(self._context, cipher, None, key, nonce):
            self.close()
            raise libcrypto.LibcryptoError("AES-GCM cannot be started")
        if associated:
            self._feed(None, associated)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the context, and with it the key schedule. Harmless when it is freed."""
        context, self._context = self._context, None
        if context:
            self._library.EVP_CIPHER_CTX_free(context)

    def _feed(self, out: Any, data: bytes) -> int:
        size = c_int(0)
        if not self._update(self._context, out, ctypes.byref(size), data, len(data)):
            raise libcrypto.LibcryptoError("AES-GCM failed")
        return size.value

    def update(self, data: bytes) -> bytes:
        """What `data` becomes; as many bytes."""
        if not data:
            return b""
        out = ctypes.create_string_buffer(len(data))
        size = self._feed(out, data)
        return out.raw[:size]


class Encryption(_Stream):
    """Plain text in, ciphertext out, and a tag at the end."""

    _way = "Encrypt"

    def finish(self) -> bytes:
        """The tag."""
        rest, tag = ctypes.create_string_buffer(TAG_BYTES), ctypes.create_string_buffer(TAG_BYTES)
        if not self._final(self._context, rest, ctypes.byref(c_int(0))) or not self._library.EVP_CIPHER_CTX_ctrl(
            self._context, _GET_TAG, TAG_BYTES, tag
        ):
            raise libcrypto.LibcryptoError("AES-GCM failed")
        return tag.raw


class Decryption(_Stream):
    """Ciphertext in, plain text out; `finish` says whether that is to be believed."""

    _way = "Decrypt"

    def finish(self, tag: bytes) -> bool:
        """Whether all that came was encrypted with this key, nonce and associated data."""
        if len(tag) != TAG_BYTES:
            return False
        given = ctypes.create_string_buffer(tag, TAG_BYTES)
        rest = ctypes.create_string_buffer(TAG_BYTES)
        library = self._library
        if not library.EVP_CIPHER_CTX_ctrl(self._context, _SET_TAG, TAG_BYTES, given) or not self._final(
            self._context, rest, ctypes.byref(c_int(0))
        ):
            library.ERR_clear_error()
            return False
        return True
