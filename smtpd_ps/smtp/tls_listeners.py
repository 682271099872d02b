"""TLS for the listeners: contexts made before confinement, by listener.

Runs in smtp. ssl is imported only where a listener uses it; the private keys stay in keys.
"""

import os
from collections.abc import Callable, Iterable
from functools import partial

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import SmtpSettings
from smtpd_ps.runtime.signer import Signer
from smtpd_ps.runtime.stream import Pump

MAX_CHAIN_BYTES = 1 << 20


def read_chains(assets: Iterable[tuple[m.Asset, int]]) -> dict[str, bytes]:
    """The PEM chains that the parent opened, by pki name. Closes the descriptors. Raises OSError."""
    chains = {}
    for asset, fd in assets:
        with os.fdopen(fd, "rb") as file:
            if asset.kind == "cert":
                chains[asset.name] = file.read(MAX_CHAIN_BYTES)
    return chains


def make_pumps(
    settings: SmtpSettings, chains: dict[str, bytes], signer: Callable[[], Signer]
) -> dict[int, Callable[[], Pump]]:
    """What makes a TLS machine, by index of the listeners that have TLS.

    Raises runtime.tls_context.PkiError; the daemon must not start then.
    """
    secured = [listener for listener in settings.listeners if listener.tls != "none"]
    if not secured:
        return {}
    from smtpd_ps.runtime import tls, tls_context

    used = {name for listener in secured for name in listener.pki}
    missing = sorted(used - chains.keys())
    if missing:
        raise tls_context.PkiError(f"pki {missing[0]}: no certificate was passed")
    pkis = [(pki, chains[pki.name]) for pki in settings.pki if pki.name in used]
    identities = tls_context.install_pki(pkis, signer())
    return {
        listener.index: partial(
            tls.server_pump,
            tls_context.server_context([identities[name] for name in listener.pki], settings.ciphers),
        )
        for listener in secured
    }
