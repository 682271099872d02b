"""filter-auth beside pyspf, dkimpy and authheaders: the same verdicts on messages made for it."""

import functools
import re
from typing import Any

import authheaders
import authheaders.dmarc_lookup
import authres
import dkim
import pytest
import spf
from dns.exception import Timeout
from support.auth_corpus import CASES, FAILS, Case

from smtpd_ps.filterkit.data_stream import Message
from smtpd_ps.filterkit.session import Session
from smtpd_ps.programs import dkim_verdicts
from smtpd_ps.programs.filter_auth import AuthFilter, organizational_domains
from smtpd_ps.pure.dns_asking import Answer, Asking, Question, T, answered
from smtpd_ps.pure.spf_check import check_host

ORGANIZATIONAL = organizational_domains("")
theirs = functools.cache(authheaders.dmarc_lookup.get_org_domain)


def records(case: Case, name: str, kind: str) -> list[str]:
    return case.records.get((name.lower().rstrip("."), kind), [])


def answer(case: Case, question: Question) -> Answer:
    found = records(case, question.name, question.kind)
    if found == [FAILS]:
        return Answer(failed=True)
    if question.kind == "MX":
        found = [each.partition(" ")[2] for each in sorted(found)]
    return Answer(tuple(found))


class StubDns:
    """What filter-auth asks, from a case."""

    def __init__(self, case: Case) -> None:
        self._case = case

    async def all(self, questions: tuple[Question, ...]) -> dict[Question, Answer]:
        return {question: answer(self._case, question) for question in questions}

    async def settle(self, asking: Asking[T]) -> T:
        return answered(asking, lambda question: answer(self._case, question))


def pyspf_lookup(case: Case) -> Any:
    def lookup(name: str, kind: str, strict: bool = True, timeout: float = 20) -> list[Any]:
        found = records(case, str(name), kind)
        if found == [FAILS]:
            raise spf.TempError("DNS SERVFAIL")
        if kind == "TXT":
            return [((name, kind), (text.encode(),)) for text in found]
        if kind == "MX":
            pairs = [each.split(" ") for each in found]
            return [((name, kind), (int(preference), host)) for preference, host in pairs]
        return [((name, kind), each.rstrip(".")) for each in found]

    return lookup


def dkim_oracle(case: Case, message: bytes, index: int) -> str:
    def txt(name: bytes, timeout: int = 5) -> bytes | None:
        found = records(case, name.decode(), "TXT")
        if found == [FAILS]:
            raise Timeout
        return found[0].encode() if found else None

    try:
        return "pass" if dkim.DKIM(message).verify(index, dnsfunc=txt) else "fail"
    except Timeout:
        return "temperror"
    except Exception:
        return "fail"


def ours(case: Case) -> tuple[AuthFilter, Session, Message]:
    filter = AuthFilter(StubDns(case), ORGANIZATIONAL, "here.example", reject=True)  # type: ignore[arg-type]
    session = Session("a1", "smtp-in")
    ip = f"[{case.ip}]" if ":" in case.ip else case.ip
    session.source, session.sender, session.identity = f"{ip}:1000", case.sender, case.helo
    message = Message()
    message.data += case.message
    return filter, session, message


def field(case: Case) -> tuple[authres.AuthenticationResultsHeader, Session]:
    """The field that filter-auth writes, as authres reads it."""
    import asyncio

    filter, session, message = ours(case)
    whole = b"".join(asyncio.run(filter.filter_message(session, message)))
    text = whole[: whole.index(b"\r\nFrom:" if b"\r\nFrom:" in whole else b"\r\n\r\n")].decode()
    unfolded = re.sub(r"\r\n(?=[ \t])", "", text).split("\r\n")[0]
    return authres.AuthenticationResultsHeader.parse(unfolded), session


def test_the_corpus_is_large_enough() -> None:
    """Sixty messages, each with a name of its own."""
    assert len({case.name for case in CASES}) == len(CASES) >= 60


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_spf_agrees_with_pyspf(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each result; the null sender is judged by its HELO name."""
    import ipaddress

    monkeypatch.setattr(spf, "DNSLookup", pyspf_lookup(case))
    expected, _why = spf.check2(case.ip, case.sender, case.helo)
    made = answered(
        check_host(ipaddress.ip_address(case.ip), case.sender, case.helo), lambda question: answer(case, question)
    )
    assert made.result == expected, made


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_dkim_agrees_with_dkimpy(case: Case) -> None:
    """Each signature; what is neither passed nor waiting for DNS is a failure to dkimpy."""
    message = case.message
    keys = {question: answer(case, question) for question in dkim_verdicts.questions(message)}
    made = [verdict.result for verdict in dkim_verdicts.verdicts(message, keys)]
    expected = [dkim_oracle(case, message, index) for index in range(message.lower().count(b"dkim-signature:"))]
    assert ["fail" if result == "permerror" else result for result in made] == expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_dmarc_agrees_with_authheaders(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its result with what pyspf and dkimpy say, against what filter-auth writes."""
    for module in (authheaders, authheaders.dmarc_lookup):
        monkeypatch.setattr(module, "get_org_domain", theirs)
    monkeypatch.setattr(spf, "DNSLookup", pyspf_lookup(case))
    message = case.message
    spf_result = authheaders.check_spf(case.ip, case.sender or f"postmaster@{case.helo}", case.helo)
    signatures = [
        authres.DKIMAuthenticationResult(
            result=dkim_oracle(case, message, index), header_d=tags.get(b"d", b"").decode()
        )
        for index, tags in enumerate(dkim_verdicts._signatures(message))
    ]

    def txt(name: str) -> str | None:
        # authheaders sees one record; two of DMARC are as none (RFC 7489, 6.6.3).
        found = [text for text in records(case, name, "TXT") if text.startswith("v=DMARC1")]
        return found[0] if len(found) == 1 else None

    verdicts = [
        authheaders.check_dmarc(message, spf_result, signature, dnsfunc=txt) if _has_record(case, txt) else None
        for signature in (signatures or [None])
    ]
    results = [verdict.result if verdict else "none" for verdict in verdicts]
    expected = "pass" if "pass" in results else results[0]
    parsed, session = field(case)
    (made,) = [result for result in parsed.results if result.method == "dmarc"]
    assert (made.result, parsed.authserv_id) == (expected, "here.example")
    refused = session.state.get("refused")
    if made.result != "fail":
        assert refused is None
    elif verdicts[0].policy == "reject":
        assert refused is not None


def _has_record(case: Case, txt: Any) -> bool:
    """authheaders (0.16.3) raises an UnboundLocalError for a message whose author has no record."""
    domains = [address.rpartition("@")[2] for address in case.author.split(", ")]
    return any("p=" in (txt(f"_dmarc.{name}") or "") for each in domains for name in (each, theirs(each)))
