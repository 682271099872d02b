"""Contexts with keys elsewhere: the self-test at start, SNI, clients' verification; the remote signer."""

import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from keys.certificates import PrivateKey, certificate, ec_key, key_pem, rsa_key

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import PkiSettings, TlsVersion
from smtpd_ps.contract.values import Phase, Process
from smtpd_ps.keys.private_key import PrivateKey as LoadedKey
from smtpd_ps.osdep import libcrypto
from smtpd_ps.runtime.channel import BlockingChannel
from smtpd_ps.runtime.signer import RemoteSigner
from smtpd_ps.runtime.stream import TlsError, TlsInfo
from smtpd_ps.runtime.tls import client_pump, server_pump
from smtpd_ps.runtime.tls_context import Identity, PkiError, client_context, install_pki, server_context

KEYS: dict[str, PrivateKey] = {"rsa": rsa_key(), "ecdsa": ec_key()}
CERTIFICATES = {
    "rsa": certificate(KEYS["rsa"], "mx.example.com", "*.example.org"),
    "ecdsa": certificate(KEYS["ecdsa"], "mx.example.net"),
}
PKIS = [(PkiSettings(name, f"{name}.crt", f"{name}.key"), pem) for name, pem in CERTIFICATES.items()]


class LocalSigner:
    """Signs in this process, or as it is told to."""

    def __init__(self, keys: dict[str, PrivateKey] = KEYS) -> None:
        self._keys = {name: LoadedKey(bytearray(key_pem(key))) for name, key in keys.items()}
        self.asked: list[tuple[str, str]] = []

    def sign(self, pki: str, scheme: str, data: bytes) -> bytes:
        self.asked.append((pki, scheme))
        return self._keys[pki].sign(data)


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    yield
    libcrypto.restore_signer()


@pytest.fixture
def identities() -> dict[str, Identity]:
    return install_pki(PKIS, LocalSigner())


def connect(
    server_side: ssl.SSLContext, client_side: ssl.SSLContext, hostname: str | None
) -> tuple[TlsInfo, TlsInfo, ssl.SSLObject]:
    """Handshake of two pumps; what server and client learn, and the client's end."""
    server, client = server_pump(server_side), client_pump(client_side, hostname)
    ends: dict[str, TlsInfo | None] = {"server": None, "client": None}
    for _ in range(6):
        ends["client"] = ends["client"] or client.handshake()
        server.feed(client.output())
        ends["server"] = ends["server"] or server.handshake()
        client.feed(server.output())
    assert ends["server"] is not None and ends["client"] is not None
    return ends["server"], ends["client"], client._object


def test_self_test_asks_for_each_pki_and_version() -> None:
    """install_pki makes a TLS 1.2 and a TLS 1.3 handshake with every pki, signed by the signer."""
    signer = LocalSigner()
    assert list(install_pki(PKIS, signer)) == ["rsa", "ecdsa"]
    assert signer.asked == [("rsa", "rsa")] * 2 + [("ecdsa", "ecdsa")] * 2


def test_start_is_refused_without_signatures() -> None:
    """A signer that refuses, or signs with another key, keeps the daemon from starting."""

    class Refusing:
        def sign(self, pki: str, scheme: str, data: bytes) -> bytes:
            return b""

    with pytest.raises(PkiError, match="pki rsa: keys makes no signature"):
        install_pki(PKIS, Refusing())
    other = LocalSigner({"rsa": rsa_key(number=1), "ecdsa": ec_key(number=1)})
    with pytest.raises(PkiError, match="pki rsa: keys makes no signature"):
        install_pki(PKIS, other)


def test_start_is_refused_when_the_callback_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handshake that succeeds without the signer means that the key is in the wrong process."""
    monkeypatch.setattr(libcrypto, "install_signer", lambda _rsa, _ecdsa: None)
    monkeypatch.setattr("smtpd_ps.runtime.tls_context.decoy_pem", lambda _public: key_pem(KEYS["rsa"]))
    with pytest.raises(PkiError, match="did not ask keys"):
        install_pki(PKIS[:1], LocalSigner())


def test_bad_certificates_are_named() -> None:
    """The error says which pki and which file."""
    with pytest.raises(PkiError, match=r"pki x: x.crt: no PEM certificate"):
        install_pki([(PkiSettings("x", "x.crt", "x.key"), b"")], LocalSigner())
    broken = CERTIFICATES["rsa"] + b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n"
    with pytest.raises(PkiError, match="pki x: "):
        install_pki([(PkiSettings("x", "x.crt", "x.key"), broken)], LocalSigner())


def test_two_names_for_one_key() -> None:
    """Two pkis may share a key; both are proven."""
    pkis = [PKIS[0], (PkiSettings("again", "a.crt", "a.key"), CERTIFICATES["rsa"])]
    assert list(install_pki(pkis, LocalSigner())) == ["rsa", "again"]


def test_no_pki_installs_nothing() -> None:
    """Without pkis nothing is changed in libcrypto."""
    assert install_pki([], LocalSigner()) == {}
    assert libcrypto.load().RSA_get_default_method() == libcrypto.load().RSA_PKCS1_OpenSSL()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mx.example.com", "rsa"), ("mx.example.net", "ecdsa"), ("MX.example.net", "ecdsa"), ("a.example.org", "rsa"),
        ("unknown.example", "rsa"), (None, "rsa"),
    ],
)  # fmt: skip
def test_sni_chooses_the_certificate(identities: dict[str, Identity], name: str | None, expected: str) -> None:
    """SNI picks by the names in the certificates; without a match the first is shown."""
    context = server_context([identities["rsa"], identities["ecdsa"]], "HIGH:!aNULL:!MD5")
    _server, _client, end = connect(context, client_context(verify=False), name)
    assert end.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(CERTIFICATES[expected].decode())


def test_versions(identities: dict[str, Identity]) -> None:
    """TLS 1.2 and 1.3 are spoken, nothing older."""
    context = server_context([identities["rsa"]])
    for version, expected in ((ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")):
        client = client_context(verify=False)
        client.maximum_version = version
        assert connect(context, client, None)[0].version == expected
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(TlsError, match="protocol"):
        connect(context, old, None)


def test_rsa_key_exchange_is_not_offered(identities: dict[str, Identity]) -> None:
    """A cipher list that allows it does not bring back RSA key exchange: keys decrypts nothing."""
    names = {cipher["name"] for cipher in server_context([identities["rsa"]], "HIGH:kRSA").get_ciphers()}
    assert names
    assert not [name for name in names if name.startswith(("AES", "CAMELLIA", "ARIA"))]
    with pytest.raises(PkiError, match="no cipher"):
        server_context([identities["rsa"]], "NONSENSE")


def test_client_verifies_host_and_authority() -> None:
    """With verify: the CA's certificate and the host name count; without: neither does."""
    identities = install_pki(PKIS, LocalSigner())
    server = server_context([identities["rsa"]])
    trusting = client_context(verify=True, ca_pem=CERTIFICATES["rsa"].decode())
    _server, client, _end = connect(server, trusting, "mx.example.com")
    assert client.verified and client.peer_subject == "mx.example.com"
    with pytest.raises(TlsError, match="certificate: "):
        connect(server, trusting, "mx.example.net")
    with pytest.raises(TlsError, match="certificate: "):
        connect(server, client_context(verify=True, ca_pem=CERTIFICATES["ecdsa"].decode()), "mx.example.com")
    _server, client, _end = connect(server, client_context(verify=False), "mx.example.net")
    assert not client.verified


def test_client_certificate_is_signed_by_keys(identities: dict[str, Identity]) -> None:
    """A relay's pki is shown to the server, signed by the signer."""
    server = server_context([identities["rsa"]])
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(cadata=CERTIFICATES["ecdsa"].decode())
    info, _client, _end = connect(server, client_context(identities["ecdsa"], verify=False), None)
    assert info.verified and info.peer_subject == "mx.example.net"


def test_system_authorities_or_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any CA a verifying context is an error now, not a failure of every relay later."""
    (tmp_path / "authorities.pem").write_bytes(CERTIFICATES["rsa"])
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authorities.pem"))
    assert client_context(verify=True).cert_store_stats()["x509"] == 1
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(PkiError, match="CA certificates"):
        client_context(verify=True)
    with pytest.raises(PkiError, match="CA certificates"):
        client_context(verify=True, ca_pem="nothing")


def test_system_authorities_in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory of hashed names, which OpenSSL would open only when needed, is read at once."""
    (tmp_path / "12345678.0").write_bytes(CERTIFICATES["rsa"])
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    assert client_context(verify=True).cert_store_stats()["x509"] == 1


def answering(answers: list[bytes | None]) -> tuple[RemoteSigner, threading.Thread, list[str]]:
    """A remote signer whose other end gives these answers; None closes."""
    ours, theirs = socket.socketpair()
    lost: list[str] = []

    def serve() -> None:
        with theirs:
            channel = BlockingChannel(theirs, Process.KEYS, Process.SMTP, Phase.RUN, 5)
            for answer in answers:
                request, _ = channel.receive()
                assert isinstance(request, m.Sign)
                if answer is None:
                    return
                channel.send(m.Signature(answer))
            theirs.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    return RemoteSigner(ours, Process.SMTP, lost.append, 5), thread, lost


def test_remote_signer_asks_and_returns() -> None:
    """Answers come back in turn, an empty one is a refusal and no loss."""
    signer, thread, lost = answering([b"one", b"", b"three"])
    assert [signer.sign("a", "rsa", b"x") for _ in range(3)] == [b"one", b"", b"three"]
    signer._channel.sock.close()
    thread.join()
    assert lost == []


def test_remote_signer_without_keys() -> None:
    """When keys is gone the loss is told once and every signature is empty."""
    signer, thread, lost = answering([None])
    assert signer.sign("a", "rsa", b"x") == b""
    assert signer.sign("a", "rsa", b"x") == b""
    thread.join()
    assert lost == ["keys: keys closed the channel"]
    signer._channel.sock.close()


def test_remote_signer_gives_up() -> None:
    """Silence ends the wait; a late answer can then not be taken for that of another request."""
    ours, theirs = socket.socketpair()
    lost: list[str] = []
    signer = RemoteSigner(ours, Process.DELIVERY, lost.append, 0.02)
    with ours, theirs:
        assert signer.sign("a", "rsa", b"x") == b""
        late = BlockingChannel(theirs, Process.KEYS, Process.DELIVERY, Phase.RUN, 5)
        late.receive()
        late.send(m.Signature(b"late"))
        assert signer.sign("a", "rsa", b"y") == b""
    assert lost == ["keys: timed out"]


def test_verified_clients(identities: dict[str, Identity]) -> None:
    """With verify a client must show a certificate of the given CA; in TLS 1.3 it learns so after its handshake."""
    server = server_context(
        [identities["rsa"], identities["ecdsa"]], verify=True, ca_pem=CERTIFICATES["ecdsa"]
    )  # fmt: skip
    for hostname in ("mx.example.com", "mx.example.net"):  # by SNI, both contexts
        info, _client, _end = connect(server, client_context(identities["ecdsa"], verify=False), hostname)
        assert info.verified
        assert info.peer_subject == "mx.example.net"
        assert info.fingerprint.startswith("SHA256:")
        for stranger in (None, identities["rsa"]):
            with pytest.raises(TlsError, match="certificate"):
                connect(server, client_context(stranger, verify=False), hostname)


def test_clients_are_verified_by_the_systems_authorities(
    identities: dict[str, Identity], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a ca it is the system's that count, and there have to be some."""
    (tmp_path / "authorities.pem").write_bytes(CERTIFICATES["rsa"])
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "authorities.pem"))
    server = server_context([identities["rsa"]], verify=True)
    assert connect(server, client_context(identities["rsa"], verify=False), None)[0].verified
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    with pytest.raises(PkiError, match="CA certificates"):
        server_context([identities["rsa"]], verify=True)
    with pytest.raises(PkiError, match="CA certificates"):
        server_context([identities["rsa"]], verify=True, ca_pem=b"nothing")


@pytest.mark.parametrize(
    ("protocols", "spoken"), [(("TLSv1.2",), "TLSv1.2"), (("TLSv1.3",), "TLSv1.3"), ((), "TLSv1.3")]
)
def test_protocols_of_a_listener(
    identities: dict[str, Identity], protocols: tuple[TlsVersion, ...], spoken: str
) -> None:
    """Only the versions it names are spoken."""
    server = server_context([identities["rsa"]], protocols=protocols)
    assert connect(server, client_context(verify=False), None)[0].version == spoken
    other = client_context(verify=False)
    other.minimum_version = other.maximum_version = (
        ssl.TLSVersion.TLSv1_3 if spoken == "TLSv1.2" else ssl.TLSVersion.TLSv1_2
    )
    if protocols:
        with pytest.raises(TlsError):
            connect(server, other, None)


@pytest.mark.parametrize("dhe", ["none", "auto", "legacy"])
def test_dhe(dhe: str) -> None:
    """A pki with `dhe` serves clients that know Diffie-Hellman without elliptic curves, in the published group."""
    settings = PkiSettings("rsa", "rsa.crt", "rsa.key", dhe)  # type: ignore[arg-type]
    identities = install_pki([(settings, CERTIFICATES["rsa"])], LocalSigner())
    server = server_context([identities["rsa"]], "HIGH")
    client = client_context(verify=False, ciphers="DHE-RSA-AES256-GCM-SHA384")
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    if dhe == "none":
        with pytest.raises(TlsError):
            connect(server, client, None)
    else:
        assert connect(server, client, None)[0].cipher == "DHE-RSA-AES256-GCM-SHA384"
