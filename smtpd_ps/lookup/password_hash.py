"""Does this password make this hash? crypt(5) hashes and argon2.

Runs in lookup: set up before confinement, `verify` in the checking threads. Passwords are
strangers' bytes, hashes are the operator's.

The system's crypt(3) is used for every scheme it has proven to compute (osdep/crypt_r): it is
C, so it releases the interpreter lock, and takes half of passlib's time ($6$ with 5,000 rounds:
3 ms against 6). passlib (libpass, or passlib 1.7.4) does the rest: argon2, and all on systems whose
crypt(3) is absent or old. It is imported only where a table has a hash that needs it.
"""

import re
import warnings
from collections.abc import Callable, Iterable
from enum import Enum

from smtpd_ps.osdep.crypt_r import SystemCrypt

MAX_PASSWORD_BYTES = 1024
_HASH = "[./A-Za-z0-9]"
_FORMS = {
    "$5$": re.compile(rf"\$5\$(rounds=[0-9]{{1,9}}\$)?[^$:\s]{{0,16}}\${_HASH}{{43}}"),
    "$6$": re.compile(rf"\$6\$(rounds=[0-9]{{1,9}}\$)?[^$:\s]{{0,16}}\${_HASH}{{86}}"),
    "$2a$": re.compile(rf"\$2a\$[0-3][0-9]\${_HASH}{{53}}"),
    "$2b$": re.compile(rf"\$2b\$[0-3][0-9]\${_HASH}{{53}}"),
    "$2y$": re.compile(rf"\$2y\$[0-3][0-9]\${_HASH}{{53}}"),
    "$y$": re.compile(rf"\$y\${_HASH}{{1,16}}\${_HASH}{{1,86}}\${_HASH}{{43}}"),
    "$argon2": re.compile(r"\$argon2(id|i|d)\$v=[0-9]{1,3}\$m=[0-9]{1,8},t=[0-9]{1,8},p=[0-9]{1,4}\$[^$\s]+\$[^$\s]+"),
}
SCHEMES = tuple(_FORMS)
# Other schemes that only the system may know: md5crypt, scrypt, gost-yescrypt ...
_OTHER = re.compile(r"\$[0-9a-z]{1,8}\$[!-~]{10,300}")
_PASSLIB = {
    "$5$": "sha256_crypt", "$6$": "sha512_crypt", "$2a$": "bcrypt", "$2b$": "bcrypt", "$2y$": "bcrypt",
    "$argon2": "argon2",
}  # fmt: skip


class Verdict(Enum):
    """What checking a password against a hash gives."""

    MATCH = "match"
    NO_MATCH = "no match"
    MALFORMED = "malformed"  # the hash is none, or of no scheme that we know
    UNSUPPORTED = "unsupported"  # a good hash, but nothing here can compute it


Verify = Callable[[str, str], bool]  # password, hash


def scheme_of(stored: str) -> str:
    """The key of the scheme of a well-formed hash; "$" for one that only crypt(3) may know; "" for none."""
    for scheme, form in _FORMS.items():
        if stored.startswith(scheme):
            return scheme if form.fullmatch(stored) else ""
    return "$" if _OTHER.fullmatch(stored) else ""


def scheme_by_start(start: str) -> str:
    """The key of the scheme of hashes that begin so ("$6$", "$argon2id$")."""
    return next((scheme for scheme in _FORMS if start.startswith(scheme)), "$")


class PasswordHashes:
    """All that can verify, made before confinement."""

    def __init__(self, system: SystemCrypt | None) -> None:
        self._system = system
        self._passlib: dict[str, Verify] = {}

    def preload(self, schemes: Iterable[str]) -> tuple[str, ...]:
        """Import what the hashes of these schemes need. Returns the schemes that nothing can compute."""
        missing = []
        for scheme in sorted(set(schemes)):
            if self._system is not None and (scheme == "$" or scheme in self._system.schemes):
                continue
            verify = _passlib_verify(scheme)
            if verify is None:
                missing.append(scheme)
            else:
                self._passlib[scheme] = verify
        return tuple(missing)

    def lacks(self, schemes: Iterable[str]) -> tuple[str, ...]:
        """Those of the schemes that nothing loaded can compute."""
        system = self._system.schemes if self._system is not None else frozenset()
        known = (*system, *self._passlib, *(["$"] if self._system is not None else []))
        return tuple(sorted(set(schemes).difference(known)))

    def verify(self, password: str, stored: str) -> Verdict:
        """Whether `password` makes `stored`. May be called by several threads. Never raises."""
        scheme = scheme_of(stored)
        if not scheme:
            return Verdict.MALFORMED
        secret = password.encode("utf-8", "surrogatepass")
        if b"\0" in secret or len(secret) > MAX_PASSWORD_BYTES:
            return Verdict.NO_MATCH  # crypt(3) would cut it at the NUL
        if self._system is not None and (scheme == "$" or scheme in self._system.schemes):
            made = self._system.hash(secret, stored.encode())
            if made is None:
                return Verdict.UNSUPPORTED
            return Verdict.MATCH if _same(made, stored.encode()) else Verdict.NO_MATCH
        verify = self._passlib.get(scheme)
        if verify is None:
            return Verdict.UNSUPPORTED
        try:
            return Verdict.MATCH if verify(password, stored) else Verdict.NO_MATCH
        except ValueError:
            return Verdict.MALFORMED  # passlib is stricter about salts and costs
        except TypeError:
            return Verdict.NO_MATCH  # a password that the scheme cannot take


def _same(made: bytes, stored: bytes) -> bool:
    """Compare in a time that does not depend on where they differ (hmac would cost OpenSSL's 4 MiB)."""
    return len(made) == len(stored) and int.from_bytes(made, "big") ^ int.from_bytes(stored, "big") == 0


def _passlib_verify(scheme: str) -> Verify | None:
    """passlib's verify for a scheme, loaded and tried once; None where it has no backend."""
    name = _PASSLIB.get(scheme)
    if name is None:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # passlib 1.7.4 imports the deprecated crypt module
        try:
            import passlib.hash  # type: ignore[import-untyped, unused-ignore]

            handler = getattr(passlib.hash, name)
            # Hashing once selects and loads the backend, which could not be found after chroot.
            cheap = {"bcrypt": {"rounds": 4}, "argon2": {}}.get(name, {"rounds": 1000})
            made = handler.using(**cheap).hash("x")  # replaces passlib's stubs, `verify` among them
            handler.verify("x", made)
        except (ImportError, AttributeError, RuntimeError, ValueError):
            return None  # RuntimeError: passlib has no backend for it
    verify: Verify = handler.verify
    return verify
