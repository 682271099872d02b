"""TLS contexts of the relays, made before confinement: certificates of ours, CAs of the system.

Runs in delivery. ssl is imported only where a relay may use it; a delivery that has none stays
without OpenSSL.
"""

import os
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from smtpd_ps.contract.settings import ActionSettings, DeliverySettings
from smtpd_ps.runtime.signer import Signer
from smtpd_ps.runtime.stream import Pump, TlsError

if TYPE_CHECKING:
    from ssl import SSLContext


class MakePump(Protocol):
    """How a connection gets its TLS machine."""

    def __call__(self, action: str, verify: bool, hostname: str, /) -> Pump:
        """For a server called `hostname`, with certificate, CAs, protocols and ciphers of `action`. Raises TlsError."""


def no_tls(_action: str, _verify: bool, _hostname: str) -> Pump:
    """Where no action relays."""
    raise TlsError("no relay action, so no TLS")


def make_pumps(
    settings: DeliverySettings,
    certificates: dict[str, bytes],
    signer: Callable[[], Signer],
    authorities: Mapping[str, bytes] = MappingProxyType({}),
) -> MakePump:
    """The pump maker of this process. `certificates` are PEM chains by pki name, `authorities` PEM bundles by ca name.

    Actions that ask for the same share a context. Raises runtime.tls_context.PkiError; the daemon
    must not start then.
    """
    relays = [action for action in settings.actions if action.kind == "relay"]
    if not relays:
        return no_tls
    from smtpd_ps.runtime import tls, tls_context

    used = {action.relay_pki for action in relays}
    chains = [(pki, certificates[pki.name]) for pki in settings.pki if pki.name in used]
    identities = tls_context.install_pki(chains, signer()) if chains else {}
    shared: dict[tuple[object, ...], SSLContext] = {}
    contexts: dict[tuple[str, bool], SSLContext] = {}
    for action in relays:
        for verify in (False, True) if _may_verify(action) else (False,):
            ca = action.relay_ca if verify else ""
            key = (action.relay_pki, ca, action.relay_protocols, action.relay_ciphers, verify)
            if key not in shared:
                shared[key] = tls_context.client_context(
                    identities.get(action.relay_pki),
                    verify=verify,
                    ca_pem=_pem_text(ca, authorities) if ca else "",
                    ciphers=action.relay_ciphers,
                    protocols=action.relay_protocols,
                )
            contexts[action.name, verify] = shared[key]

    def make(action: str, verify: bool, hostname: str) -> Pump:
        context = contexts.get((action, verify))
        if context is None:
            raise TlsError("no context for this use of TLS was made")
        return tls.client_pump(context, hostname or None)

    return make


def _pem_text(name: str, authorities: Mapping[str, bytes]) -> str:
    """The certificates of a bundle, without what else stands in it (comments in any encoding)."""
    marks = rb"-----BEGIN CERTIFICATE-----[\s!-~]*?-----END CERTIFICATE-----"
    return "\n".join(found.decode() for found in re.findall(marks, authorities[name]))


def _may_verify(action: ActionSettings) -> bool:
    """Whether a certificate may have to be verified: by the action, or by a host's URL (smtps, smtp+tls).

    What a table holds is not known here, and may change.
    """
    hosts = (*action.relay_hosts, *action.relay_backup_hosts)
    by_url = any(host.lower().startswith(("smtps:", "smtp+tls:")) for host in hosts)
    return by_url or action.relay_host_table + action.relay_domain_table != "" or "verify" in action.relay_tls


def read_certificate(fd: int) -> bytes:
    """All of a certificate file the parent opened. Closes it. Raises OSError."""
    with os.fdopen(fd, "rb") as file:
        return file.read(1 << 20)
