"""smtp(1): hand one message to an SMTP or LMTP server.

Runs as whoever calls it; reads a message of the caller's, and replies and certificates of a server.
"""

import getpass
import socket
import ssl
import sys
from collections.abc import Callable, Sequence

from smtpd_ps.cli.program import Exit, complain, read_message, show
from smtpd_ps.cli.smtp_options import USAGE, Options, OptionsError, TlsOptions, parse_options
from smtpd_ps.contract.values import Status
from smtpd_ps.pure.smtp_client_events import ClientOptions, Mail
from smtpd_ps.pure.smtp_client_replies import printable
from smtpd_ps.runtime.smtp_dialogue import Dialogue, DialogueError
from smtpd_ps.runtime.tls_context import PkiError, client_context

PROGRAM = "smtp"
CONNECT_SECS = 30.0
TIMEOUT_SECS = 300.0
MAX_AUTH_BYTES = 4096

Secure = Callable[[socket.socket], socket.socket]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its exit status, one of sysexits(3)."""
    try:
        options = parse_options(list(sys.argv[1:] if argv is None else argv))
    except OptionsError as error:
        complain(PROGRAM, str(error))
        print(USAGE, file=sys.stderr)
        return Exit.USAGE
    if options.help:
        print(USAGE)
        return Exit.OK
    try:
        user, password = _credentials(options)
        context = _context(options.tls) if options.server.use != "never" else None
        body = b"" if options.no_action else _message(read_message())
    except (OSError, PkiError, OptionsError) as error:
        where = getattr(error, "filename", None)
        complain(PROGRAM, f"{where}: {error.strerror}" if isinstance(error, OSError) and where else str(error))
        return Exit.NOINPUT
    client = ClientOptions(
        options.helo or socket.gethostname(), options.server.lmtp, options.server.use, user, password
    )
    try:
        sock = _connect(options)
        secure = _securer(context, options) if context is not None else None
        dialogue = Dialogue(sock, client, secure, _Show() if options.verbose else None)
    except socket.gaierror as error:
        complain(PROGRAM, f"{options.server.host}: {error.strerror}")
        return Exit.NOHOST
    except OSError as error:
        complain(PROGRAM, f"{options.server.host} port {options.server.port}: {error.strerror or error}")
        return Exit.TEMPFAIL
    try:
        return _run(dialogue, options, body)
    except DialogueError as error:
        complain(PROGRAM, str(error))
        return Exit.TEMPFAIL if error.temporary else Exit.UNAVAILABLE
    finally:
        dialogue.close()


def _run(dialogue: Dialogue, options: Options, body: bytes) -> int:
    """Raises DialogueError."""
    dialogue.open()
    if options.no_action:
        return Exit.OK
    sender = getpass.getuser() if options.sender is None else options.sender
    recipients = list(options.recipients)
    finished = dialogue.send(Mail(sender, recipients, None, len(body), not body.isascii()), (body,))
    statuses = set()
    for recipient, answer in zip(recipients, finished.answers, strict=True):
        status, text = answer or (Status.TEMPFAIL, "no answer")
        statuses.add(status)
        if status is not Status.OK:
            complain(PROGRAM, f"{recipient}: {text}")
        elif options.verbose:
            show(f"{recipient}: {text}")
    if Status.PERMFAIL in statuses:
        return Exit.UNAVAILABLE
    return Exit.OK if statuses == {Status.OK} else Exit.TEMPFAIL


def _message(data: bytes) -> bytes:
    """As it is, but with CRLF line ends: a bare CR is one too, since no server may be sent any."""
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")


def _credentials(options: Options) -> tuple[str, str]:
    """User and password, of the URL or the file of -a: its first two lines. Raises OSError, OptionsError."""
    if not options.auth_file:
        return options.server.user, options.server.password
    with open(options.auth_file, "rb") as file:
        lines = file.read(MAX_AUTH_BYTES).decode("utf-8", "replace").splitlines()
    if len(lines) < 2 or not lines[0]:
        raise OptionsError(f"{options.auth_file}: expected a user on the first line and a password on the second")
    return lines[0], lines[1]


def _context(wanted: TlsOptions) -> ssl.SSLContext:
    """Raises OSError, PkiError."""
    ca_pem = ""
    if wanted.ca_file:
        with open(wanted.ca_file, encoding="ascii", errors="replace") as file:
            ca_pem = file.read()
    return client_context(
        verify=not wanted.no_verify, ca_pem=ca_pem, ciphers=wanted.ciphers, protocols=wanted.protocols
    )


def _securer(context: ssl.SSLContext, options: Options) -> Secure:
    name = options.tls.server_name or options.server.host
    # Without SNI nobody checks the name by itself.
    check = options.tls.no_sni and not options.tls.no_verify
    context.check_hostname = context.check_hostname and not options.tls.no_sni

    def secure(sock: socket.socket) -> socket.socket:
        tls = context.wrap_socket(sock, server_hostname=None if options.tls.no_sni else name)
        if check and not _certificate_is_for(tls, name):
            raise ssl.SSLError(1, f"the certificate is not for {name}")
        if options.verbose:
            cipher = tls.cipher()
            show(f"{tls.version()} {cipher[0] if cipher else ''}")
        return tls

    return secure


def _certificate_is_for(tls: ssl.SSLSocket, name: str) -> bool:
    from smtpd_ps.pure.certificate import CertificateError, leaf

    der = tls.getpeercert(binary_form=True)
    try:
        return der is not None and leaf(ssl.DER_cert_to_PEM_cert(der).encode()).matches(name)
    except CertificateError:
        return False


def _connect(options: Options) -> socket.socket:
    """To the first address that answers. Raises OSError."""
    server = options.server
    last: OSError = socket.gaierror(socket.EAI_NONAME, "no address")
    for family, kind, protocol, _name, address in socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(CONNECT_SECS)
            sock.connect(address)
            sock.settimeout(TIMEOUT_SECS)
        except OSError as error:
            sock.close()
            last = error
            continue
        if options.verbose:
            host, port = sock.getpeername()[:2]
            show(f"connected to {host} port {port}")
        return sock
    raise last


class _Show:
    """Prints the session, but no credentials."""

    def __init__(self) -> None:
        self._asked = False  # the server waits for a user's name or a password

    def __call__(self, sent: bytes, received: bytes) -> None:
        for line in sent.splitlines():
            if self._asked or line[:5].upper() == b"AUTH ":
                show(">>> (credentials)")
            else:
                show(f">>> {printable(line)}")
        for line in received.splitlines():
            show(f"<<< {printable(line)}")
        self._asked = received.startswith(b"334")


if __name__ == "__main__":
    sys.exit(main())
