"""TLS for the listeners: contexts made before confinement, by listener.

Runs in smtp. ssl is imported only where a listener uses it; the private keys stay in keys.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import SmtpSettings
from smtpd_ps.runtime.signer import Signer
from smtpd_ps.runtime.stream import Pump

if TYPE_CHECKING:
    import ssl

MAX_CHAIN_BYTES = 1 << 20
MAX_BUNDLE_BYTES = 16 << 20


class PemFiles(NamedTuple):
    """What the parent opened: certificate chains by pki name, bundles of CAs by ca name."""

    chains: dict[str, bytes]
    authorities: dict[str, bytes]


def read_pem_files(assets: Iterable[tuple[m.Asset, int]]) -> PemFiles:
    """Read all, and close the descriptors. Raises OSError."""
    files = PemFiles({}, {})
    for asset, fd in assets:
        with os.fdopen(fd, "rb") as file:
            if asset.kind == "cert":
                files.chains[asset.name] = file.read(MAX_CHAIN_BYTES)
            elif asset.kind == "ca":
                files.authorities[asset.name] = file.read(MAX_BUNDLE_BYTES)
    return files


def make_pumps(settings: SmtpSettings, files: PemFiles, signer: Callable[[], Signer]) -> dict[int, Callable[[], Pump]]:
    """What makes a TLS machine, by index of the listeners that have TLS.

    Raises runtime.tls_context.PkiError; the daemon must not start then.
    """
    secured = [listener for listener in settings.listeners if listener.tls != "none"]
    if not secured:
        return {}
    from smtpd_ps.runtime import tls, tls_context

    used = {name for listener in secured for name in listener.pki}
    missing = sorted(used - files.chains.keys())
    if missing:
        raise tls_context.PkiError(f"pki {missing[0]}: no certificate was passed")
    pkis = [(pki, files.chains[pki.name]) for pki in settings.pki if pki.name in used]
    identities = tls_context.install_pki(pkis, signer())
    contexts: dict[object, ssl.SSLContext] = {}  # the addresses of a listener share one
    pumps: dict[int, Callable[[], Pump]] = {}
    for listener in secured:
        key = (listener.pki, listener.protocols, listener.ciphers, listener.verify, listener.ca)
        context = contexts.get(key)
        if context is None:
            context = contexts[key] = tls_context.server_context(
                [identities[name] for name in listener.pki],
                listener.ciphers or settings.ciphers,
                listener.protocols,
                verify=listener.verify,
                ca_pem=_bundle(files, listener.ca),
            )
        pumps[listener.index] = partial(tls.server_pump, context)
    return pumps


def _bundle(files: PemFiles, name: str) -> bytes:
    """The CAs of this name; b"" for those of the system."""
    if name and not files.authorities.get(name):
        from smtpd_ps.runtime.tls_context import PkiError

        raise PkiError(f"ca {name}: no certificate was passed")
    return files.authorities[name] if name else b""
