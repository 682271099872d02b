"""Private keys of filter-dkim: read once, and only where no other user could have read them.

Runs in filter-dkim; parses the operator's files.
"""

import base64
import binascii
import os
import stat
from dataclasses import dataclass
from typing import Literal

import dkim.crypto

from smtpd_ps.programs.bad_key import BadKey

MAX_KEY_BYTES = 65536
MIN_RSA_BITS = 1024  # RFC 8301, section 3.2
_ED25519 = bytes.fromhex("302e020100300506032b657004220420")  # RFC 8410, section 7: what stands before the key
Algorithm = Literal["rsa-sha256", "ed25519-sha256"]


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key as dkimpy takes it: RSA in PEM, Ed25519 as base64 of its 32 bytes."""

    selector: str
    algorithm: Algorithm
    material: bytes

    def __repr__(self) -> str:
        return f"SigningKey({self.selector}, {self.algorithm})"


def load(selector: str, path: str) -> SigningKey:
    """The key in a file that belongs to this user, and that nobody else can read. Raises BadKey."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            about = os.fstat(fd)
            if not stat.S_ISREG(about.st_mode):
                raise BadKey(f"{path} is not a file")
            if about.st_uid != os.geteuid():
                raise BadKey(f"{path} belongs to user id {about.st_uid}, and has to belong to {os.geteuid()}")
            if about.st_mode & 0o077:
                raise BadKey(f"{path} has mode {about.st_mode & 0o777:04o}: others than its owner can read it")
            text = os.read(fd, MAX_KEY_BYTES)
        finally:
            os.close(fd)
    except OSError as error:
        raise BadKey(f"{path}: {error.strerror}") from None
    return parse(selector, path, text)


def parse(selector: str, path: str, text: bytes) -> SigningKey:
    """A key from PEM (PKCS #1 or PKCS #8), or an Ed25519 key in base64 alone. Raises BadKey."""
    seed = _ed25519(text)
    if seed is not None:
        return SigningKey(selector, "ed25519-sha256", base64.b64encode(seed))
    try:
        bits = int(dkim.crypto.parse_pem_private_key(text)["modulus"]).bit_length()
    except (dkim.crypto.UnparsableKeyError, ValueError, KeyError, TypeError, IndexError):
        raise BadKey(f"{path} has neither an RSA nor an Ed25519 key") from None
    if bits < MIN_RSA_BITS:
        raise BadKey(f"{path} has an RSA key of {bits} bits; {MIN_RSA_BITS} are the least that verify")
    return SigningKey(selector, "rsa-sha256", text)


def _ed25519(text: bytes) -> bytes | None:
    lines = [line.strip() for line in text.splitlines()]
    pem = b"-----BEGIN PRIVATE KEY-----" in lines
    try:
        if pem:
            begin = lines.index(b"-----BEGIN PRIVATE KEY-----") + 1
            raw = base64.b64decode(b"".join(lines[begin : lines.index(b"-----END PRIVATE KEY-----")]), validate=True)
            if raw.startswith(_ED25519) and len(raw) == len(_ED25519) + 32:
                return raw[-32:]
        else:
            raw = base64.b64decode(b"".join(lines), validate=True)
            if len(raw) == 32:
                return raw
    except (binascii.Error, ValueError):
        pass  # then it is something else
    return None
