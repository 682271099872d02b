"""The libcrypto that Python's ssl is linked to: where it is, and how signing is handed to others.

Runs in keys (which signs with it) and in smtp and delivery (which must not hold a private key).
There `install_signer` makes every private-key operation of the process a call of Python functions;
the key that SSLContext has loaded is only a decoy. Written against OpenSSL 3 and LibreSSL.
Everything here is set up before confinement; the callbacks need nothing but memory afterwards.
"""

import ctypes
import importlib.util
from collections.abc import Callable
from ctypes import CFUNCTYPE, POINTER, c_char_p, c_int, c_long, c_size_t, c_uint, c_void_p
from typing import Any

RSA_PKCS1_PADDING = 1
RSA_NO_PADDING = 3
POINT_UNCOMPRESSED = 4
MAX_POINT_BYTES = 133  # P-521

_PrivEnc = CFUNCTYPE(c_int, c_int, c_void_p, c_void_p, c_void_p, c_int)
_EcSign = CFUNCTYPE(c_int, c_int, c_void_p, c_int, c_void_p, POINTER(c_uint), c_void_p, c_void_p, c_void_p)
_EcSignSetup = CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_void_p)
_EcSignSig = CFUNCTYPE(c_void_p, c_void_p, c_int, c_void_p, c_void_p, c_void_p)

# Public part of the key and what to sign, to signature; b"" refuses.
# RSA: modulus (big-endian), padded block of its length. ECDSA: uncompressed point, digest; answers DER.
Signer = Callable[[bytes, bytes], bytes]


class LibcryptoError(Exception):
    """There is no libcrypto to use, or it lacks what is needed here."""


_PROTOTYPES: dict[str, tuple[Any, list[Any]]] = {
    "BIO_new_mem_buf": (c_void_p, [c_void_p, c_int]),
    "BIO_free": (c_int, [c_void_p]),
    "BN_num_bits": (c_int, [c_void_p]),
    "BN_bn2bin": (c_int, [c_void_p, c_void_p]),
    "ERR_clear_error": (None, []),
    "EVP_PKEY_free": (None, [c_void_p]),
    "EVP_PKEY_get1_RSA": (c_void_p, [c_void_p]),
    "EVP_PKEY_get1_EC_KEY": (c_void_p, [c_void_p]),
    "PEM_read_bio_PrivateKey": (c_void_p, [c_void_p, c_void_p, c_void_p, c_char_p]),
    "RSA_free": (None, [c_void_p]),
    "RSA_size": (c_int, [c_void_p]),
    "RSA_check_key": (c_int, [c_void_p]),
    "RSA_get0_key": (None, [c_void_p, POINTER(c_void_p), POINTER(c_void_p), POINTER(c_void_p)]),
    "RSA_private_encrypt": (c_int, [c_int, c_char_p, c_char_p, c_void_p, c_int]),
    "RSA_get_default_method": (c_void_p, []),
    "RSA_set_default_method": (None, [c_void_p]),
    "RSA_PKCS1_OpenSSL": (c_void_p, []),
    "RSA_meth_dup": (c_void_p, [c_void_p]),
    "RSA_meth_set_priv_enc": (c_int, [c_void_p, _PrivEnc]),
    "RSA_meth_set_priv_dec": (c_int, [c_void_p, _PrivEnc]),
    "EC_KEY_free": (None, [c_void_p]),
    "EC_KEY_check_key": (c_int, [c_void_p]),
    "EC_KEY_get0_group": (c_void_p, [c_void_p]),
    "EC_KEY_get0_public_key": (c_void_p, [c_void_p]),
    "EC_POINT_point2oct": (c_size_t, [c_void_p, c_void_p, c_int, c_void_p, c_size_t, c_void_p]),
    "EC_KEY_OpenSSL": (c_void_p, []),
    "EC_KEY_get_default_method": (c_void_p, []),
    "EC_KEY_set_default_method": (None, [c_void_p]),
    "EC_KEY_METHOD_new": (c_void_p, [c_void_p]),
    "EC_KEY_METHOD_set_sign": (None, [c_void_p, _EcSign, _EcSignSetup, _EcSignSig]),
    "ECDSA_size": (c_int, [c_void_p]),
    "ECDSA_sign": (c_int, [c_int, c_char_p, c_int, c_char_p, POINTER(c_uint), c_void_p]),
    "d2i_ECDSA_SIG": (c_void_p, [c_void_p, POINTER(c_char_p), c_long]),
}

_library: ctypes.CDLL | None = None
_kept: list[Any] = []  # callbacks that libcrypto points to; they live as long as the process


def load() -> ctypes.CDLL:
    """libcrypto with the prototypes set, the same copy that the ssl module uses.

    Symbols are looked up through Python's own _ssl extension, whose dependencies the dynamic linker
    searches: no path or version is guessed. Raises LibcryptoError.
    """
    global _library
    if _library is None:
        found = importlib.util.find_spec("_ssl")
        if found is None:
            raise LibcryptoError("this Python has no ssl module")
        path = found.origin if found.has_location else None
        try:
            library = ctypes.CDLL(path)
            for name, (result, arguments) in _PROTOTYPES.items():
                function = getattr(library, name)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError) as error:
            raise LibcryptoError(f"Python's libcrypto cannot be used: {error}") from None
        _library = library
    return _library


def bignum(number: int) -> bytes:
    """A BIGNUM (its address) as big-endian bytes."""
    library = load()
    out = ctypes.create_string_buffer((library.BN_num_bits(number) + 7) // 8)
    library.BN_bn2bin(number, out)
    return out.raw


def rsa_modulus(rsa: int) -> bytes:
    """The modulus of an RSA object (its address), big-endian."""
    modulus = c_void_p()
    load().RSA_get0_key(rsa, ctypes.byref(modulus), None, None)
    return bignum(modulus.value or 0)


def ec_point(key: int) -> bytes:
    """The public point of an EC_KEY object (its address), uncompressed."""
    library = load()
    group, point = library.EC_KEY_get0_group(key), library.EC_KEY_get0_public_key(key)
    if not group or not point:
        return b""
    out = ctypes.create_string_buffer(MAX_POINT_BYTES)
    size = library.EC_POINT_point2oct(group, point, POINT_UNCOMPRESSED, out, MAX_POINT_BYTES, None)
    return out.raw[:size]


def install_signer(sign_rsa: Signer, sign_ecdsa: Signer) -> None:
    """From now on every RSA and EC private key loaded in this process signs by these functions.

    RSA decryption is refused. Keys loaded earlier keep their ways. A function that raises, or
    answers with a wrong length, makes the operation fail. Raises LibcryptoError.
    """
    library = load()
    rsa_method = library.RSA_meth_dup(library.RSA_PKCS1_OpenSSL())
    ec_method = library.EC_KEY_METHOD_new(library.EC_KEY_OpenSSL())
    if not rsa_method or not ec_method:
        raise LibcryptoError("no memory for key methods")
    priv_enc, priv_dec = _rsa_callbacks(sign_rsa)
    if not library.RSA_meth_set_priv_enc(rsa_method, priv_enc) or not library.RSA_meth_set_priv_dec(
        rsa_method, priv_dec
    ):
        raise LibcryptoError("RSA_meth_set failed")
    sign, sign_setup, sign_sig = _ec_callbacks(sign_ecdsa)
    library.EC_KEY_METHOD_set_sign(ec_method, sign, sign_setup, sign_sig)
    _kept.extend((priv_enc, priv_dec, sign, sign_setup, sign_sig))
    library.RSA_set_default_method(rsa_method)
    library.EC_KEY_set_default_method(ec_method)


def restore_signer() -> None:
    """Keys loaded from now on sign by themselves again. For tests."""
    library = load()
    library.RSA_set_default_method(library.RSA_PKCS1_OpenSSL())
    library.EC_KEY_set_default_method(library.EC_KEY_OpenSSL())


def _rsa_callbacks(sign_rsa: Signer) -> tuple[Any, Any]:
    library = load()

    def priv_enc(size: int, source: int, target: int, rsa: int, padding: int) -> int:
        try:
            block = _padded(ctypes.string_at(source, size), library.RSA_size(rsa), padding)
            signature = sign_rsa(rsa_modulus(rsa), block) if block else b""
            if not signature or len(signature) != library.RSA_size(rsa):
                return -1
            ctypes.memmove(target, signature, len(signature))
            return len(signature)
        except Exception:  # noqa: BLE001 - nothing may be raised through C; the caller sees a failed signature
            return -1

    def priv_dec(_size: int, _source: int, _target: int, _rsa: int, _padding: int) -> int:
        return -1

    return _PrivEnc(priv_enc), _PrivEnc(priv_dec)


def _padded(data: bytes, block_bytes: int, padding: int) -> bytes:
    """The block to sign; b"" for what is no signature. PSS comes padded already."""
    if padding == RSA_NO_PADDING and len(data) == block_bytes:
        return data
    if padding == RSA_PKCS1_PADDING and len(data) <= block_bytes - 11:  # RFC 8017 9.2
        return b"\0\1" + b"\xff" * (block_bytes - len(data) - 3) + b"\0" + data
    return b""


def _ec_callbacks(sign_ecdsa: Signer) -> tuple[Any, Any, Any]:
    library = load()

    def made(digest: int, size: int, key: int) -> bytes:
        signature = sign_ecdsa(ec_point(key), ctypes.string_at(digest, size))
        return signature if len(signature) <= library.ECDSA_size(key) else b""

    def sign(
        _type: int, digest: int, size: int, target: int | None, target_size: Any, _kinv: int, _r: int, key: int
    ) -> int:
        try:
            if not target:
                target_size[0] = library.ECDSA_size(key)
                return 1
            signature = made(digest, size, key)
            ctypes.memmove(target, signature, len(signature))
            target_size[0] = len(signature)
            return 1 if signature else 0
        except Exception:  # noqa: BLE001 - as above
            return 0

    def sign_setup(_key: int, _context: int, _kinv: int, _r: int) -> int:
        return 1

    def sign_sig(digest: int, size: int, _kinv: int, _r: int, key: int) -> int | None:
        try:
            signature = made(digest, size, key)
            where = c_char_p(signature)
            return library.d2i_ECDSA_SIG(None, ctypes.byref(where), len(signature)) if signature else None
        except Exception:  # noqa: BLE001 - as above
            return None

    return _EcSign(sign), _EcSignSetup(sign_setup), _EcSignSig(sign_sig)
