"""The keys process: holds the private keys, signs for smtp and delivery, and does nothing else.

`python -I -m smtpd_ps.keys`, started by the parent; runs as _sps_keys, confined. Parses the
operator's files before it is confined, and requests of smtp and delivery afterwards.
"""

import socket

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import Process
from smtpd_ps.keys.files import PairError, load_keys
from smtpd_ps.keys.signing import SigningService
from smtpd_ps.osdep.libcrypto import LibcryptoError
from smtpd_ps.runtime.channel import Channel
from smtpd_ps.runtime.child import EXIT_VIOLATION, Child


def main() -> None:
    """Load the keys, be confined, sign."""
    child = Child.boot(Process.KEYS)
    assert isinstance(child.setup, m.KeysSetup)
    certs = {asset.name: fd for asset, fd in child.assets if asset.kind == "cert"}
    keys = {asset.name: fd for asset, fd in child.assets if asset.kind == "key"}
    try:
        loaded, warnings = load_keys(child.setup.settings.pki, certs, keys)
    except (PairError, LibcryptoError) as error:
        child.fail(str(error))
    for warning in warnings:
        child.log.warning(warning)
    service = SigningService(loaded, child.log.warning)
    child.confine()
    for peer in (Process.SMTP, Process.DELIVERY):
        for sock in child.peers.get(peer, {}).values():
            _serve(child, peer, sock, service)
    child.serve({})


def _serve(child: Child, peer: Process, sock: socket.socket, service: SigningService) -> None:
    """A peer that leaves in order, as at the end of a drain, does not take keys from the others."""

    def gone(reason: str) -> None:
        if reason:
            child.fail(f"{peer.title}: {reason}", EXIT_VIOLATION)

    def sign(request: m.Sign) -> None:
        channel.send(m.Signature(service.sign(peer, request)))

    channel: Channel = Channel(child.loop, sock, Process.KEYS, peer, {m.Sign: sign}, gone)


if __name__ == "__main__":
    main()
