"""Signatures from keys, over a blocking channel. No ssl here.

Runs in smtp and delivery, in the middle of a TLS handshake; the whole process waits for the
answer (about 1 ms for RSA-2048, less for ECDSA).
"""

import socket
from collections.abc import Callable
from typing import Literal, Protocol

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Phase, Process
from smtpd_ps.runtime.channel import BlockingChannel
from smtpd_ps.runtime.codec import ContractViolation

SIGN_TIMEOUT_SECS = 10.0

Scheme = Literal["rsa", "ecdsa"]


class Signer(Protocol):
    """Whoever can sign with the private key of a pki."""

    def sign(self, pki: str, scheme: Scheme, data: bytes) -> bytes:
        """The signature, b"" when there is none. Never raises."""


class RemoteSigner:
    """Asks keys. `sock` is the child's end of its channel to keys (`child.peers[Process.KEYS]`).

    `on_lost` hears once why keys does not answer any more; requests carry no number, so after a
    late answer nothing on this channel could be trusted. Afterwards every signature is b"". A
    core process gives `child.fail`: without keys it must not go on.
    """

    def __init__(
        self,
        sock: socket.socket,
        me: Process,
        on_lost: Callable[[str], object],
        timeout_secs: float = SIGN_TIMEOUT_SECS,
    ) -> None:
        self._channel = BlockingChannel(sock, me, Process.KEYS, Phase.RUN, timeout_secs)
        self._on_lost = on_lost
        self._lost = False

    def sign(self, pki: str, scheme: Scheme, data: bytes) -> bytes:
        """The signature of keys, b"" when it refuses or is lost."""
        if self._lost:
            return b""
        try:
            self._channel.send(m.Sign(pki, scheme, data))
            answer, _fds = self._channel.receive()
        except (ContractViolation, EOFError, OSError) as error:
            self._lost = True
            self._on_lost(f"keys: {error}")
            return b""
        assert isinstance(answer, m.Signature)  # the only message that keys may send
        return answer.data
