"""Attacks on STARTTLS and on TLS against the real daemon.

CVE-2011-0411 (Postfix and others), "NO STARTTLS" (2021), CVE-2024-34083 (aiosmtpd).
"""

import contextlib
import socket
import ssl
import subprocess
import warnings

import pytest
from support.hostile import Target, Wire, insecure_context, peak_memory


@pytest.mark.parametrize("injected", [b"NOOP\r\n", b"MAIL FROM:<x@client.test>\r\n", b"X", b"\r\n", b"\x16\x03\x01"])
def test_starttls_injection_cve_2011_0411(target: Target, injected: bytes) -> None:
    """Plain text behind STARTTLS in the same segment ends the session before any handshake."""
    with target.wire() as wire:
        wire.send(b"STARTTLS\r\n" + injected)
        assert wire.reply().startswith(b"554 ")
        assert wire.closed()


def test_starttls_injection_before_the_handshake(target: Target) -> None:
    """Plain text after the 220, before the ClientHello, is no command under TLS."""
    with target.wire() as wire:
        wire.send(b"STARTTLS\r\n")
        assert wire.reply().startswith(b"220 ")
        wire.send(b"NOOP\r\nMAIL FROM:<x@client.test>\r\n")
        assert not [line for line in wire_rest_raw(wire) if line.startswith(b"250")]


def wire_rest_raw(wire: Wire) -> list[bytes]:
    """What still comes, alerts included, as pieces between CRLF."""
    data = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        while more := wire.sock.recv(65536):
            data += more
    return data.split(b"\r\n")


def test_starttls_forgets_cve_2024_34083(target: Target) -> None:
    """HELO and transaction of before the handshake are forgotten; a second STARTTLS is refused."""
    with target.wire() as wire:
        assert wire.say("MAIL FROM:<a@client.test>").startswith(b"250 ")
        assert wire.say("STARTTLS").startswith(b"503 "), "in a transaction"
        assert wire.say("RSET").startswith(b"250 ")
        wire.tls()
        assert wire.say("MAIL FROM:<a@client.test>").startswith(b"503 "), "no EHLO yet"
        assert wire.say("RCPT TO:<b@example.com>").startswith(b"503 ")
        assert wire.say("EHLO client.test").startswith(b"250 ")
        assert wire.say("RCPT TO:<b@example.com>").startswith(b"503 ")
        assert wire.say("STARTTLS").startswith(b"503 ")
        wire.say("QUIT")


TLS_RUBBISH = {
    "text": b"GET / HTTP/1.0\r\n\r\n" * 10,
    "zeroes": bytes(4096),
    "a huge record": b"\x16\x03\x01\xff\xff" + b"\x41" * 70_000,
    "SSLv2": b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10" + b"\x01\x00\x80" * 7 + b"\x55" * 16,
    "an alert": b"\x15\x03\x03\x00\x02\x02\x28",
    "many alerts": b"\x15\x03\x03\x00\x02\x01\x00" * 5000,
    "heartbleed": b"\x18\x03\x02\x00\x03\x01\x40\x00",
    "empty records": b"\x16\x03\x03\x00\x00" * 5000,
    "change cipher specs": b"\x14\x03\x03\x00\x01\x01" * 5000,
    "a hello cut short": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x41" * 20,
}


@pytest.mark.parametrize("rubbish", TLS_RUBBISH)
def test_rubbish_for_a_handshake(target: Target, rubbish: str) -> None:
    """What is no handshake ends that session, and logs one disconnection."""
    with target.wire() as wire:
        assert wire.say("STARTTLS").startswith(b"220 ")
        wire.send(TLS_RUBBISH[rubbish])
        with contextlib.suppress(OSError):  # it may have had enough already
            wire.sock.shutdown(socket.SHUT_WR)
        assert not any(line.startswith(b"2") for line in wire_rest_raw(wire))
    target.watch.settled()
    lines = [line for line in target.watch.new_log() if "disconnected" in line and "tls" in line]
    assert len(lines) == 1


def test_half_handshakes(target: Target) -> None:
    """A hundred clients in the middle of their handshakes hold nobody up, and cost little."""
    context = insecure_context()
    with contextlib.ExitStack() as stack, peak_memory(target.watch):
        for _ in range(100):
            wire = stack.enter_context(target.wire())
            assert wire.say("STARTTLS").startswith(b"220 ")
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = context.wrap_bio(incoming, outgoing)
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
            hello = outgoing.read()
            wire.send(hello[: len(hello) // 2])
        target.watch.serves()
        assert target.watch.sessions() >= 100


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
def test_old_tls_versions(target: Target, version: ssl.TLSVersion) -> None:
    """TLS before 1.2 is refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the standard library, for naming them
        context = insecure_context(minimum_version=version, maximum_version=version)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with target.wire() as wire, pytest.raises((ssl.SSLError, ConnectionError)):
        wire.tls(context)


@pytest.mark.parametrize("ciphers", ["aNULL:@SECLEVEL=0", "eNULL:@SECLEVEL=0", "kRSA:@SECLEVEL=0"])
def test_weak_suites(target: Target, ciphers: str) -> None:
    """Anonymous suites, suites without encryption and RSA key exchange are refused."""
    context = insecure_context(maximum_version=ssl.TLSVersion.TLSv1_2)
    context.set_ciphers(ciphers)
    with target.wire() as wire, pytest.raises((ssl.SSLError, ConnectionError)):
        wire.tls(context)


def test_renegotiation(target: Target) -> None:
    """A client that asks for renegotiation (TLS 1.2) is cut off: CVE-2011-1473's flood is no flood."""
    with subprocess.Popen(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{target.daemon.port}", "-starttls", "smtp", "-tls1_2", "-crlf"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    ) as client:  # fmt: skip
        assert client.stdin and client.stdout
        client.stdin.write(b"NOOP\n")
        client.stdin.flush()
        while b"250 2.0.0 Ok" not in client.stdout.readline():
            assert client.poll() is None, "the handshake failed"
        client.stdin.write(b"R\n")  # s_client takes it for "renegotiate"
        client.stdin.flush()
        target.watch.settled()
        client.terminate()
    assert any("renegotiation refused" in line for line in target.watch.new_log())
