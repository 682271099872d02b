"""Does the memory of a live process hold a private key? Needs root, or one's own dumpable process.

found = scan(pid, patterns(key))      # names such as "prime p, little-endian"
"""

import base64
import re
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

CHUNK_BYTES = 4 * 1024 * 1024
_PYTHON_DIGIT_BITS = 30
_FORMS = {
    serialization.PrivateFormat.PKCS8: "PKCS#8",
    serialization.PrivateFormat.TraditionalOpenSSL: "the traditional form",
}


def patterns(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> dict[str, bytes]:
    """Every form in which the secret numbers could lie in memory, by a name for messages.

    Big-endian (DER), little-endian (BIGNUM limbs), the digits of a Python int, base64 lines of PEM.
    """
    out: dict[str, bytes] = {}
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        secrets = {
            "prime p": numbers.p, "prime q": numbers.q, "exponent d": numbers.d,
            "exponent dp": numbers.dmp1, "exponent dq": numbers.dmq1, "coefficient": numbers.iqmp,
        }  # fmt: skip
    else:
        secrets = {"EC scalar": key.private_numbers().private_value}
    for name, number in secrets.items():
        size = (number.bit_length() + 7) // 8
        out[f"{name}, big-endian"] = number.to_bytes(size, "big")
        out[f"{name}, little-endian"] = number.to_bytes(size, "little")
        out[f"{name}, Python int"] = b"".join(
            (number >> shift & (1 << _PYTHON_DIGIT_BITS) - 1).to_bytes(4, "little")
            for shift in range(0, number.bit_length() - _PYTHON_DIGIT_BITS, _PYTHON_DIGIT_BITS)
        )
        for form, name_of_form in _FORMS.items():
            der = key.private_bytes(serialization.Encoding.DER, form, serialization.NoEncryption())
            out[f"{name}, base64 of {name_of_form}"] = _base64_part(der, der.index(number.to_bytes(size, "big")), size)
    return out


def _base64_part(der: bytes, at: int, size: int) -> bytes:
    """The longest piece of one 64-column line of the PEM text that depends on these bytes alone."""
    text = base64.b64encode(der)
    start, end = (at + 2) // 3 * 4, (at + size) // 3 * 4
    lines = [text[max(start, line) : min(end, line + 64)] for line in range(0, len(text), 64)]
    return max(lines, key=len)


def scan(pid: int, wanted: dict[str, bytes]) -> set[str]:
    """The names of the patterns that process `pid` holds in readable memory. Raises OSError."""
    assert all(len(pattern) >= 16 for pattern in wanted.values())
    longest = max(len(pattern) for pattern in wanted.values())
    found: set[str] = set()
    seen_bytes = 0
    maps = Path(f"/proc/{pid}/maps").read_text()
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for start, end, mode in re.findall(r"^([0-9a-f]+)-([0-9a-f]+) (\S+)", maps, re.MULTILINE):
            if mode[0] != "r":
                continue
            at, stop = int(start, 16), int(end, 16)
            while at < stop:
                try:
                    memory.seek(at)
                    chunk = memory.read(min(CHUNK_BYTES, stop - at))
                except (OSError, OverflowError):
                    break  # [vvar] and the like cannot be read by anyone
                seen_bytes += len(chunk)
                found.update(name for name, pattern in wanted.items() if pattern in chunk)
                at += max(len(chunk) - longest, 1) if at + len(chunk) < stop else len(chunk) or stop - at
    assert seen_bytes > 1_000_000, "nothing of the process could be read"
    return found
