"""`pki` and `ca`: certificates by name. Files are checked by config/files, later.

Runs in the parent and in `smtpd_ps -n`.
"""

from smtpd_ps.config.draft import PkiDraft
from smtpd_ps.config.model import CertificateAuthority
from smtpd_ps.config.parser import Parser
from smtpd_ps.config.suggestion import suggestion
from smtpd_ps.config.tokens import Kind
from smtpd_ps.contract.settings import Dhe
from smtpd_ps.pure.relay_url import is_host_name

_DHE: dict[str, Dhe] = {"none": "none", "legacy": "legacy", "auto": "auto"}


def certificate_name(p: Parser, what: str) -> str:
    """A host name or "*", in lower case."""
    token = p.peek()
    name = p.name(what).lower()
    if name != "*" and not is_host_name(name):
        p.report(token, f'{what} must be a host name or "*": "{token.text}"')
    return name


def pki(p: Parser) -> None:
    """`pki NAME [cert FILE] [key FILE] [dhe none|legacy|auto]`, over as many lines as one likes."""
    where = p.where
    name = certificate_name(p, "the name of a pki")
    known = p.draft.pki.setdefault(name, PkiDraft(name, where))
    with p.draft.declaring("pki", name):
        while p.peek().kind not in (Kind.NEWLINE, Kind.END):
            _option(p, known)


def _option(p: Parser, known: PkiDraft) -> None:
    option = p.option("pki", ("cert", "dhe", "key"), frozenset())
    match option.text:
        case "cert":
            if known.cert_path:
                p.report(option, f'pki "{known.name}" already has a cert')
            known.cert_path = p.path("the path of a certificate")
        case "key":
            if known.key_path:
                p.report(option, f'pki "{known.name}" already has a key')
            known.key_path = p.path("the path of a private key")
        case "dhe":
            token = p.peek()
            value = p.string(f"{', '.join(_DHE)}").lower()
            if value not in _DHE:
                hint = suggestion(token.text, _DHE)
                p.report(token, f'expected {", ".join(_DHE)}, found "{token.text}"{hint}')
            elif known.dhe is not None:
                p.report(option, f'pki "{known.name}" already has a dhe')
            else:
                known.dhe = _DHE[value]


def authority(p: Parser) -> None:
    """`ca NAME cert FILE`."""
    where = p.where
    name = certificate_name(p, "the name of a ca")
    known = p.draft.authorities.get(name)
    if known is not None:
        p.draft.report(where, f'ca "{name}" is already declared at {known.where.path}:{known.where.line}')
    with p.draft.declaring("ca", name):
        p.expect("cert")
        made = CertificateAuthority(name, p.path("the path of a certificate bundle"), where)
    p.draft.authorities.setdefault(name, made)
