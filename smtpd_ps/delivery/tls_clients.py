"""TLS contexts of the relays, made before confinement: certificates of ours, CAs of the system.

Runs in delivery. ssl is imported only where a relay may use it; a delivery that has none stays
without OpenSSL.
"""

import os
from collections.abc import Callable
from typing import Protocol

from smtpd_ps.contract.settings import ActionSettings, DeliverySettings
from smtpd_ps.runtime.signer import Signer
from smtpd_ps.runtime.stream import Pump, TlsError


class MakePump(Protocol):
    """How a connection gets its TLS machine."""

    def __call__(self, pki: str, verify: bool, hostname: str, /) -> Pump:
        """For a server called `hostname`, with the client certificate of `pki` ("" for none). Raises TlsError."""


def no_tls(_pki: str, _verify: bool, _hostname: str) -> Pump:
    """Where no action relays."""
    raise TlsError("no relay action, so no TLS")


def make_pumps(settings: DeliverySettings, certificates: dict[str, bytes], signer: Callable[[], Signer]) -> MakePump:
    """The pump maker of this process. `certificates` are PEM chains by pki name.

    Raises runtime.tls_context.PkiError; the daemon must not start then.
    """
    relays = [action for action in settings.actions if action.kind == "relay"]
    if not relays:
        return no_tls
    from smtpd_ps.runtime import tls, tls_context

    used = {action.relay_pki for action in relays}
    chains = [(pki, certificates[pki.name]) for pki in settings.pki if pki.name in used]
    identities = tls_context.install_pki(chains, signer()) if chains else {}
    contexts = {(name, False): tls_context.client_context(identities.get(name), verify=False) for name in used}
    verifying = {action.relay_pki for action in relays if _may_verify(action)}
    for name in verifying:
        contexts[name, True] = tls_context.client_context(identities.get(name), verify=True)

    def make(pki: str, verify: bool, hostname: str) -> Pump:
        context = contexts.get((pki, verify))
        if context is None:
            raise TlsError("no context for this use of TLS was made")
        return tls.client_pump(context, hostname or None)

    return make


def _may_verify(action: ActionSettings) -> bool:
    """Whether a certificate may have to be verified: by the action, or by a host's URL (smtps, smtp+tls).

    What a table holds is not known here, and may change.
    """
    by_url = any(host.lower().startswith(("smtps:", "smtp+tls:")) for host in action.relay_hosts)
    return by_url or action.relay_host_table != "" or "verify" in action.relay_tls


def read_certificate(fd: int) -> bytes:
    """All of a certificate file the parent opened. Closes it. Raises OSError."""
    with os.fdopen(fd, "rb") as file:
        return file.read(1 << 20)
