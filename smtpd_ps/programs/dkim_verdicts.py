"""What the DKIM signatures of a message are worth; the cryptography is dkimpy's (RFC 6376, RFC 8463).

Runs in filter-auth; parses any message. Keys are asked for first, all at once (`questions`), so that the
verification itself waits for nothing and can run in a thread.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import dkim
import dkim.util

from smtpd_ps.programs.author import header_fields
from smtpd_ps.pure.dns_asking import Answer, Question

Result = Literal["pass", "fail", "temperror", "permerror"]
MAX_SIGNATURES = 8  # the topmost ones; each costs a look-up and a verification


@dataclass(frozen=True, slots=True)
class DkimVerdict:
    """Of one signature. The tags are in lower case but for `signature`, the beginning of b= (RFC 6008)."""

    result: Result
    domain: str = ""
    selector: str = ""
    algorithm: str = ""
    signature: str = ""
    why: str = ""


def _signatures(message: bytes) -> list[dict[bytes, bytes]]:
    """The tags of each signature, without those whose list of tags is damaged."""
    values = [value for name, value in header_fields(message) if name == b"dkim-signature"][:MAX_SIGNATURES]
    made: list[dict[bytes, bytes]] = []
    for value in values:
        try:
            made.append(dict(dkim.util.parse_tag_value(value)))
        except dkim.util.InvalidTagValueList:
            made.append({})
    return made


def _question(tags: Mapping[bytes, bytes]) -> Question | None:
    try:
        name = f"{tags[b's'].decode('ascii')}._domainkey.{tags[b'd'].decode('ascii')}"
    except (KeyError, UnicodeDecodeError):
        return None
    return Question(name.lower().rstrip("."), "TXT")


def questions(message: bytes) -> tuple[Question, ...]:
    """The keys that the verification needs."""
    return tuple(dict.fromkeys(made for tags in _signatures(message) if (made := _question(tags)) is not None))


def verdicts(message: bytes, keys: Mapping[Question, Answer]) -> list[DkimVerdict]:
    """Of each signature, the topmost first."""
    return [_verdict(message, index, tags, keys) for index, tags in enumerate(_signatures(message))]


def _verdict(message: bytes, index: int, tags: Mapping[bytes, bytes], keys: Mapping[Question, Answer]) -> DkimVerdict:
    def tag(name: bytes) -> str:
        return tags.get(name, b"").decode("ascii", "replace")

    def made(result: Result, why: str = "") -> DkimVerdict:
        signature = "".join(tag(b"b").split())[:8]
        return DkimVerdict(result, tag(b"d").lower(), tag(b"s"), tag(b"a"), signature, why)

    question = _question(tags)
    if question is None:
        return made("permerror", "no signature that can be read")
    answer = keys.get(question, Answer(failed=True))
    if answer.failed:
        return made("temperror", "no answer for the key")
    if not answer.records:
        return made("permerror", "no key")
    try:
        text = answer.records[0].encode("ascii")
        if dkim.DKIM(message).verify(index, dnsfunc=lambda _name, timeout=5: text):
            return made("pass")
        return made("fail", "signature did not verify")
    except dkim.ValidationError as error:
        return made("fail", str(error)[:60])
    except dkim.DKIMException as error:
        return made("permerror", str(error)[:60])
    except (ValueError, KeyError, TypeError, IndexError, UnicodeError):  # what dkimpy lets through of damaged tags
        return made("permerror", "a damaged signature or key")
