"""TLS of listeners in the real daemon: clients' certificates, SNI, versions, suites, Diffie-Hellman."""

import contextlib
import smtplib
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.certs import Key, key_pem, make_certificate, make_key, write_acme
from support.daemon import Daemon, running, wait_until
from support.ports import HERE, free_ports
from support.sink import Sink, sinking

pytestmark = pytest.mark.timeout(60)

CONFIG = """
pki one.test cert "{dir}/one/live/fullchain.pem"
pki one.test key "{dir}/one/live/privkey.pem"
pki two.test cert "{dir}/two/live/fullchain.pem"
pki two.test key "{dir}/two/live/privkey.pem"
pki finite cert "{dir}/one/live/fullchain.pem"
pki finite key "{dir}/one/live/privkey.pem"
pki finite dhe auto
ca ours cert "{dir}/ours.pem"
listen on 127.0.0.1 port {port}
listen on HERE port P0 smtps verify pki one.test pki two.test ca ours
listen on HERE port P1 tls-require verify pki one.test ca ours
listen on HERE port P2 tls pki one.test protocols "tlsv1.2"
listen on HERE port P3 tls pki one.test protocols "tlsv1.3"
listen on HERE port P4 tls pki one.test ciphers "ECDHE-RSA-AES256-GCM-SHA384"
listen on HERE port P5 smtps pki finite
listen on HERE port P6 smtps pki one.test pki two.test
action out relay host "smtp+notls://127.0.0.1:SINK"
match from any for any action out
"""


class Secured:
    """The daemon, its ports, and clients' certificates by name."""

    def __init__(self, daemon: Daemon, sink: Sink, ports: list[int], folder: Path) -> None:
        self.daemon, self.sink, self.ports, self.folder = daemon, sink, ports, folder

    def context(self, certificate: str = "", suites: str = "", version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        """A client's context."""
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
        if certificate:
            made.load_cert_chain(self.folder / f"{certificate}.pem", self.folder / f"{certificate}.key")
        if suites:
            made.set_ciphers(suites)
        if version:
            made.minimum_version = made.maximum_version = version
        return made

    def client(self, number: int, context: ssl.SSLContext, host: str = "one.test") -> smtplib.SMTP:
        """A client under TLS of listener `number`, which may be refused: OSError or SMTPException."""
        if number in (0, 5, 6):
            client: smtplib.SMTP = _Named(HERE, self.ports[number], host, context)
        else:
            client = smtplib.SMTP(HERE, self.ports[number], "client.test", timeout=20)
            client.ehlo()
            client.starttls(context=context)
        assert client.ehlo()[0] == 250
        return client


class _Named(smtplib.SMTP_SSL):
    """Asks for the certificate of a name that is not what it connects to."""

    def __init__(self, address: str, port: int, host: str, context: ssl.SSLContext) -> None:
        self._asked = host
        super().__init__(address, port, "client.test", timeout=20, context=context)

    def _get_socket(self, host: str, port: int, timeout: float) -> ssl.SSLSocket:
        plain = smtplib.SMTP._get_socket(self, host, port, timeout)  # type: ignore[attr-defined]
        return self.context.wrap_socket(plain, server_hostname=self._asked)  # type: ignore[attr-defined,no-any-return]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """One daemon for all of these, and certificates of its authority, of another and of none."""
    folder = tmp_path_factory.mktemp("clients")
    ours, theirs = (make_key("ecdsa"), "ours.test"), (make_key("ecdsa"), "ours.test")
    clients: dict[str, tuple[Key, tuple[Key, str] | None]] = {
        "rsa": (make_key("rsa"), ours),
        "ecdsa": (make_key("ecdsa"), ours),
        "other": (make_key("ecdsa"), theirs),  # an authority of the same name
        "alone": (make_key("rsa"), None),
    }
    for name, (key, issuer) in clients.items():
        (folder / f"{name}.pem").write_bytes(make_certificate(key, "client.test", issuer))
        (folder / f"{name}.key").write_bytes(key_pem(key))

    def prepare(where: Path) -> None:
        write_acme(where / "one", make_key("rsa"), "one.test")
        write_acme(where / "two", make_key("ecdsa"), "two.test")
        (where / "ours.pem").write_bytes(make_certificate(*ours))

    ports = free_ports(7)
    with sinking() as sink:
        config = CONFIG.replace("HERE", HERE).replace("SINK", str(sink.port))
        for number, port in enumerate(ports):
            config = config.replace(f"P{number} ", f"{port} ")
        with running(config, prepare=prepare) as daemon:
            yield Secured(daemon, sink, ports, folder)


@pytest.mark.parametrize("listener", [0, 1])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("certificate", ["rsa", "ecdsa"])
def test_a_client_of_the_authority(secured: Secured, listener: int, version: ssl.TLSVersion, certificate: str) -> None:
    """Its mail is taken; Received and the log say that it was verified."""
    before = len(secured.sink.mails)
    with secured.client(listener, secured.context(certificate, version=version)) as client:
        client.sendmail("a@client.test", ["b@ours.test"], "Subject: x\r\n\r\nx\r\n")
    wait_until("it arrives", lambda: len(secured.sink.mails) > before)
    assert b":YES)" in secured.sink.mails[-1].data
    secured.daemon.wait_logged('cert-check result="verified" fingerprint="')


@pytest.mark.parametrize("listener", [0, 1])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("certificate", ["other", "alone", ""])
def test_any_other_client_is_refused(
    secured: Secured, listener: int, version: ssl.TLSVersion, certificate: str
) -> None:
    """A certificate of another authority, of none, and no certificate: no session comes about."""
    with pytest.raises((OSError, smtplib.SMTPException)):
        secured.client(listener, secured.context(certificate, version=version))


def test_mail_in_clear_is_refused_where_tls_is_required(secured: Secured) -> None:
    """Verified or not, MAIL is answered 530 before STARTTLS."""
    with smtplib.SMTP(HERE, secured.ports[1], "client.test", timeout=20) as client:
        client.ehlo()
        assert client.mail("a@client.test")[0] == 530


def test_the_name_that_is_asked_for(secured: Secured) -> None:
    """SNI chooses the certificate, whatever its kind of key; another name gets the first."""
    shown = {}
    for name in ("one.test", "two.test", "three.test"):
        with secured.client(6, secured.context(), name) as client:
            assert isinstance(client.sock, ssl.SSLSocket)
            certificate = client.sock.getpeercert(binary_form=True)
            assert certificate is not None
            shown[name] = b"two.test" in certificate
    assert shown == {"one.test": False, "two.test": True, "three.test": False}


@pytest.mark.parametrize("listener,spoken", [(2, "TLSv1.2"), (3, "TLSv1.3")])
def test_versions_of_a_listener(secured: Secured, listener: int, spoken: str) -> None:
    """A listener with `protocols` speaks those, and refuses who has none of them."""
    with secured.client(listener, secured.context()) as client:
        assert isinstance(client.sock, ssl.SSLSocket)
        assert client.sock.version() == spoken
    other = ssl.TLSVersion.TLSv1_3 if spoken == "TLSv1.2" else ssl.TLSVersion.TLSv1_2
    with pytest.raises((OSError, smtplib.SMTPException)):
        secured.client(listener, secured.context(version=other))


@pytest.mark.parametrize(
    "listener,suite,taken",
    [
        (4, "ECDHE-RSA-AES256-GCM-SHA384", True),
        (4, "ECDHE-RSA-AES128-GCM-SHA256", False),
        (5, "DHE-RSA-AES128-GCM-SHA256", True),
        (6, "DHE-RSA-AES128-GCM-SHA256", False),
    ],
)
def test_suites_of_a_listener(secured: Secured, listener: int, suite: str, taken: bool) -> None:
    """`ciphers` bounds what TLS 1.2 uses, and Diffie-Hellman over a finite field needs a pki with `dhe`."""
    context = secured.context(suites=suite, version=ssl.TLSVersion.TLSv1_2)
    with contextlib.ExitStack() as stack:
        if not taken:
            stack.enter_context(pytest.raises((OSError, smtplib.SMTPException)))
        with secured.client(listener, context) as client:
            assert isinstance(client.sock, ssl.SSLSocket)
            assert client.sock.cipher()[0] == suite  # type: ignore[index]
