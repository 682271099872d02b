"""DKIM signatures (RFC 6376, RFC 8463) for messages of some domains; the signing itself is dkimpy's.

Runs in filter-dkim; parses messages of the clients of its listener.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import dkim

from smtpd_ps.programs.author import author_domain
from smtpd_ps.programs.dkim_keys import SigningKey

SIGNED = (
    "from", "sender", "reply-to", "subject", "date", "message-id", "to", "cc", "mime-version", "content-type",
    "content-transfer-encoding", "in-reply-to", "references", "list-id", "list-help", "list-unsubscribe",
    "list-subscribe", "list-post", "list-owner", "list-archive", "list-unsubscribe-post",
)  # fmt: skip
# Signed once more than they are there, so that none can be added (RFC 6376, section 8.15).
OVERSIGNED = (
    "from", "reply-to", "subject", "date", "message-id", "to", "cc", "mime-version", "content-type",
    "content-transfer-encoding",
)  # fmt: skip
# The server adds these where they are missing, after its filters: not signed for being absent then.
ADDED_LATER = ("date", "message-id")
CANONICALIZATIONS = ("simple", "relaxed")


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs with each key. `domains` are in lower case; `header` and `body` are canonicalizations."""

    domains: frozenset[str]
    keys: tuple[SigningKey, ...]
    header: str = "relaxed"
    body: str = "relaxed"
    signed: tuple[str, ...] = SIGNED
    oversigned: tuple[str, ...] = OVERSIGNED

    def domain(self, message: bytes) -> str | None:
        """Whose signature the message gets: its author's, where that is one of ours or below one."""
        author = author_domain(message)
        while author:
            if author in self.domains:
                return author
            author = author.partition(".")[2]
        return None

    def sign(self, message: bytes) -> list[bytes]:
        """The signatures' header fields with CRLF, none where the author is not ours.

        Raises dkim.DKIMException where the message is none.
        """
        domain = self.domain(message)
        if domain is None:
            return []
        signatures = []
        for key in self.keys:
            signing = dkim.DKIM(message, signature_algorithm=key.algorithm.encode(), linesep=b"\r\n")
            present = [name.lower().decode("ascii", "replace") for name, _value in signing.headers]
            signature: bytes = signing.sign(
                key.selector.encode(), domain.encode(), key.material,
                canonicalize=(self.header.encode(), self.body.encode()),
                include_headers=[name.encode() for name in self.fields(present)],
            )  # fmt: skip
            signatures.append(signature)
        return signatures

    def fields(self, present: Sequence[str]) -> list[str]:
        """What stands in `h=`: each field as often as it is there, the oversigned ones once more."""
        names: list[str] = []
        for name in dict.fromkeys((*self.signed, *self.oversigned)):
            times = present.count(name)
            names += [name] * (times + (name in self.oversigned and (times > 0 or name not in ADDED_LATER)))
        return names
