"""pure/dh_group: the group is the published one."""

import hashlib
import ssl
from pathlib import Path

from smtpd_ps.pure.dh_group import ffdhe2048, ffdhe2048_pem


def test_the_prime_is_that_of_rfc_7919() -> None:
    """Its length, its ends, and a hash of it as `openssl genpkey -pkeyopt group:ffdhe2048` gives it."""
    prime = ffdhe2048()
    assert prime.bit_length() == 2048
    assert f"{prime:x}".startswith("ffffffffffffffffadf85458a2bb4a9aafdc5620273d3cf1")
    assert f"{prime:x}".endswith("886b423861285c97ffffffffffffffff")
    assert pow(2, prime - 1, prime) == pow(3, prime - 1, prime) == 1
    assert hashlib.sha256(prime.to_bytes(256)).hexdigest() == HASH


HASH = "9cd3b7f336872f46c09428d1bbc19877a4d440512cda8d1c1cf0cd6e33698966"


def test_openssl_reads_it(tmp_path: Path) -> None:
    """As DH parameters for a server."""
    path = tmp_path / "dh"
    path.write_bytes(ffdhe2048_pem())
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_dh_params(path)
