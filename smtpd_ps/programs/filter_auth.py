"""filter-auth(8): verifies SPF, DKIM and DMARC, and writes what came of it into Authentication-Results.

A filter program, run as a user of its own. It parses messages and asks DNS; a session that waits for DNS keeps
no other waiting.
"""

import asyncio
import getopt
import ipaddress
import random
import socket
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from smtpd_ps.filterkit import Answer, Filter, Message, Reject, Session, StopProgram, log, run_filter
from smtpd_ps.filterkit.events import Commit
from smtpd_ps.programs.author import author_domains
from smtpd_ps.pure import authentication_results as results
from smtpd_ps.pure import dmarc
from smtpd_ps.pure.address import domain_valid
from smtpd_ps.pure.authentication_results import MethodResult
from smtpd_ps.pure.spf_check import SpfVerdict, check_host

if TYPE_CHECKING:
    from smtpd_ps.programs.auth_dns import Dns
    from smtpd_ps.programs.dkim_verdicts import DkimVerdict

USAGE = "usage: filter-auth [-r] [-i authserv-id] [-s suffix-list] [--resolver address[:port]]"
MAX_AUTHORS = 4  # more are a permerror


class UsageError(Exception):
    """What is wrong with the arguments."""


class AuthFilter(Filter):
    """`organizational` gives the organizational domain of a domain; `reject` honours p=reject."""

    on_failure = "tempfail"  # a message must not pass with results that somebody else wrote

    def __init__(
        self, dns: "Dns", organizational: dmarc.OrganizationalDomain, authserv_id: str = "", reject: bool = False
    ) -> None:
        self._dns, self._organizational = dns, organizational
        self._authserv_id, self._reject = authserv_id, reject

    def ready(self) -> None:
        """The id is that of the option, of the server's admd, or the host's name."""
        self._authserv_id = self._authserv_id or self.config.admd or socket.gethostname().lower()
        if not domain_valid(self._authserv_id):
            raise StopProgram(f"filter-auth: {self._authserv_id!r} is no authserv-id (option -i)")

    async def filter_message(self, session: Session, message: Message) -> list[bytes | memoryview]:
        """The message with our results before it, and without any others of our name."""
        session.state.pop("refused", None)
        rest, removed = results.without_ours(message.data, self._authserv_id)
        if removed:
            log(f"session {session.id}: removed {removed} Authentication-Results that were not ours")
        if session.user:
            made = [MethodResult("auth", "pass", properties=(("smtp.auth", session.user),))]
        elif not session.address:
            made = []
        else:
            made = await self._verify(session, bytes(message.data))
        return [results.written(self._authserv_id, made), *rest]

    async def _verify(self, session: Session, message: bytes) -> list[MethodResult]:
        from smtpd_ps.programs import dkim_verdicts

        ip = ipaddress.ip_address(session.address)
        spf, keys = await asyncio.gather(
            self._dns.settle(check_host(ip, session.sender or "", session.identity)),
            self._dns.all(dkim_verdicts.questions(message)),
        )
        signatures = await asyncio.to_thread(dkim_verdicts.verdicts, message, keys) if keys or _signed(message) else []
        verdict = await self._dmarc(message, spf, signatures)
        if self._reject and verdict.result == "fail" and verdict.policy == "reject" and _sampled(verdict.percent):
            session.state["refused"] = verdict.domain
        return [_spf(spf, session), *_dkim(signatures), _dmarc(verdict)]

    async def _dmarc(self, message: bytes, spf: SpfVerdict, signatures: "list[DkimVerdict]") -> dmarc.DmarcVerdict:
        authors = tuple(dict.fromkeys(author_domains(message)))
        if not authors or "" in authors or len(authors) > MAX_AUTHORS:
            return dmarc.DmarcVerdict("permerror", "", why="no author's domain")
        spf_domain = spf.domain if spf.result == "pass" else ""
        passed = [each.domain for each in signatures if each.result == "pass"]
        verdicts = [
            await self._dns.settle(dmarc.evaluate(author, spf_domain, passed, self._organizational))
            for author in authors
        ]
        made = dmarc.strictest(verdicts)
        assert made is not None
        return made

    def filter_commit(self, session: Session, request: Commit) -> Answer | None:
        """Refuse what its author's domain wants refused, and what was too large to look at."""
        if session.too_large:
            return Reject("552 5.3.4 Message too large to be verified")
        refused = session.state.pop("refused", None)
        if refused is not None:
            log(f"session {session.id}: refused by the policy of {refused}")
            return Reject(f"550 5.7.26 Refused by the DMARC policy of {refused}"[:400])
        return None


def _signed(message: bytes) -> bool:
    return b"dkim-signature" in message[: message.find(b"\r\n\r\n") + 2].lower()


def _sampled(percent: int) -> bool:
    """Whether this message is among those that the policy is for (RFC 7489, 6.6.4)."""
    return percent >= 100 or random.randrange(100) < percent  # noqa: S311  # a sample, no secret


def _spf(verdict: SpfVerdict, session: Session) -> MethodResult:
    name = "smtp.mailfrom" if session.sender else "smtp.helo"
    return MethodResult("spf", verdict.result, verdict.why, ((name, verdict.domain),))


def _dkim(signatures: "list[DkimVerdict]") -> list[MethodResult]:
    return [
        MethodResult(
            "dkim", each.result, each.why,
            (("header.d", each.domain), ("header.s", each.selector), ("header.a", each.algorithm),
             ("header.b", each.signature)),
        )
        for each in signatures
    ] or [MethodResult("dkim", "none")]  # fmt: skip


def _dmarc(verdict: dmarc.DmarcVerdict) -> MethodResult:
    comment = verdict.why or (f"p={verdict.policy}" if verdict.result in ("pass", "fail") else "")
    return MethodResult("dmarc", verdict.result, comment, (("header.from", verdict.domain),))


def organizational_domains(path: str) -> Callable[[str], str]:
    """From the list of public suffixes in a file, or that of the package. Raises OSError, ModuleNotFoundError."""
    from publicsuffixlist import PublicSuffixList

    if path:
        with open(path, encoding="utf-8") as file:
            suffixes = PublicSuffixList(file.read())
    else:
        suffixes = PublicSuffixList()
    return lambda domain: suffixes.privatesuffix(domain) or domain


def made(words: Sequence[str]) -> AuthFilter:
    """What the arguments ask for. Raises UsageError, ModuleNotFoundError."""
    from smtpd_ps.programs.auth_dns import Dns, resolver

    try:
        given, rest = getopt.getopt(list(words), "i:rs:", ["resolver="])
    except getopt.GetoptError as error:
        raise UsageError(str(error)) from None
    if rest:
        raise UsageError(f"unexpected {rest[0]!r}")
    values = dict(given)
    if "-i" in values and not domain_valid(values["-i"]):
        raise UsageError(f"{values['-i']!r} is no authserv-id")
    try:
        dns = Dns(resolver(values.get("--resolver", "")))
        organizational = organizational_domains(values.get("-s", ""))
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from None
    return AuthFilter(dns, organizational, values.get("-i", "").lower(), "-r" in values)


def main(argv: Sequence[str] | None = None) -> int:
    """The program; its exit status."""
    try:
        import dkim  # noqa: F401  # imported when the first message comes, which would be too late to say so

        filter = made(sys.argv[1:] if argv is None else argv)
    except UsageError as error:
        log(f"filter-auth: {error}\n{USAGE}")
        return 2
    except ModuleNotFoundError as error:
        log(f"filter-auth: {error.name} is not installed; it needs dkimpy, PyNaCl, dnspython and publicsuffixlist")
        return 1
    return run_filter(filter)


if __name__ == "__main__":
    sys.exit(main())
