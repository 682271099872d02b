"""TLS without a socket: SSLObject between two memory buffers.

Runs in smtp and delivery; OpenSSL parses the remote's records here. `runtime/stream.py` moves the
bytes. Contexts are made before confinement (runtime/signer.py): afterwards there is no file to load.
"""

import encodings.idna  # noqa: F401 - ssl looks it up by name when it is given a host name
import hashlib
import ssl
from typing import Any

from smtpd_ps.runtime.stream import TlsError, TlsInfo

RECORD_BYTES = 16_384  # plaintext of the largest record (RFC 8446 section 5.1)


class TlsPump:
    """One TLS connection; the Pump that Stream.start_tls takes."""

    __slots__ = ("_established", "_incoming", "_object", "_outgoing", "_renegotiable")

    def __init__(self, context: ssl.SSLContext, server_side: bool, server_hostname: str | None) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side, server_hostname)
        self._established = False
        self._renegotiable = False

    def feed(self, data: bytes) -> None:
        """Take ciphertext that was received."""
        self._incoming.write(data)

    def handshake(self) -> TlsInfo | None:
        """Go on with the handshake; None when more ciphertext is needed. Raises TlsError."""
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return None
        except (ssl.SSLError, ssl.CertificateError, OSError, ValueError) as error:
            raise TlsError(_reason(error)) from None
        self._established = True
        info = _info(self._object)
        self._renegotiable = info.version != "TLSv1.3"
        return info

    def read(self) -> bytes | None:
        """Plaintext of one record; b"" when more ciphertext is needed, None after close_notify.

        Raises TlsError, also for an attempt to renegotiate: OpenSSL refuses it with a warning
        (OP_NO_RENEGOTIATION), which is the only thing that reading makes it say before TLS 1.3.
        """
        before = self._outgoing.pending
        try:
            data = self._object.read(RECORD_BYTES)
        except ssl.SSLWantReadError:
            data = b""
        except ssl.SSLZeroReturnError:
            return None
        except (ssl.SSLError, OSError) as error:
            raise TlsError(_reason(error)) from None
        else:
            if not data:
                return None
        if self._renegotiable and self._outgoing.pending > before:
            raise TlsError("renegotiation refused")
        return data

    def write(self, data: bytes) -> None:
        """Encrypt; the handshake must be finished. Raises TlsError."""
        try:
            self._object.write(data)
        except (ssl.SSLError, OSError) as error:
            raise TlsError(_reason(error)) from None

    def output(self) -> bytes:
        """Take the ciphertext to send."""
        return self._outgoing.read()

    def output_bytes(self) -> int:
        """How much ciphertext `output` would return."""
        return self._outgoing.pending

    def close(self) -> None:
        """Produce a close_notify. Never raises."""
        try:
            self._object.unwrap()
        except (ssl.SSLError, OSError):
            return  # "want read" is the rule here: nobody waits for the peer's close_notify


def server_pump(context: ssl.SSLContext) -> TlsPump:
    """The pump for a client that connected to us."""
    return TlsPump(context, server_side=True, server_hostname=None)


def client_pump(context: ssl.SSLContext, hostname: str | None) -> TlsPump:
    """The pump for a server we connected to; `hostname` is for SNI and the certificate's check.

    Raises TlsError when the name cannot be a host name.
    """
    try:
        return TlsPump(context, server_side=False, server_hostname=hostname)
    except ValueError as error:
        raise TlsError(str(error)) from None


def _info(tls: ssl.SSLObject) -> TlsInfo:
    name, _version, bits = tls.cipher() or ("", "", 0)
    verified = tls.context.verify_mode is ssl.CERT_REQUIRED
    der = tls.getpeercert(binary_form=True)
    subject = ""
    if verified:
        subject = _common_name(tls.getpeercert() or {})
    return TlsInfo(
        version=tls.version() or "",
        cipher=name,
        bits=bits or 0,
        verified=verified,
        peer_subject=subject,
        fingerprint=f"SHA256:{hashlib.sha256(der).hexdigest()}" if der else "",
        server_name="" if tls.server_side else tls.server_hostname or "",
    )


def _common_name(certificate: dict[str, Any]) -> str:
    subject = certificate.get("subject", ())
    return next((value for rdn in subject for key, value in rdn if key == "commonName"), "")


def _reason(error: Exception) -> str:
    """OpenSSL's reason in words: "wrong version number"."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    reason = getattr(error, "reason", None)
    if isinstance(reason, str):
        return reason.lower().replace("_", " ")
    return str(error) or type(error).__name__
