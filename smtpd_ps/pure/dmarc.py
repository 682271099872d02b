"""DMARC: the policy of an author's domain, and whether SPF or DKIM passed for it (RFC 7489).

Pure; runs in filter-auth; parses what any domain publishes. The discovery is a generator of DNS questions
(pure/dns_asking). What an organizational domain is comes from the caller, who has a list of public suffixes.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, cast

from smtpd_ps.pure.dns_asking import Asking, Question

Policy = Literal["none", "quarantine", "reject"]
Result = Literal["pass", "fail", "none", "temperror", "permerror"]
POLICIES: tuple[Policy, ...] = ("none", "quarantine", "reject")
OrganizationalDomain = Callable[[str], str]


class DmarcError(Exception):
    """The record is none: permerror."""


@dataclass(frozen=True, slots=True)
class Record:
    """The tags that a receiver needs."""

    policy: Policy
    subdomain_policy: Policy
    strict_dkim: bool
    strict_spf: bool
    percent: int


@dataclass(frozen=True, slots=True)
class DmarcVerdict:
    """The result for an author's domain; `policy` is what is asked for where it fails, "none" without a record."""

    result: Result
    domain: str
    policy: Policy = "none"
    percent: int = 100
    why: str = ""


def parse(text: str) -> Record | None:
    """A record; None where it has no policy and so is to be passed over. Raises DmarcError."""
    tags: dict[str, str] = {}
    for part in text.split(";"):
        name, equals, value = part.partition("=")
        if not equals:
            if part.strip():
                raise DmarcError(f"{part.strip()[:40]!r} is no tag")
            continue
        tags.setdefault(name.strip().lower(), value.strip())
    policy = tags.get("p", "").lower()
    if policy not in POLICIES:
        if "rua" not in tags:
            return None
        policy = "none"  # section 6.6.3
    subdomain = tags.get("sp", policy).lower()
    percent = tags.get("pct", "100")
    return Record(
        cast(Policy, policy),
        cast(Policy, subdomain if subdomain in POLICIES else policy),
        tags.get("adkim", "r").lower() == "s",
        tags.get("aspf", "r").lower() == "s",
        min(int(percent), 100) if percent.isascii() and percent.isdigit() else 100,
    )


def evaluate(
    author: str, spf_domain: str, dkim_domains: Iterable[str], organizational: OrganizationalDomain
) -> Asking[DmarcVerdict]:
    """The verdict on an author's domain. `spf_domain` is "" unless SPF passed; `dkim_domains` of valid signatures."""
    try:
        record, own = yield from _discover(author, organizational)
    except _Unanswered:
        return DmarcVerdict("temperror", author, why="no answer for its policy")
    except DmarcError as error:
        return DmarcVerdict("permerror", author, why=str(error))
    if record is None:
        return DmarcVerdict("none", author)
    policy = record.policy if own else record.subdomain_policy

    def aligned(domain: str, strict: bool) -> bool:
        domain = domain.lower()
        return bool(domain) and (domain == author or (not strict and organizational(domain) == organizational(author)))

    passed = aligned(spf_domain, record.strict_spf) or any(aligned(each, record.strict_dkim) for each in dkim_domains)
    return DmarcVerdict("pass" if passed else "fail", author, policy, record.percent)


class _Unanswered(Exception):
    pass


def _discover(author: str, organizational: OrganizationalDomain) -> Asking[tuple[Record | None, bool]]:
    """The record (section 6.6.3), and whether it is the domain's own."""
    for domain in dict.fromkeys((author, organizational(author))):
        answer = yield Question(f"_dmarc.{domain}", "TXT")
        if answer.failed:
            raise _Unanswered
        found = [text for text in answer.records if text.partition(";")[0].replace(" ", "") == "v=DMARC1"]
        if len(found) == 1:
            record = parse(found[0])
            if record is not None:
                return record, domain == author
    return None, False


def strictest(verdicts: Iterable[DmarcVerdict]) -> DmarcVerdict | None:
    """Of a message with several authors: the failure with the strictest policy, else the first (section 6.6.1)."""
    every = list(verdicts)
    if not every:
        return None
    failed = [verdict for verdict in every if verdict.result == "fail"]
    failed.sort(key=lambda verdict: -POLICIES.index(verdict.policy))
    return (failed or [verdict for verdict in every if verdict.result != "none"] or every)[0]
