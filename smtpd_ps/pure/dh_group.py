"""The finite-field group ffdhe2048 (RFC 7919 A.1), made from its definition, as the PEM that OpenSSL reads.

Runs in smtp before it is confined, where a pki says `dhe legacy` or `dhe auto`. A group that is
published and of 2048 bits: shorter ones are not safe, and one of our own nobody could check.
"""

from smtpd_ps.pure import der
from smtpd_ps.pure.decoy_key import pem

_GUARD_BITS = 64


def _scaled_e(bits: int) -> int:
    """The integer part of e times two to the power `bits`."""
    term = total = 1 << (bits + _GUARD_BITS)
    divisor = 0
    while term:
        divisor += 1
        term //= divisor
        total += term
    return total >> _GUARD_BITS


def ffdhe2048() -> int:
    """The prime."""
    return (1 << 2048) - (1 << 1984) + ((_scaled_e(1918) + 560316) << 64) - 1


def ffdhe2048_pem() -> bytes:
    """The group, whose generator is 2, as DHParameter of PKCS #3."""
    return pem("DH PARAMETERS", der.write(der.SEQUENCE, der.write_integer(ffdhe2048()), der.write_integer(2)))
