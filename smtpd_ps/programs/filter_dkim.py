"""filter-dkim(8): signs the messages of its listener.

A filter program, run as a user of its own, to whom the keys belong. It parses messages.
"""

import getopt
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from smtpd_ps.filterkit import Filter, Message, Session, log, run_filter
from smtpd_ps.programs.bad_key import BadKey
from smtpd_ps.pure.address import domain_valid

if TYPE_CHECKING:
    from smtpd_ps.programs.dkim_signing import Signer

USAGE = (
    "usage: filter-dkim [-a algorithm] [-c header/body] [-h fields] [-o fields]\n"
    "                   -d domain ... -s selector -k key [-s selector -k key ...]"
)


class UsageError(Exception):
    """What is wrong with the arguments."""


class DkimFilter(Filter):
    """Puts signatures before each message whose author is of one of the signer's domains."""

    follows = False

    def __init__(self, signer: "Signer") -> None:
        self._signer = signer

    def filter_message(self, session: Session, message: Message) -> list[bytes | bytearray] | None:
        """The signatures and the message."""
        from dkim import DKIMException

        try:
            signatures = self._signer.sign(bytes(message.data))
        except DKIMException as error:
            log(f"session {session.id}: not signed: {str(error)!a}")
            return None
        return [*signatures, message.data] if signatures else None

    def message_too_large(self, session: Session) -> None:
        """It goes on without a signature."""
        log(f"session {session.id}: not signed: too large")


def signer(words: Sequence[str]) -> "Signer":
    """What the arguments ask for. Raises UsageError, BadKey, ModuleNotFoundError."""
    from smtpd_ps.programs.dkim_keys import load
    from smtpd_ps.programs.dkim_signing import CANONICALIZATIONS, OVERSIGNED, SIGNED, Signer

    try:
        given, rest = getopt.getopt(list(words), "a:c:d:h:k:o:s:")
    except getopt.GetoptError as error:
        raise UsageError(str(error)) from None
    if rest:
        raise UsageError(f"unexpected {rest[0]!r}")
    domains = [value.lower() for option, value in given if option == "-d"]
    selectors = [value for option, value in given if option == "-s"]
    paths = [value for option, value in given if option == "-k"]
    values = dict(given)
    if not domains:
        raise UsageError("no domain is given (-d)")
    if not paths or len(paths) != len(selectors):
        raise UsageError("each selector (-s) needs a key (-k), and there has to be one")
    for name in (*domains, *(f"{selector}._domainkey.{domains[0]}" for selector in selectors)):
        if not domain_valid(name.replace("_domainkey", "domainkey")):
            raise UsageError(f"{name!r} is no domain")
    header, _, body = values.get("-c", "relaxed/relaxed").partition("/")
    body = body or "simple"  # RFC 6376, section 3.5
    if header not in CANONICALIZATIONS or body not in CANONICALIZATIONS:
        raise UsageError(f"{values['-c']!r} is no canonicalization such as relaxed/simple")
    signed = _fields(values["-h"]) if "-h" in values else SIGNED
    oversigned = _fields(values["-o"]) if "-o" in values else OVERSIGNED if "-h" not in values else ("from",)
    if "from" not in signed:
        raise UsageError("the field From has to be signed")
    keys = tuple(load(selector, path) for selector, path in zip(selectors, paths, strict=True))
    wanted = values.get("-a")
    for key in keys:
        if wanted is not None and key.algorithm != wanted:
            raise UsageError(f"the key of selector {key.selector} is for {key.algorithm}, not for {wanted}")
    return Signer(frozenset(domains), keys, header, body, signed, oversigned)


def _fields(text: str) -> tuple[str, ...]:
    """Names of header fields, with commas or colons between them. Raises UsageError."""
    from dkim import DKIM

    names = tuple(name.strip().lower() for name in text.replace(",", ":").split(":") if name.strip())
    never = {name.decode() for name in DKIM.SHOULD_NOT}
    for name in names:
        if not name.isascii() or not name.replace("-", "").isalnum() or name in never:
            raise UsageError(f"{name!r} is no header field to sign")
    return names


def main(argv: Sequence[str] | None = None) -> int:
    """The program; its exit status."""
    try:
        made = signer(sys.argv[1:] if argv is None else argv)
    except UsageError as error:
        log(f"filter-dkim: {error}\n{USAGE}")
        return 2
    except ModuleNotFoundError as error:
        log(f"filter-dkim: {error.name} is not installed; it needs the packages dkimpy and PyNaCl")
        return 1
    except BadKey as error:
        log(f"filter-dkim: {error}")
        return 1
    return run_filter(DkimFilter(made))


if __name__ == "__main__":
    sys.exit(main())
