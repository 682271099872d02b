"""SSLContexts whose private keys are elsewhere: made, and proven, before confinement.

Runs in smtp and delivery; reads the operator's certificates. In order:

    identities = install_pki(pkis, RemoteSigner(...))   # proves each with handshakes, or raises
    context = server_context([identities[name] for name in listener.pki], settings.ciphers)
    context = client_context(identity or None, verify=True)
    stream.start_tls(server_pump(context), on_done)     # runtime/tls.py

Once confined there is no file to load: a context made then would silently trust no CA.
"""

import os
import ssl
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from smtpd_ps.contract.settings import Dhe, PkiSettings, TlsVersion
from smtpd_ps.osdep import libcrypto
from smtpd_ps.pure import certificate as x509
from smtpd_ps.pure.decoy_key import decoy_pem
from smtpd_ps.pure.dh_group import ffdhe2048_pem
from smtpd_ps.runtime.signer import Scheme, Signer

if TYPE_CHECKING:
    import tempfile

_SELF_TEST_ROUNDS = 10
_VERSIONS: Mapping[TlsVersion, ssl.TLSVersion] = {
    "TLSv1.2": ssl.TLSVersion.TLSv1_2,
    "TLSv1.3": ssl.TLSVersion.TLSv1_3,
}


class PkiError(Exception):
    """A pki that cannot serve; the text names it. The daemon must not start."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate chain with its decoy key, ready for contexts."""

    name: str
    certificate: x509.Certificate
    chain_pem: bytes
    key_pem: bytes  # the decoy
    dhe: Dhe = "none"

    def load_into(self, context: ssl.SSLContext) -> None:
        """Give `context` this certificate. Raises PkiError."""
        try:
            with _TemporaryFile(self.chain_pem) as chain, _TemporaryFile(self.key_pem) as key:
                context.load_cert_chain(chain, key)
        except (ssl.SSLError, OSError) as error:
            raise PkiError(f"pki {self.name}: {error}") from None


def install_pki(pkis: Iterable[tuple[PkiSettings, bytes]], signer: Signer) -> dict[str, Identity]:
    """The identities by pki name, from settings and PEM chains; `signer` signs for them.

    Makes every private-key operation of this process a call of `signer`, then has each identity
    finish a TLS 1.2 and a TLS 1.3 handshake in memory and sees that the signer was asked. Keys must
    be serving. Raises PkiError.
    """
    identities: dict[str, Identity] = {}
    by_public: dict[bytes, str] = {}
    for settings, chain_pem in pkis:
        try:
            certificate = x509.leaf(chain_pem)
        except x509.CertificateError as error:
            raise PkiError(f"pki {settings.name}: {settings.cert_path}: {error}") from None
        key = certificate.public_key
        identities[settings.name] = Identity(settings.name, certificate, chain_pem, decoy_pem(key), settings.dhe)
        by_public.setdefault(_public_bytes(key), settings.name)
    if not identities:
        return identities
    asked: list[str] = []

    def sign(public: bytes, scheme: Scheme, data: bytes) -> bytes:
        name = by_public.get(public)
        if name is None:
            return b""
        asked.append(name)
        del asked[:-1]
        return signer.sign(name, scheme, data)

    try:
        libcrypto.install_signer(
            lambda public, block: sign(public, "rsa", block), lambda public, digest: sign(public, "ecdsa", digest)
        )
    except libcrypto.LibcryptoError as error:
        raise PkiError(f"TLS keys cannot be kept apart: {error}") from None
    for identity in identities.values():
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            asked.clear()
            _prove(identity, version)
            if asked != [by_public[_public_bytes(identity.certificate.public_key)]]:
                raise PkiError(f"pki {identity.name}: a {version.name} handshake did not ask keys for its signature")
    return identities


def server_context(
    identities: Sequence[Identity],
    ciphers: str = "",
    protocols: Sequence[TlsVersion] = (),
    *,
    verify: bool = False,
    ca_pem: bytes = b"",
) -> ssl.SSLContext:
    """For a listener: TLS 1.2 and later, the first identity unless SNI names another.

    A name that no certificate is for gets the first one as well, as a client that sends no SNI.
    `ciphers` is OpenSSL's list for TLS 1.2; `protocols` are all that smtpd_ps speaks where none is
    given. With `verify` a client must show a certificate of a CA in `ca_pem`, or else of the system. Raises PkiError.
    """
    contexts = [_server_context(identity, ciphers, protocols) for identity in identities]
    if verify:
        for context in contexts:
            context.verify_mode = ssl.CERT_REQUIRED
            load_authorities(context, ca_pem, ssl.Purpose.CLIENT_AUTH)
    first = contexts[0]
    if len(contexts) > 1:

        def choose(tls: ssl.SSLObject | ssl.SSLSocket, name: str | None, _context: ssl.SSLContext) -> None:
            if name is None:
                return
            for identity, context in zip(identities, contexts, strict=True):
                if identity.certificate.matches(name):
                    tls.context = context
                    return

        first.sni_callback = choose
    return first


def _server_context(identity: Identity, ciphers: str, protocols: Sequence[TlsVersion] = ()) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _restrict(context, ciphers, "!kRSA:!aNULL")  # keys decrypts nothing, so no RSA key exchange
    _speak(context, protocols)
    if identity.dhe != "none":
        with _TemporaryFile(ffdhe2048_pem()) as group:
            context.load_dh_params(group)
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_SINGLE_ECDH_USE
    context.num_tickets = 1
    identity.load_into(context)
    return context


def client_context(
    identity: Identity | None = None,
    *,
    verify: bool,
    ca_pem: str = "",
    ciphers: str = "",
    protocols: Sequence[TlsVersion] = (),
) -> ssl.SSLContext:
    """For a relay: TLS 1.2 and later, with a client certificate if `identity` is given.

    With `verify` the server must prove the host name given to client_pump, to a CA of `ca_pem` (PEM
    text) or else of the system (some MiB: make one context and keep it). `protocols` are all that
    smtpd_ps speaks where none is given. Raises PkiError, also when the system has no CA at all.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _restrict(context, ciphers, "!aNULL")
    _speak(context, protocols)
    if identity is not None:
        identity.load_into(context)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    load_authorities(context, ca_pem.encode(), ssl.Purpose.SERVER_AUTH)
    return context


def load_authorities(context: ssl.SSLContext, ca_pem: bytes, purpose: ssl.Purpose) -> None:
    """Trust the CAs of `ca_pem` (PEM), or else the system's. Raises PkiError."""
    try:
        if ca_pem:
            context.load_verify_locations(cadata=ca_pem.decode("ascii", "replace"))
        else:
            _load_system_cas(context, purpose)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise PkiError(f"CA certificates: {error}") from None
    if not context.cert_store_stats()["x509"]:
        raise PkiError("CA certificates: there are none, so every verification would fail")


def _load_system_cas(context: ssl.SSLContext, purpose: ssl.Purpose) -> None:
    """All of the system's CAs now: a directory of hashed names would be read later, from the chroot."""
    context.load_default_certs(purpose)
    if context.cert_store_stats()["x509"]:
        return
    folder = ssl.get_default_verify_paths().capath
    for path in sorted(Path(folder).glob("*.[0-9]")) if folder else ():
        context.load_verify_locations(path)


def _speak(context: ssl.SSLContext, protocols: Sequence[TlsVersion]) -> None:
    """Only these versions, in their order; none given means all that smtpd_ps speaks."""
    if protocols:
        context.minimum_version, context.maximum_version = _VERSIONS[protocols[0]], _VERSIONS[protocols[-1]]


def _restrict(context: ssl.SSLContext, ciphers: str, never: str) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if ciphers:
        try:
            context.set_ciphers(f"{ciphers}:{never}")
        except ssl.SSLError:
            raise PkiError(f"no cipher in {ciphers!r}") from None


def _public_bytes(key: x509.PublicKey) -> bytes:
    """What libcrypto's callbacks see of the key."""
    match key:
        case x509.RsaPublicKey():
            return key.modulus.to_bytes(key.block_bytes)
        case x509.EcPublicKey():
            return key.point


def _prove(identity: Identity, version: ssl.TLSVersion) -> None:
    """One handshake between two memory buffers. Raises PkiError."""
    server_side = _server_context(identity, "")
    server_side.minimum_version = server_side.maximum_version = version
    client_side = client_context(verify=False)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = server_side.wrap_bio(to_server, to_client, server_side=True)
    client = client_side.wrap_bio(to_client, to_server)
    waiting = {client, server}
    try:
        for _ in range(_SELF_TEST_ROUNDS):
            for end in (client, server):
                try:
                    end.do_handshake()
                    waiting.discard(end)
                except ssl.SSLWantReadError:
                    continue
            if not waiting:
                return
    except (ssl.SSLError, OSError) as error:
        raise PkiError(
            f"pki {identity.name}: keys makes no signature that verifies ({version.name}: {error})"
        ) from None
    raise PkiError(f"pki {identity.name}: a {version.name} handshake with myself does not end")


class _TemporaryFile:
    """A path to `content` for a library that wants one: a memfd on Linux, else a file in a 0700 directory."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self._fd = -1
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> str:
        if sys.platform.startswith("linux"):
            self._fd = os.memfd_create("pem", os.MFD_CLOEXEC)
            with open(self._fd, "wb", closefd=False) as file:
                file.write(self._content)
            return f"/proc/self/fd/{self._fd}"
        import tempfile  # brings in much that Linux does not need; all of this is before confinement

        self._folder = tempfile.TemporaryDirectory(prefix="smtpd_ps")
        path = Path(self._folder.name) / "pem"
        path.write_bytes(self._content)
        return str(path)

    def __exit__(self, *_error: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)
        if self._folder is not None:
            self._folder.cleanup()
