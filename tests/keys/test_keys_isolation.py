"""Two real processes: keys with the private keys, and a TLS server that never sees them."""

import contextlib
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from keys.certificates import EC_SEC1, PKCS8, RSA_PKCS1, PrivateKey, certificate, ec_key, key_pem, rsa_key
from keys.memory_scan import patterns, scan

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.settings import KeysSettings, PkiSettings
from smtpd_ps.contract.values import Phase, Process
from smtpd_ps.runtime.channel import BlockingChannel

ROOT = Path(__file__).parents[2]
KEYS_MAIN = "from smtpd_ps.keys.__main__ import main; main()"
PAIRS: dict[str, PrivateKey] = {"rsa": rsa_key(), "ecdsa": ec_key()}


@dataclass
class Keys:
    """A live keys process, as its parent and smtp see it."""

    pid: int
    parent: BlockingChannel
    smtp: socket.socket


class KeysFailed(Exception):
    """What keys said before it ended."""


def start_keys(pairs: dict[str, tuple[bytes, bytes]], folder: Path) -> Keys:
    """Run the real main, unprivileged, with these chains and keys; it is serving when this returns."""
    ours, theirs = socket.socketpair()
    smtp, keys_smtp = socket.socketpair()
    log = os.open(folder / "keys.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    high = os.dup(theirs.fileno())
    pid = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", KEYS_MAIN],
        {"PYTHONPATH": str(ROOT)},
        file_actions=[(os.POSIX_SPAWN_DUP2, high, 3), (os.POSIX_SPAWN_DUP2, log, 2)],
    )
    os.close(high)
    os.close(log)
    theirs.close()
    parent = BlockingChannel(ours, Process.PARENT, Process.KEYS, Phase.SETUP, 20)
    pkis = tuple(PkiSettings(name, f"{name}.crt", f"{name}.key") for name in pairs)
    parent.send(m.Common("", os.getuid(), os.getgid(), 0, True, False, peers=1, assets=2 * len(pairs)))
    parent.send(m.KeysSetup(KeysSettings(pkis)))
    parent.send(m.PeerChannel(Process.SMTP), keys_smtp.fileno())
    keys_smtp.close()
    for name, pair in pairs.items():
        for kind, content in zip(("cert", "key"), pair, strict=True):
            path = folder / f"{name}.{kind}"
            path.write_bytes(content)
            with path.open("rb") as file:
                parent.send(m.Asset(kind, name), file.fileno())  # type: ignore[arg-type]
    try:
        ready, _ = parent.receive()
        if isinstance(ready, m.Failed):
            raise KeysFailed(ready.text)
        assert isinstance(ready, m.Ready)
        parent.send(m.Go())
    except BaseException:
        parent.sock.close()
        smtp.close()
        os.waitpid(pid, 0)
        raise
    return Keys(pid, parent, smtp)


def stop_keys(keys: Keys) -> int:
    keys.parent.sock.close()
    keys.smtp.close()
    return os.waitstatus_to_exitcode(os.waitpid(keys.pid, 0)[1])


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[Keys]:
    pairs = {
        "rsa": (certificate(PAIRS["rsa"], "rsa.example.com"), key_pem(PAIRS["rsa"], RSA_PKCS1)),
        "ecdsa": (certificate(PAIRS["ecdsa"], "ecdsa.example.com"), key_pem(PAIRS["ecdsa"], EC_SEC1)),
    }
    running = start_keys(pairs, tmp_path)
    yield running
    assert stop_keys(running) == 0, (tmp_path / "keys.log").read_text()


@dataclass
class Server:
    pid: int
    port: int


@pytest.fixture
def server(keys: Keys, tmp_path: Path) -> Iterator[Server]:
    with start_server(keys, tmp_path, "confined") as running:
        yield running


@contextlib.contextmanager
def start_server(keys: Keys, tmp_path: Path, confined: str) -> Iterator[Server]:
    listener = socket.create_server(("127.0.0.1", 0))
    arguments = [a for name in PAIRS for a in (name, str(tmp_path / f"{name}.cert"))]
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("tls_server_process.py")), confined, str(keys.smtp.fileno()),
         str(listener.fileno()), *arguments],
        pass_fds=[keys.smtp.fileno(), listener.fileno()], env={"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    port = listener.getsockname()[1]
    listener.close()
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == b"ready\n"
        yield Server(process.pid, port)
    assert process.returncode == 0


def converse(server: Server, folder: Path, name: str, version: ssl.TLSVersion, sni: bool = True) -> str:
    """A verified TLS session; the name in the certificate that was shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for pki in PAIRS:
        context.load_verify_locations(folder / f"{pki}.cert")
    context.check_hostname = sni
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as sock,
        context.wrap_socket(sock, server_hostname=f"{name}.example.com" if sni else None) as tls,
    ):
        tls.sendall(b"NOOP\r\n")
        assert tls.recv(100) == b"NOOP\r\n"
        shown = tls.getpeercert()
        assert shown is not None
        return str(shown["subjectAltName"][0][1])


@pytest.mark.parametrize("name", list(PAIRS))
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_sessions(server: Server, tmp_path: Path, name: str, version: ssl.TLSVersion) -> None:
    """RSA and ECDSA, TLS 1.2 and 1.3, chosen by SNI, verify at the client."""
    assert converse(server, tmp_path, name, version) == f"{name}.example.com"


def test_without_sni_the_first_certificate_is_shown(server: Server, tmp_path: Path) -> None:
    """No SNI, and an unknown name, get the first pki."""
    assert converse(server, tmp_path, "", ssl.TLSVersion.TLSv1_3, sni=False) == "rsa.example.com"
    with pytest.raises(ssl.SSLCertVerificationError):
        converse(server, tmp_path, "unknown", ssl.TLSVersion.TLSv1_3)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux's /proc/PID/mem")
def test_only_keys_holds_the_secrets(keys: Keys, tmp_path: Path) -> None:
    """After handshakes of every kind: no form of a secret in the server's memory, but in that of keys."""
    root = os.getuid() == 0
    secrets = {f"{name}: {what}": pattern for name, key in PAIRS.items() for what, pattern in patterns(key).items()}
    with start_server(keys, tmp_path, "confined" if root else "open") as server:
        for name in PAIRS:
            for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
                converse(server, tmp_path, name, version)
        assert scan(server.pid, secrets) == set()
    if not root:
        pytest.skip("the memory of keys was not read: it is not dumpable, only root may look into it")
    held = scan(keys.pid, secrets)
    assert {"rsa: prime p, little-endian", "rsa: prime q, little-endian", "ecdsa: EC scalar, little-endian"} <= held
    assert not [name for name in held if "base64" in name or "Python" in name], "the PEM text was not wiped"


def test_scan_finds_what_is_there() -> None:
    """The scanner sees a secret in each of its forms: otherwise its silence means nothing."""
    wanted = patterns(ec_key(number=7))
    for name, pattern in wanted.items():
        code = "import sys; kept = bytes.fromhex(sys.argv[1]); print(1, flush=True); sys.stdin.read()"
        with subprocess.Popen(
            [sys.executable, "-c", code, pattern.hex()], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            assert name in scan(process.pid, wanted)


@pytest.mark.parametrize("form", [PKCS8, RSA_PKCS1])
@pytest.mark.parametrize("name", list(PAIRS))
def test_every_form_of_key_file(tmp_path: Path, name: str, form: object) -> None:
    """PKCS#8, PKCS#1 and SEC 1 files are served; a chain of two certificates too."""
    chain = certificate(PAIRS[name], "a.example") + certificate(rsa_key(), "ca.example")
    keys = start_keys({"one": (chain, key_pem(PAIRS[name], form))}, tmp_path)  # type: ignore[arg-type]
    channel = BlockingChannel(keys.smtp, Process.SMTP, Process.KEYS, Phase.RUN, 20)
    channel.send(m.Sign("one", "ecdsa", b"d" * 32))
    answer, _ = channel.receive()
    assert isinstance(answer, m.Signature)
    assert bool(answer.data) is (name == "ecdsa")
    assert stop_keys(keys) == 0


def test_a_pair_that_does_not_match_stops_keys(tmp_path: Path) -> None:
    """A key of another certificate: keys ends, and the log and the parent hear the file's name."""
    text = "pki one: one.key: the private key does not belong to the certificate"
    with pytest.raises(KeysFailed, match=f"^{text}$"):
        start_keys({"one": (certificate(rsa_key(), "a.example"), key_pem(ec_key()))}, tmp_path)
    assert text in (tmp_path / "keys.log").read_text()


def test_a_violation_ends_keys(tmp_path: Path) -> None:
    """A request that the contract does not know makes keys end with an error in the log."""
    keys = start_keys({"rsa": (certificate(rsa_key(), "a"), key_pem(rsa_key()))}, tmp_path)
    keys.smtp.sendall(b"\xff" * 16)
    assert keys.smtp.recv(1) == b""
    assert stop_keys(keys) != 0
    assert "smtp may not send message type" in (tmp_path / "keys.log").read_text()
