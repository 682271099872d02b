"""Words about TLS that several directives take: ciphers and protocols.

Runs in the parent and in `smtpd_ps -n`.
"""

import re

from smtpd_ps.config.parser import Parser
from smtpd_ps.contract.settings import TlsVersion
from smtpd_ps.pure.tls_protocols import TlsProtocolsError, parse_protocols

# Only a process that has OpenSSL can tell what the words mean; it refuses to start with none that it knows.
_CIPHERS = re.compile(r"[A-Za-z0-9:,!+@=_ -]+")


def cipher_list(p: Parser) -> str:
    """A list of ciphers in the form of openssl-ciphers(1)."""
    token = p.peek()
    ciphers = p.name("a list of ciphers", blanks=True)
    if not _CIPHERS.fullmatch(ciphers):
        p.report(token, f'a list of ciphers is of the form of openssl-ciphers(1): "{ciphers}"')
    return ciphers


def protocol_list(p: Parser) -> tuple[TlsVersion, ...]:
    """Versions of TLS."""
    token = p.peek()
    text = p.name("versions of TLS", blanks=True)
    try:
        return parse_protocols(text)
    except TlsProtocolsError as error:
        p.report(token, str(error))
        return ()
