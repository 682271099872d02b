"""Is this pair of certificate and key fit for use? The text of the problem, for `smtpd_ps -n`.

Runs in the command line tool; parses the operator's files.
"""

import time

from smtpd_ps.keys.private_key import KeyFileError, load_pair
from smtpd_ps.pure.certificate import CertificateError


def check_pair(cert_pem: bytes, key_pem: bytes, now_secs: float | None = None) -> str | None:
    """What is wrong with the pair; None when nothing is.

    The chain's first certificate must parse, belong to the key, be valid now and name a host.
    """
    now_secs = time.time() if now_secs is None else now_secs
    try:
        certificate, _key = load_pair(cert_pem, bytearray(key_pem))
    except CertificateError as error:
        return f"certificate: {error}"
    except KeyFileError as error:
        return f"key: {error}"
    if now_secs > certificate.not_after_secs:
        return f"the certificate expired on {_date(certificate.not_after_secs)}"
    if now_secs < certificate.not_before_secs:
        return f"the certificate is not valid before {_date(certificate.not_before_secs)}"
    if not certificate.names:
        return "the certificate names no host"
    return None


def _date(secs: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(secs))
