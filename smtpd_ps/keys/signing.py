"""Answers signing requests, and refuses everything that has not the form of a TLS signature.

Runs in keys; judges requests of smtp and delivery, which may have been taken over.
"""

from collections.abc import Callable, Mapping

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Process
from smtpd_ps.keys.private_key import PrivateKey


class SigningService:
    """The keys by pki name. Every request is answered, a refused one with an empty signature."""

    def __init__(self, keys: Mapping[str, PrivateKey], warn: Callable[[str], None]) -> None:
        self._keys = keys
        self._warn = warn
        self.signed = 0
        self.refused = 0

    def sign(self, peer: Process, request: m.Sign) -> bytes:
        """The signature that `peer` asks for; empty where it is refused."""
        signature = b""
        key = self._keys.get(request.pki)
        if key is None:
            self._warn(f"{peer.title} asks for a signature by {request.pki!r}, which is no pki")
        else:
            if key.scheme == request.scheme:
                signature = key.sign(request.data)
            if not signature:
                self._warn(
                    f"{peer.title} asks pki {request.pki!r} to sign what is no TLS signature: "
                    f"{len(request.data)} bytes, {request.scheme}"
                )
        if signature:
            self.signed += 1
        else:
            self.refused += 1
        return signature
