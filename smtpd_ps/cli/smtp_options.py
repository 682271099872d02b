"""The command line of smtp(1), as values: the server's URL, TLS, and who gets the message.

Runs in the smtp client, as whoever calls it.
"""

import getopt
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from smtpd_ps.contract.settings import TlsVersion
from smtpd_ps.contract.values import TlsUse
from smtpd_ps.pure.mail_draft import address_safe
from smtpd_ps.pure.relay_url import RelayUrlError, parse_host_port
from smtpd_ps.pure.tls_protocols import TlsProtocolsError, parse_protocols

USAGE = "usage: smtp_ps [-Chnv] [-a authfile] [-F from] [-H helo] [-s server] [-T params] [-S servername] recipient ..."
_SCHEMES: dict[str, tuple[TlsUse, bool, int]] = {  # use of TLS, LMTP, port
    "smtp": ("opportunistic", False, 25),
    "smtp+tls": ("require-verify", False, 25),
    "smtp+notls": ("never", False, 25),
    "smtps": ("implicit-verify", False, 465),
    "lmtp": ("opportunistic", True, 0),
    "lmtp+tls": ("require-verify", True, 0),
    "lmtp+notls": ("never", True, 0),
}


class OptionsError(ValueError):
    """The words make no command; one line."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where to, and how. Credentials are "" where the URL has none."""

    host: str = "localhost"
    port: int = 25
    use: TlsUse = "opportunistic"
    lmtp: bool = False
    user: str = ""
    password: str = ""


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """Of -T, -C and -S."""

    ca_file: str = ""
    ciphers: str = ""
    protocols: tuple[TlsVersion, ...] = ()
    server_name: str = ""
    no_sni: bool = False
    no_verify: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """Options of smtp(1). `sender` None: the caller's name."""

    server: Server = Server()
    tls: TlsOptions = TlsOptions()
    auth_file: str = ""
    sender: str | None = None
    helo: str = ""
    no_action: bool = False
    verbose: bool = False
    help: bool = False
    recipients: tuple[str, ...] = field(default=())


def parse_options(words: Sequence[str]) -> Options:
    """Parse the words after the program's name. Raises OptionsError."""
    try:
        given, rest = getopt.getopt(list(words), "CF:H:S:T:a:hns:v")
    except getopt.GetoptError as error:
        raise OptionsError(str(error)) from None
    values = dict(given)
    tls = TlsOptions(no_verify="-C" in values, server_name=values.get("-S", ""))
    for name, value in given:
        if name == "-T":
            tls = _tls(tls, value)
    sender = values.get("-F")
    if sender is not None:
        sender = sender[1:-1] if sender.startswith("<") and sender.endswith(">") else sender
    for address in (*((sender,) if sender else ()), *rest):
        if not address_safe(address):
            raise OptionsError(f"not an address: {address!a}")
    helo = values.get("-H", "")
    if helo and not re.fullmatch(r"[!-~]{1,255}", helo):
        raise OptionsError(f"-H: not a host name: {helo!a}")
    options = Options(
        server=parse_server(values["-s"]) if "-s" in values else Server(),
        tls=tls,
        auth_file=values.get("-a", ""),
        sender=sender,
        helo=helo,
        no_action="-n" in values,
        verbose="-v" in values,
        help="-h" in values,
        recipients=tuple(rest),
    )
    if not (options.recipients or options.no_action or options.help):
        raise OptionsError("no recipients")
    if options.auth_file and options.server.use == "never":
        raise OptionsError("-a needs TLS")
    return options


def parse_server(text: str) -> Server:
    """`[proto://][user:password@]host[:port]`; a password may have any character but @. Raises OptionsError."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "smtp", text
    found = _SCHEMES.get(scheme.lower())
    if found is None:
        raise OptionsError(f"-s: unknown protocol {scheme!a}, expected one of {' '.join(_SCHEMES)}")
    use, lmtp, default_port = found
    credentials, at, place = rest.rpartition("@")
    user, colon, password = credentials.partition(":")
    if at and not (user and colon):
        raise OptionsError("-s: expected user:password before the @")
    if at and use == "never":
        raise OptionsError(f"-s: credentials need TLS, which {scheme.lower()}:// does without")
    try:
        host, port = parse_host_port(place, default_port)
    except RelayUrlError as error:
        raise OptionsError(f"-s: {error}") from None
    if not port:
        raise OptionsError("-s: LMTP needs a port")
    return Server(host, port, use, lmtp, user, password)


def _tls(tls: TlsOptions, text: str) -> TlsOptions:
    """Comma or space separated: cafile=FILE ciphers=LIST nosni noverify protocols=LIST servername=NAME."""
    for word in re.split("[, ]+", text.strip(", ")):
        name, equals, value = word.partition("=")
        takes_value = name not in ("nosni", "noverify")
        if takes_value and not value:
            raise OptionsError(f"-T: {name or 'it'} wants a value" if name in _TLS_WORDS else f"-T: unknown {name!a}")
        if equals and not takes_value:
            raise OptionsError(f"-T: {name} takes no value")
        match name:
            case "cafile":
                tls = replace(tls, ca_file=value)
            case "ciphers":
                tls = replace(tls, ciphers=value)
            case "nosni":
                tls = replace(tls, no_sni=True)
            case "noverify":
                tls = replace(tls, no_verify=True)
            case "servername":
                tls = replace(tls, server_name=value)
            case "protocols":
                try:
                    tls = replace(tls, protocols=parse_protocols(value))
                except TlsProtocolsError as error:
                    raise OptionsError(f"-T: {error}") from None
            case _:
                raise OptionsError(f"-T: unknown {name!a}; known: {' '.join(_TLS_WORDS)}")
    return tls


_TLS_WORDS = ("cafile", "ciphers", "nosni", "noverify", "protocols", "servername")
