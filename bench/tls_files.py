"""A certificate and a password hash for W5."""

import subprocess
from pathlib import Path

from bench.peer import HOSTNAME

USER = "alice"
PASSWORD = "correct horse"


def make_certificate(folder: Path) -> tuple[str, str]:
    """A self-signed RSA certificate and its key: their paths."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    argv = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "3650", "-subj", f"/CN={HOSTNAME}"]
    subprocess.run([*argv, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    key.chmod(0o600)
    return str(cert), str(key)


def make_credentials(folder: Path) -> str:
    """A table of one user with a sha512-crypt hash of the default 5000 rounds: its path."""
    argv = ["openssl", "passwd", "-6", "-salt", "benchbench", PASSWORD]
    hashed = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    path = folder / "credentials"
    path.write_text(f"{USER} {hashed}\n")
    path.chmod(0o644)
    return str(path)
