"""The private key is in the memory of keys alone, while TLS works."""

import os
import smtplib
import ssl
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from support.certs import make_key, write_acme
from support.daemon import Daemon

CONFIG = """
pki mxkey cert "{dir}/acme/live/fullchain.pem"
pki mxkey key "{dir}/acme/live/privkey.pem"
listen on 127.0.0.1 port {port} tls pki mxkey
action out relay host "smtp://127.0.0.1:9" pki mxkey
match from any for any action out
"""


def secrets(key: object) -> dict[str, bytes]:
    """What must not be found: in both byte orders (OpenSSL keeps little-endian words)."""
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        values = {"p": (numbers.p, 128), "q": (numbers.q, 128), "d": (numbers.d, 256)}
    else:
        values = {"scalar": (key.private_numbers().private_value, 32)}  # type: ignore[attr-defined]
    found = {}
    for name, (value, size) in values.items():
        found[f"{name} big-endian"] = value.to_bytes(size, "big")
        found[f"{name} little-endian"] = value.to_bytes(size, "little")
    return found


def scan(pid: int, patterns: dict[str, bytes]) -> set[str]:
    """Names of the patterns that occur in the process's memory."""
    found = set()
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, flags = line.split()[:2]
            if not flags.startswith("r") or line.endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
                continue
            begin, end = (int(part, 16) for part in span.split("-"))
            try:
                memory.seek(begin)
                block = memory.read(end - begin)
            except OSError:
                continue
            found |= {name for name, pattern in patterns.items() if pattern in block}
    return found


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to read the memory of other processes")
@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_only_keys_holds_the_key(kind: str) -> None:
    """After TLS 1.2 and 1.3 handshakes no process but keys holds a prime, the exponent or the scalar."""
    daemon = Daemon(CONFIG)
    key = make_key(kind)
    write_acme(daemon.dir / "acme", key)
    try:
        daemon.start()
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.create_default_context(cafile=str(daemon.dir / "acme/live/fullchain.pem"))
            context.minimum_version = context.maximum_version = version
            for _ in range(3):
                with smtplib.SMTP("127.0.0.1", daemon.port, timeout=30) as client:
                    client._host = "mx.example.com"  # type: ignore[attr-defined]  # the name to verify
                    client.starttls(context=context)
                    assert client.sock.version() == version.name.replace("_", ".")  # type: ignore[union-attr]
                    client.ehlo()
        patterns = secrets(key)
        holders = {name for name, pid in daemon.pids().items() if scan(pid, patterns)}
        assert holders == {"keys"}, "the scan must find the key in keys (else it proves nothing) and nowhere else"
        assert daemon.stop() == 0
    finally:
        if daemon.process and daemon.process.poll() is None:
            daemon.process.kill()
            daemon.process.wait()
        daemon.remove()
