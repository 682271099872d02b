"""Sender rewriting for forwarded mail: SRS0 and SRS1 addresses, made and read.

Pure; the clock is handed in. Runs in delivery, which makes addresses of senders, and in lookup, which
reads the recipients of bounces: strangers' text. Addresses are those of OpenSMTPD's srs.c, so that the
two read each other's: the hash is the first 24 bits, in base64, of SHA-1 over the key and all that
follows the hash, which forging by trial makes 2^24 recipients long; the day has ten bits.
"""

import hashlib
import hmac
from binascii import b2a_base64

from smtpd_ps.contract.values import SrsSecrets
from smtpd_ps.pure.address import mailbox_valid, split

DAY_SECS = 86400
_DAYS = 1024
_HASH = 4
_BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_SEPARATORS = "=+-"


def is_srs(address: str) -> bool:
    """Whether the local part looks like one of ours, in any case."""
    return address[:5].lower() in ("srs0=", "srs1=")


class Srs:
    """Both directions, with one set of secrets."""

    def __init__(self, secrets: SrsSecrets) -> None:
        self._key = secrets.key.encode()
        self._keys = (self._key, secrets.backup_key.encode()) if secrets.backup_key else (self._key,)
        self._ttl_days = secrets.ttl_days

    def encode(self, sender: str, domain: str, now_secs: float) -> str:
        """The address at `domain` that stands for `sender`; `sender` itself where that is no address or too long."""
        local, sender_domain = split(sender)
        domain = domain.lower()
        if not local or not sender_domain:
            return sender
        match sender[:5].lower():
            case "srs0=":  # one hop more: the first forwarder's domain and its hash, which only it can check
                rest = f"{sender_domain}=={local[5:]}@{domain}"
                made = f"SRS1={self._hash(self._key, rest)}={rest}"
            case "srs1=":  # two or more: the last one takes its own name out
                rest = f"{local[5:][_HASH + 1 :]}@{domain}"
                if local[5:][_HASH : _HASH + 1] not in _SEPARATORS or len(local) <= 5 + _HASH + 1:
                    return sender
                made = f"SRS1={self._hash(self._key, rest)}={rest}"
            case _:
                rest = f"{_stamp(now_secs)}={sender_domain}={local}@{domain}"
                made = f"SRS0={self._hash(self._key, rest)}={rest}"
        return made if mailbox_valid(made) else sender

    def decode(self, address: str, now_secs: float) -> str | None:
        """The address that `address` stands for; None where it is forged, too old, or none of ours."""
        if not is_srs(address) or not address.isascii():
            return None
        given, separator, rest = address[5 : 5 + _HASH], address[5 + _HASH : 6 + _HASH], address[6 + _HASH :]
        if separator not in _SEPARATORS or not separator or not self._genuine(given, rest):
            return None
        local, domain = split(rest)
        if not domain:
            return None
        made = self._first_hop(local, now_secs) if address[3] == "0" else self._later_hop(local, now_secs)
        return made if made is not None and mailbox_valid(made) else None

    def _first_hop(self, local: str, now_secs: float) -> str | None:
        """`TT=domain=user`."""
        if local[2:3] not in _SEPARATORS or not self._fresh(local[:2], now_secs):
            return None
        domain, separator, user = local[3:].partition("=")
        return f"{user}@{domain}" if separator else None

    def _later_hop(self, local: str, now_secs: float) -> str | None:
        """`domain==HHHH=TT=...`: an SRS0 address at the first forwarder."""
        domain, separator, rest = local.partition("=")
        day = rest[_HASH + 2 : _HASH + 4]
        if not separator or rest[:1] not in _SEPARATORS or not self._fresh(day, now_secs):
            return None
        return f"SRS0{rest}@{domain}"

    def _fresh(self, day: str, now_secs: float) -> bool:
        """Not older than the ttl, and of tomorrow at most, whose clock may be ahead of ours."""
        if len(day) != 2 or any(character not in _BASE32 for character in day):
            return False
        stamped = _BASE32.index(day[0]) << 5 | _BASE32.index(day[1])
        age_days = (int(now_secs) // DAY_SECS - stamped) % _DAYS
        return age_days <= self._ttl_days or age_days == _DAYS - 1

    def _genuine(self, given: str, rest: str) -> bool:
        local, at, domain = rest.rpartition("@")
        texts = {rest, f"{local}{at}{domain.lower()}"}  # who sent it on may have changed the case of our domain
        good = False
        for key in self._keys:
            for text in texts:
                good |= hmac.compare_digest(given, self._hash(key, text))
        return good

    @staticmethod
    def _hash(key: bytes, text: str) -> str:
        digest = hashlib.sha1(key + text.encode(), usedforsecurity=False).digest()
        return b2a_base64(digest, newline=False)[:_HASH].decode()


def _stamp(now_secs: float) -> str:
    day = int(now_secs) // DAY_SECS % _DAYS
    return _BASE32[day >> 5] + _BASE32[day & 31]
