"""`protocols` of smtpd.conf: which versions of TLS, written as for tls_config_parse_protocols(3).

Runs in the parent and in `smtpd_ps -n`; parses what the administrator wrote.
"""

import re

from smtpd_ps.contract.settings import TlsVersion

SPOKEN: tuple[TlsVersion, ...] = ("TLSv1.2", "TLSv1.3")
_ALL = frozenset(("TLSv1.0", "TLSv1.1", *SPOKEN))
_WORDS: dict[str, frozenset[str]] = {
    "all": _ALL,
    "legacy": _ALL,
    "default": frozenset(SPOKEN),
    "secure": frozenset(SPOKEN),
    "tlsv1": _ALL,
    **{name.lower(): frozenset((name,)) for name in _ALL},
}


class TlsProtocolsError(ValueError):
    """Why a text names no versions that can be used; the message says what was expected."""


def parse_protocols(text: str) -> tuple[TlsVersion, ...]:
    """The versions named by words between commas or colons, `!` before one takes it away.

    Versions before 1.2 are known and left out: smtpd_ps speaks none of them. Raises TlsProtocolsError.
    """
    versions: frozenset[str] = frozenset()
    for word in re.split("[,:]", text):
        name = word.strip(" \t")
        negated = name.startswith("!")
        if negated and not versions:
            versions = _ALL
        meant = _WORDS.get(name.removeprefix("!").lower())
        if meant is None:
            raise TlsProtocolsError(f'unknown protocol "{name}", expected TLSv1.2, TLSv1.3, default or all')
        versions = versions - meant if negated else versions | meant
    spoken = tuple(version for version in SPOKEN if version in versions)
    if not spoken:
        raise TlsProtocolsError(f'"{text}" leaves neither TLSv1.2 nor TLSv1.3')
    return spoken
