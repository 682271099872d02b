"""The pairs that the parent opened: read, checked, and the bytes of the key files wiped.

Runs in keys before it is confined; reads the operator's certificate and key files.
"""

import os
import time
from collections.abc import Iterable, Mapping

from smtpd_ps.contract.settings import PkiSettings
from smtpd_ps.keys.private_key import KeyFileError, PrivateKey, load_pair
from smtpd_ps.pure.certificate import MAX_PEM_BYTES, CertificateError


class PairError(Exception):
    """A pair that cannot be used; the text names the file."""


def read_file(fd: int) -> bytearray:
    """All of an open file, at most MAX_PEM_BYTES and one; the descriptor is closed. Raises OSError."""
    content = bytearray(min(os.fstat(fd).st_size, MAX_PEM_BYTES) + 1)
    view = memoryview(content)
    size = 0
    with open(fd, "rb", buffering=0) as file:
        while size < len(content) and (got := file.readinto(view[size:])):
            size += got
    view.release()
    del content[size:]
    return content


def load_keys(
    pkis: Iterable[PkiSettings], certs: Mapping[str, int], keys: Mapping[str, int], now_secs: float | None = None
) -> tuple[dict[str, PrivateKey], list[str]]:
    """The private keys by pki name, and warnings for the log. Closes the descriptors it was given.

    `certs` and `keys` are descriptors by pki name. Raises PairError naming the file at fault.
    """
    now_secs = time.time() if now_secs is None else now_secs
    loaded: dict[str, PrivateKey] = {}
    warnings = []
    for pki in pkis:
        path = pki.cert_path
        try:
            if pki.name not in certs or pki.name not in keys:
                raise PairError(f"pki {pki.name}: the parent sent no certificate and key")
            cert_pem = bytes(read_file(certs[pki.name]))
            path = pki.key_path
            key_pem = read_file(keys[pki.name])
            certificate, loaded[pki.name] = load_pair(cert_pem, key_pem)
        except (OSError, KeyFileError) as error:
            raise PairError(f"pki {pki.name}: {path}: {error}") from None
        except CertificateError as error:
            raise PairError(f"pki {pki.name}: {pki.cert_path}: {error}") from None
        if not certificate.not_before_secs <= now_secs <= certificate.not_after_secs:
            warnings.append(f"pki {pki.name}: {pki.cert_path}: the certificate is not valid today")
    return loaded, warnings
