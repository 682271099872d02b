"""Mail programs that people use hand mail to us: in clear, after STARTTLS and under TLS from the start."""

import base64
import email
import email.policy
import os
import re
import shutil
import smtplib
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.certs import make_key, write_acme
from support.daemon import Daemon, cli, free_port, wait_until
from support.exim import Exim, exim
from support.peers import postfix
from support.sink import Mail, Sink, sinking

from bench.packages import Packages

pytestmark = pytest.mark.timeout(120)

# Each way in has a domain of its own, so that a server that hands mail in can choose by it.
WAYS = ("clear", "starttls", "implicit")
LOGINS = [("clear", "none"), *((way, mechanism) for way in WAYS[1:] for mechanism in ("PLAIN", "LOGIN"))]
SENDER = "anna@client.test"
USER = "alice"
PASSWORD = "correct horse battery"
CONFIG = """
table submitters "{dir}/submitters"
pki ours cert "{dir}/acme/live/fullchain.pem"
pki ours key "{dir}/acme/live/privkey.pem"
listen on 127.0.0.1 port {port} hostname localhost tls pki ours
listen on 127.0.0.1 port {port2} hostname localhost tls-require pki ours auth <submitters>
listen on 127.0.0.1 port {smtps} hostname localhost smtps pki ours auth <submitters>
action out relay host "smtp://127.0.0.1:{sink}"
match from any for domain clear.test action out
match auth from any for domain { starttls.test, implicit.test } action out
"""
# Dots, a line of nothing but a dot, what mbox would quote, 8 bits, blanks at an end, the longest line.
LINES = (
    "smörgåsbord: 美味",
    ".",
    "..",
    ".dot first",
    "",
    "From here on",
    "blanks behind  ",
    "x" * 990,
    "-- ",
    "the end",
)
BODY = "".join(f"{line}\r\n" for line in LINES).encode()


@dataclass
class Ours:
    """Our daemon with a listener for each way in, and where its mail ends."""

    daemon: Daemon
    ports: dict[str, int]
    sink: Sink
    certificate: Path
    peer_log: Callable[[], str] = str

    def arrived(self, way: str, subject: str) -> Mail:
        """The mail of this subject, once it has come, and come once."""

        def found() -> list[Mail]:
            return [mail for mail in self.sink.mails if f"\nSubject: {subject}\r\n".encode() in mail.data]

        try:
            wait_until(f"{subject} at the sink", found, 20)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.daemon.log[-4000:]}\n{self.peer_log()}") from None
        self.daemon.wait_empty()
        (mail,) = found()
        assert (mail.sender, mail.recipients) == (SENDER, [f"bert@{way}.test"])
        received = email.message_from_bytes(mail.data).get_all("Received", [])[0]
        assert ("TLSv1." in received) == (way != "clear"), received
        return mail


@pytest.fixture(scope="module")
def ours() -> Iterator[Ours]:
    """One daemon for all clients."""
    with sinking() as sink:
        smtps = free_port()
        daemon = Daemon(CONFIG.replace("{smtps}", str(smtps)).replace("{sink}", str(sink.port)))
        certificate, _key = write_acme(daemon.dir / "acme", make_key("rsa"), "localhost")
        (daemon.dir / "submitters").write_text(f"{USER} {cli('smtpctl_ps', 'encrypt', PASSWORD).stdout}")
        public = daemon.dir / "certificate.pem"
        shutil.copyfile(certificate, public)
        public.chmod(0o644)
        ports = {"clear": daemon.port, "starttls": daemon.port2, "implicit": smtps}
        try:
            daemon.start()
            yield Ours(daemon, ports, sink, public)
            assert daemon.stop() == 0, daemon.log[-4000:]
            assert "Traceback" not in daemon.log
        finally:
            if daemon.process and daemon.process.poll() is None:
                daemon.process.kill()
                daemon.process.wait()
            daemon.remove()


def message(way: str, subject: str) -> bytes:
    """A complete message with lines that are easily damaged."""
    header = (
        f"From: Anna <{SENDER}>\r\nTo: bert@{way}.test\r\nSubject: {subject}\r\n"
        "Date: Sun, 22 Nov 2026 12:00:00 +0000\r\n"
        f"Message-ID: <{subject.replace(' ', '.')}@client.test>\r\nMIME-Version: 1.0\r\n"
        "Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    )
    return header.encode() + BODY


def run(argv: list[str], text: bytes, **environment: str) -> None:
    """A client that reads a message with the line ends of Unix, and has to succeed."""
    done = subprocess.run(
        argv, input=text.replace(b"\r\n", b"\n"), capture_output=True, timeout=60, check=False,
        env=os.environ | {"LC_ALL": "C.UTF-8"} | environment,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr).decode(errors="replace")


def body_of(mail: Mail) -> bytes:
    return mail.data.partition(b"\r\n\r\n")[2]


@pytest.mark.parametrize(("way", "mechanism"), LOGINS)
def test_swaks(ours: Ours, way: str, mechanism: str) -> None:
    """swaks delivers a message whole, and logs in with both mechanisms."""
    subject = f"swaks {way} {mechanism}"
    argv = [
        "swaks", "--server", f"127.0.0.1:{ours.ports[way]}", "--helo", "client.test", "--from", SENDER,
        "--to", f"bert@{way}.test", "--data", "-", *{"clear": [], "starttls": ["-tls"], "implicit": ["-tlsc"]}[way],
    ]  # fmt: skip
    if way != "clear":
        argv += ["--auth", mechanism, "--auth-user", USER, "--auth-password", PASSWORD]
    run(argv, message(way, subject).removesuffix(b"\r\n"))  # it ends every message with a line end
    assert body_of(ours.arrived(way, subject)) == BODY


@pytest.mark.parametrize("way", WAYS)
def test_msmtp(ours: Ours, way: str) -> None:
    """msmtp, which checks our certificate, delivers a message whole."""
    subject = f"msmtp {way}"
    argv = ["msmtp", "--host=localhost", f"--port={ours.ports[way]}", f"--from={SENDER}"]
    if way != "clear":
        argv += [
            "--tls=on", f"--tls-starttls={'on' if way == 'starttls' else 'off'}",
            f"--tls-trust-file={ours.certificate}", "--auth=on", f"--user={USER}",
            "--passwordeval=printf '%s' \"$SPS_PASSWORD\"",
        ]  # fmt: skip
    run([*argv, f"bert@{way}.test"], message(way, subject), SPS_PASSWORD=PASSWORD)
    assert body_of(ours.arrived(way, subject)) == BODY


@pytest.mark.parametrize("way", WAYS)
def test_mutt(ours: Ours, way: str, tmp_path: Path) -> None:
    """mutt in batch mode composes and sends by its own SMTP client."""
    subject = f"mutt {way}"
    scheme = "smtps" if way == "implicit" else "smtp"
    login = "" if way == "clear" else f"{USER}@"
    settings = [
        f'set smtp_url="{scheme}://{login}localhost:{ours.ports[way]}/"',
        f'set smtp_pass="{PASSWORD}"',
        f"set ssl_starttls={'no' if way == 'clear' else 'yes'}",
        f"set ssl_force_tls={'no' if way == 'clear' else 'yes'}",
        f'set certificate_file="{ours.certificate}"',
        f'set from="{SENDER}"', "set use_envelope_from=yes", "set use_8bitmime=yes", "set hostname=client.test",
        'set send_charset="utf-8"', "set copy=no", f'set tmpdir="{tmp_path}"',
    ]  # fmt: skip
    muttrc = tmp_path / "muttrc"
    muttrc.write_text("\n".join(settings) + "\n")
    run(["mutt", "-n", "-F", str(muttrc), "-s", subject, "--", f"bert@{way}.test"], BODY, HOME=str(tmp_path))
    parsed = email.message_from_bytes(ours.arrived(way, subject).data, policy=email.policy.default)
    assert parsed.get_content().splitlines() == list(LINES)


class Thunderbird:
    """Commands as Thunderbird writes them, one at a time."""

    def __init__(self, ours: Ours, way: str) -> None:
        self._tls = ssl.create_default_context(cafile=str(ours.certificate))
        self._sock: socket.socket = socket.create_connection(("localhost", ours.ports[way]), 30)
        if way == "implicit":
            self._secure()
        self._file = self._sock.makefile("rb")
        assert self._reply() == 220

    def _secure(self) -> None:
        self._sock = self._tls.wrap_socket(self._sock, server_hostname="localhost")

    def _reply(self) -> int:
        self.lines = []
        while True:
            line = self._file.readline().decode()
            self.lines.append(line[4:].rstrip("\r\n"))
            if line[3:4] != "-":
                return int(line[:3])

    def says(self, text: str, code: int) -> None:
        """Send one line; the reply has to be this."""
        self._sock.sendall(f"{text}\r\n".encode())
        assert self._reply() == code, (text, self.lines)

    def starttls(self) -> None:
        """From plain text to TLS."""
        self.says("STARTTLS", 220)
        self._file.close()
        self._secure()
        self._file = self._sock.makefile("rb")

    def login(self, mechanism: str) -> None:
        """Log in; the mechanism has to be offered."""
        offered = next(line for line in self.lines if line.startswith("AUTH ")).split()
        assert mechanism in offered
        if mechanism == "PLAIN":
            self.says("AUTH PLAIN " + base64.b64encode(f"\0{USER}\0{PASSWORD}".encode()).decode(), 235)
        else:
            self.says("AUTH LOGIN", 334)
            self.says(base64.b64encode(USER.encode()).decode(), 334)
            self.says(base64.b64encode(PASSWORD.encode()).decode(), 235)

    def mails(self, recipient: str, text: bytes) -> None:
        """One message; the content and the final dot are two writes."""
        self.says(f"MAIL FROM:<{SENDER}> BODY=8BITMIME SIZE={len(text)}", 250)
        self.says(f"RCPT TO:<{recipient}>", 250)
        self.says("DATA", 354)
        self._sock.sendall(re.sub(rb"^\.", b"..", text, flags=re.M))
        self.says(".", 250)

    def leaves(self) -> None:
        """It does not wait for what QUIT is answered."""
        self._sock.sendall(b"QUIT\r\n")
        self._file.close()
        self._sock.close()


@pytest.mark.parametrize(("way", "mechanism"), LOGINS)
def test_thunderbirds_dialect(ours: Ours, way: str, mechanism: str) -> None:
    """An address literal at EHLO, parameters at MAIL, an initial response at AUTH, two mails in one session."""
    client = Thunderbird(ours, way)
    client.says("EHLO [127.0.0.1]", 250)
    if way == "starttls":
        assert "STARTTLS" in client.lines
        client.starttls()
        client.says("EHLO [127.0.0.1]", 250)
    assert "8BITMIME" in client.lines and any(line.startswith("SIZE") for line in client.lines)
    if way != "clear":
        client.login(mechanism)
    subjects = [f"thunderbird {way} {mechanism} {number}" for number in (1, 2)]
    for subject in subjects:
        client.mails(f"bert@{way}.test", message(way, subject))
    client.leaves()
    for subject in subjects:
        assert body_of(ours.arrived(way, subject)) == BODY


@pytest.mark.parametrize("way", WAYS)
def test_smtplib(ours: Ours, way: str) -> None:
    """Python's client: SMTP, STARTTLS with a certificate that it checks, SMTP_SSL."""
    subject = f"smtplib {way}"
    context = ssl.create_default_context(cafile=str(ours.certificate))
    kind: Callable[..., smtplib.SMTP] = smtplib.SMTP
    more: dict[str, object] = {"local_hostname": "client.test", "timeout": 30}
    if way == "implicit":
        kind, more["context"] = smtplib.SMTP_SSL, context
    with kind("localhost", ours.ports[way], **more) as client:
        if way == "starttls":
            client.starttls(context=context)
        if way != "clear":
            client.login(USER, PASSWORD)
        client.sendmail(SENDER, [f"bert@{way}.test"], message(way, subject), mail_options=["BODY=8BITMIME"])
    assert body_of(ours.arrived(way, subject)) == BODY


POSTFIX_CLIENT = """
mynetworks = 127.0.0.0/8
virtual_mailbox_domains =
relay_domains = clear.test, starttls.test, implicit.test
transport_maps = inline:{{ clear.test=clear:[127.0.0.1]:{clear}, starttls.test=starttls:[127.0.0.1]:{starttls},
  implicit.test=implicit:[127.0.0.1]:{implicit} }}
smtp_sasl_password_maps = inline:{{ {{ [127.0.0.1]:{starttls} = {user}:{password} }}, {{ [127.0.0.1]:{implicit} =
  {user}:{password} }} }}
smtp_sasl_security_options = noanonymous
smtp_tls_CAfile = {ca}
smtp_tls_secure_cert_match = localhost
"""
POSTFIX_CLIENTS = """
clear unix - - n - - smtp -o smtp_tls_security_level=none
starttls unix - - n - - smtp -o smtp_tls_security_level=secure -o smtp_sasl_auth_enable=yes
implicit unix - - n - - smtp -o smtp_tls_security_level=secure -o smtp_sasl_auth_enable=yes
  -o smtp_tls_wrappermode=yes
"""


def test_postfix(ours: Ours, scratch: Path) -> None:
    """Postfix gives us its mail, with the levels of TLS that it has, checking our certificate and logging in."""
    cert, key = write_acme(scratch / "cert", make_key("rsa"), "postfix.test")
    main = POSTFIX_CLIENT.format(**ours.ports, user=USER, password=PASSWORD, ca=ours.certificate)
    folder = scratch / "postfix"
    with postfix(folder, "127.0.0.41", "postfix.test", cert, key, main=main, services=POSTFIX_CLIENTS):
        with smtplib.SMTP("127.0.0.41", local_hostname="client.test") as client:
            for way in WAYS:
                client.sendmail(SENDER, [f"bert@{way}.test"], message(way, f"postfix {way}"), ["BODY=8BITMIME"])
        for way in WAYS:
            assert body_of(ours.arrived(way, f"postfix {way}")) == BODY, way
        log = folder / "log"
        wait_until("postfix logs all three", lambda: log.read_text().count("status=sent (250 2.0.0") == len(WAYS))


EXIM_ROUTERS = "".join(
    f"""\
{way}:
  driver = manualroute
  domains = {way}.test
  transport = {way}
  route_list = * localhost byname
  self = send
"""
    for way in WAYS
)
EXIM_TRANSPORTS = """\
clear:
  driver = smtp
  port = {clear}
  hosts_avoid_tls = *
starttls:
  driver = smtp
  port = {starttls}
  hosts_require_tls = *
  hosts_require_auth = *
  tls_verify_certificates = {ca}
  tls_verify_hosts = *
implicit:
  driver = smtp
  port = {implicit}
  protocol = smtps
  hosts_require_auth = *
  tls_verify_certificates = {ca}
  tls_verify_hosts = *
"""
EXIM_LOGIN = f"""\
plain:
  driver = plaintext
  public_name = PLAIN
  client_send = ^{USER}^{PASSWORD}
"""


@pytest.fixture
def smarthost_client(ours: Ours, scratch: Path, packages: Packages) -> Iterator[Exim]:
    """An Exim that gives us all its mail."""
    cert, key = write_acme(scratch / "cert", make_key("rsa"), "exim.test")
    with exim(
        packages, scratch / "exim", "127.0.0.42", "exim.test", cert, key,
        routers=EXIM_ROUTERS, transports=EXIM_TRANSPORTS.format(**ours.ports, ca=ours.certificate),
        authenticators=EXIM_LOGIN,
    ) as peer:  # fmt: skip
        yield peer


def test_exim(ours: Ours, smarthost_client: Exim) -> None:
    """Exim gives us its mail as to a smarthost, in chunks. In clear it ends its side before it has our replies."""
    ours.peer_log = lambda: smarthost_client.log
    for way in WAYS:
        text = message(way, f"exim {way}").replace(b"\r\n", b"\n")
        smarthost_client.submit(text, "-i", "-f", SENDER, f"bert@{way}.test")
    for way in WAYS:
        assert body_of(ours.arrived(way, f"exim {way}")) == BODY, way
    wait_until("both logins are logged", lambda: smarthost_client.log.count(" A=plain ") >= 2)
    assert smarthost_client.log.count(" A=plain ") == 2, smarthost_client.log
