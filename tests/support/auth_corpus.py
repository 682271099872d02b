"""Messages for filter-auth, made here: each with a client, a DNS zone and a word of what it is about."""

import base64
from collections.abc import Callable
from dataclasses import dataclass, field

import dkim
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

RSA = rsa.generate_private_key(65537, 1024)
OTHER_RSA = rsa.generate_private_key(65537, 1024)
ED = ed25519.Ed25519PrivateKey.generate()
NONE = serialization.NoEncryption()
PEM = RSA.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, NONE)
ED_SEED = base64.b64encode(ED.private_bytes(serialization.Encoding.Raw, serialization.PrivateFormat.Raw, NONE))
Zone = dict[tuple[str, str], list[str]]
FAILS = "SERVFAIL"


def rsa_record(key: rsa.RSAPrivateKey = RSA) -> str:
    der = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return "v=DKIM1; k=rsa; p=" + base64.b64encode(der).decode()


def ed_record() -> str:
    raw = ED.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return "v=DKIM1; k=ed25519; p=" + base64.b64encode(raw).decode()


@dataclass(frozen=True)
class Signature:
    domain: str = "example.org"
    selector: str = "s"
    kind: str = "rsa-sha256"
    canon: tuple[bytes, bytes] = (b"relaxed", b"simple")
    length: bool = False
    headers: tuple[bytes, ...] | None = None
    expires: int = 0


class _Expiring(dkim.DKIM):  # type: ignore[misc]
    expires = 0

    def gen_header(self, fields, *rest, **more):  # type: ignore[no-untyped-def]
        if self.expires:
            fields = [(b"t", b"%d" % (self.expires - 60)) if name == b"t" else (name, value) for name, value in fields]
            fields.insert(-1, (b"x", b"%d" % self.expires))
        return super().gen_header(fields, *rest, **more)


def sign(message: bytes, how: Signature) -> bytes:
    signer = _Expiring(message, signature_algorithm=how.kind.encode(), linesep=b"\r\n")
    signer.expires = how.expires
    made: bytes = signer.sign(
        how.selector.encode(), how.domain.encode(), ED_SEED if how.kind.startswith("ed") else PEM,
        canonicalize=how.canon, include_headers=how.headers, length=how.length,
    )  # fmt: skip
    return made


@dataclass(frozen=True)
class Case:
    name: str
    author: str = "anna@example.org"
    ip: str = "192.0.2.1"
    sender: str = "anna@example.org"
    helo: str = "mail.example.org"
    signatures: tuple[Signature, ...] = ()
    zone: Zone = field(default_factory=dict)
    change: Callable[[bytes], bytes] = lambda message: message

    @property
    def message(self) -> bytes:
        made = (
            f"From: {self.author}\r\nTo: b@here.example\r\nSubject: x\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\n"
            "Message-ID: <1@example.org>\r\n\r\nfirst line\r\nsecond  line \r\n"
        ).encode()
        for how in reversed(self.signatures):
            made = sign(made, how) + made
        return self.change(made)

    @property
    def records(self) -> Zone:
        return {**ZONE, **self.zone}


ZONE: Zone = {
    ("example.org", "TXT"): ["other", "v=spf1 ip4:192.0.2.0/24 ip6:2001:db8::/32 -all"],
    ("sub.example.org", "TXT"): ["v=spf1 include:example.org ~all"],
    ("_dmarc.example.org", "TXT"): ["v=DMARC1; p=reject; rua=mailto:r@example.org"],
    ("mail.example.org", "A"): ["192.0.2.1"],
    ("s._domainkey.example.org", "TXT"): [rsa_record()],
    ("ed._domainkey.example.org", "TXT"): [ed_record()],
    ("s._domainkey.sub.example.org", "TXT"): [rsa_record()],
    ("s._domainkey.other.example", "TXT"): [rsa_record()],
    ("other.example", "TXT"): ["v=spf1 ip4:198.51.100.0/24 -all"],
}


def spf(name: str, record: str, more: Zone | None = None, **rest: str) -> Case:
    """A case of SPF alone, of spf.example."""
    zone: Zone = {("spf.example", "TXT"): [record], **(more or {})}
    return Case("spf " + name, sender="a@spf.example", author="a@spf.example", zone=zone, **rest)  # type: ignore[arg-type]


def dmarc(name: str, record: str, **rest: object) -> Case:
    """A case whose DMARC record is this one."""
    zone: Zone = {("_dmarc.example.org", "TXT"): [record]}
    return Case("dmarc " + name, zone=zone, **rest)  # type: ignore[arg-type]


ONE = (Signature(),)
ELSEWHERE = "203.0.113.9"
MX: Zone = {("spf.example", "MX"): ["10 mx1.spf.example.", "20 mx2.spf.example."],
            ("mx2.spf.example", "A"): ["192.0.2.1"],
            ("mx1.spf.example", "A"): ["192.0.2.77"]}  # fmt: skip
PTR: Zone = {("1.2.0.192.in-addr.arpa", "PTR"): ["host.spf.example."], ("host.spf.example", "A"): ["192.0.2.1"]}

CASES: tuple[Case, ...] = (
    Case("all pass", signatures=ONE),
    Case("spf alone passes"),
    Case("nothing passes", ip=ELSEWHERE),
    Case("dkim alone passes", ip=ELSEWHERE, signatures=ONE),
    Case("IPv6", ip="2001:db8::5"),
    Case("IPv6 fails", ip="2001:db9::5"),
    Case("null sender, helo passes", sender="", zone={("mail.example.org", "TXT"): ["v=spf1 a -all"]}),
    Case("null sender, helo fails", sender="", ip=ELSEWHERE, zone={("mail.example.org", "TXT"): ["v=spf1 a -all"]}),
    Case("null sender, helo is a literal", sender="", helo="[192.0.2.1]"),
    # SPF
    spf("none", "v=spf2.0/pra +all"),
    spf("neutral at the end", "v=spf1 ip4:198.51.100.1"),
    spf("neutral by qualifier", "v=spf1 ?ip4:192.0.2.1 -all"),
    spf("softfail", "v=spf1 ip4:198.51.100.1 ~all"),
    spf("fail", "v=spf1 -all"),
    spf("pass all", "v=spf1 +all"),
    spf("upper case", "V=SPF1 IP4:192.0.2.1 -ALL"),
    spf("a", "v=spf1 a -all", {("spf.example", "A"): ["192.0.2.1"]}),
    spf("a with a prefix", "v=spf1 a:x.spf.example/24 -all", {("x.spf.example", "A"): ["192.0.2.200"]}),
    spf("a with both prefixes", "v=spf1 a:x.spf.example/24//64 -all", {("x.spf.example", "AAAA"): ["2001:db8::1"]},
        ip="2001:db8::99"),
    spf("mx", "v=spf1 mx -all", MX),
    spf("mx with a prefix", "v=spf1 mx/25 -all", MX, ip="192.0.2.99"),
    spf("mx elsewhere fails", "v=spf1 mx -all", MX, ip=ELSEWHERE),
    spf("ptr", "v=spf1 ptr -all", PTR),
    spf("ptr of another", "v=spf1 ptr:other.example -all", PTR),
    spf("exists with macros", "v=spf1 exists:%{ir}.%{l}.%{d} -all", {("1.2.0.192.a.spf.example", "A"): ["127.0.0.2"]}),
    spf("exists with macros fails", "v=spf1 exists:%{i}._spf.%{d2} -all"),
    spf("include passes", "v=spf1 include:example.org -all"),
    spf("include fails and goes on", "v=spf1 include:other.example ~all"),
    spf("include of nothing", "v=spf1 include:nothing.example -all"),
    spf("include of an error", "v=spf1 include:bad.example -all", {("bad.example", "TXT"): ["v=spf1 moo"]}),
    spf("redirect", "v=spf1 redirect=example.org"),
    spf("redirect to nothing", "v=spf1 redirect=nothing.example"),
    spf("redirect is not used beside all", "v=spf1 ?all redirect=other.example"),
    spf("unknown modifier", "v=spf1 moo=cow ip4:192.0.2.1 -all"),
    spf("permerror: unknown mechanism", "v=spf1 moo -all"),
    spf("permerror: bad network", "v=spf1 ip4:192.0.2.300 -all"),
    spf("permerror: bad prefix", "v=spf1 ip4:192.0.2.0/33 -all"),
    spf("permerror: two redirects", "v=spf1 redirect=a.example redirect=b.example"),
    spf("permerror: include without domain", "v=spf1 include -all"),
    spf("permerror: bad macro", "v=spf1 exists:%{q}.example.org -all"),
    Case("spf permerror: two records", zone={("example.org", "TXT"): ["v=spf1 +all", "v=spf1 -all"]}),
    spf("permerror: too many lookups", "v=spf1 " + " ".join(f"include:i{n}.example" for n in range(11)) + " -all",
        {(f"i{n}.example", "TXT"): ["v=spf1 ip4:198.51.100.1 -all"] for n in range(11)}),
    spf("ten lookups", "v=spf1 " + " ".join(f"include:i{n}.example" for n in range(10)) + " +all",
        {(f"i{n}.example", "TXT"): ["v=spf1 ip4:198.51.100.1 -all"] for n in range(10)}),
    spf("permerror: void lookups", "v=spf1 a:v1.example a:v2.example a:v3.example +all"),
    spf("permerror: a loop", "v=spf1 include:spf.example -all"),
    spf("two void lookups", "v=spf1 a:v1.example a:v2.example +all"),
    Case("spf temperror", zone={("example.org", "TXT"): [FAILS]}),
    spf("temperror in an include", "v=spf1 include:away.example -all", {("away.example", "TXT"): [FAILS]}),
    # DKIM
    Case("dkim ed25519", signatures=(Signature(selector="ed", kind="ed25519-sha256"),)),
    Case("dkim simple/simple", signatures=(Signature(canon=(b"simple", b"simple")),)),
    Case("dkim relaxed/relaxed, spaces changed", signatures=(Signature(canon=(b"relaxed", b"relaxed")),),
         change=lambda m: m.replace(b"second  line ", b"second line")),
    Case("dkim simple body, spaces changed", signatures=ONE,
         change=lambda m: m.replace(b"second  line", b"second line")),
    Case("dkim body changed", signatures=ONE, change=lambda m: m.replace(b"first", b"other")),
    Case("dkim subject changed", signatures=ONE, change=lambda m: m.replace(b"Subject: x", b"Subject: y")),
    Case("dkim body length, text added", signatures=(Signature(length=True),), change=lambda m: m + b"more\r\n"),
    Case("dkim body length, text taken", signatures=(Signature(length=True),), change=lambda m: m[:-12]),
    Case("dkim without length, text added", signatures=ONE, change=lambda m: m + b"more\r\n"),
    Case("dkim oversigned, field added", signatures=(Signature(headers=(b"from", b"from", b"subject", b"subject")),),
         change=lambda m: b"Subject: z\r\n" + m),
    Case("dkim oversigned", signatures=(Signature(headers=(b"from", b"from", b"subject", b"subject", b"cc")),)),
    Case("dkim not oversigned, field added on top", signatures=(Signature(headers=(b"from", b"subject")),),
         change=lambda m: b"Subject: z\r\n" + m),
    Case("dkim second From added", signatures=ONE, change=lambda m: b"From: eve@example.org\r\n" + m),
    Case("dkim expired", ip=ELSEWHERE, signatures=(Signature(expires=1_600_000_000),)),
    Case("dkim not yet expired", ip=ELSEWHERE, signatures=(Signature(expires=4_000_000_000),),
         change=lambda m: m),
    Case("dkim no key", signatures=(Signature(selector="gone"),)),
    Case("dkim revoked key", signatures=ONE, zone={("s._domainkey.example.org", "TXT"): ["v=DKIM1; p="]}),
    Case("dkim damaged key", signatures=ONE, zone={("s._domainkey.example.org", "TXT"): ["v=DKIM1; p=AAAA"]}),
    Case("dkim other key", signatures=ONE, zone={("s._domainkey.example.org", "TXT"): [rsa_record(OTHER_RSA)]}),
    Case("dkim key temperror", signatures=ONE, zone={("s._domainkey.example.org", "TXT"): [FAILS]}),
    Case("dkim tag missing", signatures=ONE, change=lambda m: m.replace(b" s=s;", b"")),
    Case("dkim rubbish", change=lambda m: b"DKIM-Signature: what is this\r\n" + m),
    Case("dkim of another domain", ip=ELSEWHERE, signatures=(Signature("other.example"),)),
    Case("dkim two signatures", ip=ELSEWHERE, signatures=(Signature(), Signature("other.example"))),
    Case("dkim two signatures, first broken", ip=ELSEWHERE,
         signatures=(Signature("other.example", "gone"), Signature())),
    Case("dkim rsa and ed25519", ip=ELSEWHERE,
         signatures=(Signature(), Signature(selector="ed", kind="ed25519-sha256"))),
    # DMARC
    dmarc("p=none", "v=DMARC1; p=none", ip=ELSEWHERE),
    dmarc("p=quarantine", "v=DMARC1; p=quarantine", ip=ELSEWHERE),
    dmarc("spf aligned, relaxed", "v=DMARC1; p=reject", sender="a@sub.example.org"),
    dmarc("spf strict, not aligned", "v=DMARC1; p=reject; aspf=s", sender="a@sub.example.org"),
    dmarc("spf strict, aligned", "v=DMARC1; p=reject; aspf=s"),
    dmarc("spf of another", "v=DMARC1; p=reject", sender="a@other.example", ip="198.51.100.5"),
    dmarc("dkim aligned, relaxed", "v=DMARC1; p=reject", ip=ELSEWHERE, signatures=(Signature("sub.example.org"),)),
    dmarc("dkim strict, not aligned", "v=DMARC1; p=reject; adkim=s", ip=ELSEWHERE,
          signatures=(Signature("sub.example.org"),)),
    dmarc("dkim strict, aligned", "v=DMARC1; p=reject; adkim=s", ip=ELSEWHERE, signatures=ONE),
    dmarc("subdomain's own policy", "v=DMARC1; p=none; sp=reject", ip=ELSEWHERE, author="a@sub.example.org"),
    dmarc("subdomain without sp", "v=DMARC1; p=quarantine", ip=ELSEWHERE, author="a@sub.example.org"),
    dmarc("subdomain passes", "v=DMARC1; p=none; sp=reject", author="a@deep.sub.example.org"),
    dmarc("no record of ours", "v=spf1 -all", ip=ELSEWHERE),
    dmarc("permerror", "v=DMARC1; p=reject; rubbish", ip=ELSEWHERE),
    Case("dmarc two records", ip=ELSEWHERE, zone={
        ("_dmarc.example.org", "TXT"): ["v=DMARC1; p=none", "v=DMARC1; p=reject"]}),
    Case("dmarc none", author="a@plain.example", ip=ELSEWHERE),
    Case("dmarc below a public suffix", author="a@x.ours.co.uk", ip=ELSEWHERE, zone={
        ("_dmarc.ours.co.uk", "TXT"): ["v=DMARC1; p=reject"], ("_dmarc.co.uk", "TXT"): ["v=DMARC1; p=none"]}),
    Case("dmarc two authors", author="a@example.org, b@other.example", ip=ELSEWHERE),
)  # fmt: skip
