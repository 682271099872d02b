"""filter-dkim: what it signs verifies with dkimpy, what it should protect is protected, and which keys it takes."""

import base64
import os
import subprocess
import sys
from pathlib import Path

import dkim
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from smtpd_ps.programs.bad_key import BadKey
from smtpd_ps.programs.dkim_keys import load, parse
from smtpd_ps.programs.filter_dkim import UsageError, signer

MESSAGE = (
    b"Received: from a by b; today\r\nFrom: Anna <anna@Example.ORG>\r\n"
    b"To: b@example.net\r\nSubject: a long\r\n line\r\n"
    b"\r\n.dots and  spaces \r\n\r\n\r\n"
)
RSA = rsa.generate_private_key(65537, 2048)
ED = ed25519.Ed25519PrivateKey.generate()
RAW = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
PKCS8, PKCS1 = serialization.PrivateFormat.PKCS8, serialization.PrivateFormat.TraditionalOpenSSL


def pem(key: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey, form: serialization.PrivateFormat = PKCS8) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


def keyfile(tmp_path: Path, data: bytes, mode: int = 0o600) -> str:
    path = tmp_path / f"key{len(list(tmp_path.iterdir()))}"
    path.write_bytes(data)
    path.chmod(mode)
    return str(path)


def dns(name: bytes, timeout: int = 5) -> bytes:
    """The two keys, as records."""
    if name.startswith(b"rsa._domainkey."):
        der = RSA.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return b"v=DKIM1; k=rsa; p=" + base64.b64encode(der)
    return b"v=DKIM1; k=ed25519; p=" + base64.b64encode(ED.public_key().public_bytes(*RAW))


def verified(message: bytes) -> list[bool]:
    """Of each signature, the first one first."""
    count = message.lower().count(b"\r\ndkim-signature:") + message.lower().startswith(b"dkim-signature:")
    return [_verify(message, index) for index in range(count)]


def _verify(message: bytes, index: int) -> bool:
    try:
        return bool(dkim.DKIM(message).verify(index, dnsfunc=dns))
    except dkim.ValidationError:
        return False


@pytest.fixture
def two(tmp_path: Path) -> list[str]:
    return ["-s", "rsa", "-k", keyfile(tmp_path, pem(RSA)), "-s", "ed", "-k", keyfile(tmp_path, pem(ED))]


@pytest.mark.parametrize(
    "canonicalization", ["simple/simple", "relaxed/relaxed", "relaxed/simple", "relaxed", "simple/relaxed"]
)
def test_signatures_verify(two: list[str], canonicalization: str) -> None:
    """With RSA and Ed25519, and any canonicalization; the domain is the author's."""
    signatures = signer([*two, "-c", canonicalization, "-d", "example.org"]).sign(MESSAGE)
    assert verified(b"".join(signatures) + MESSAGE) == [True, True]
    assert all(b"d=example.org;" in each and each.endswith(b"\r\n") for each in signatures)


@pytest.mark.parametrize(
    "added", [b"From: x@evil.test", b"Subject: other", b"To: c@d", b"Reply-To: x@evil.test", b"Content-Type: text/html"]
)
def test_oversigned_fields_cannot_be_added(two: list[str], added: bytes) -> None:
    """Also one that was not there, since they are signed once more than they are there."""
    signed = b"".join(signer([*two, "-d", "example.org"]).sign(MESSAGE)) + MESSAGE
    assert verified(signed.replace(b"Received:", added + b"\r\nReceived:")) == [False, False]
    assert verified(b"X-New: 1\r\n" + signed) == [True, True]


def test_what_the_server_adds_later_does_not_break_a_signature(two: list[str]) -> None:
    """Date and Message-ID are oversigned only where they are there."""
    made = signer([*two, "-d", "example.org"])
    signed = b"".join(made.sign(MESSAGE)) + MESSAGE
    assert verified(signed.replace(b"\r\n\r\n", b"\r\nDate: now\r\nMessage-ID: <1@x>\r\n\r\n", 1)) == [True, True]
    assert made.fields(["from", "date"]).count("date") == 2


def test_fields_can_be_chosen(two: list[str]) -> None:
    """With -h alone nothing but From is oversigned."""
    made = signer([*two, "-d", "example.org", "-h", "From:Subject", "-o", "subject"])
    assert made.fields(["from", "subject", "to"]) == ["from", "subject", "subject"]
    made = signer([*two, "-d", "example.org", "-h", "from,to"])
    assert made.fields(["from", "subject", "to", "to"]) == ["from", "from", "to", "to"]


@pytest.mark.parametrize("author, domain", [
    (b"a@example.org", b"example.org"), (b"a@sub.example.org", b"example.org"), (b"a@EXAMPLE.net", b"example.net"),
    (b"a@notexample.org", None), (b"a@example.org, b@example.org", None), (b"nobody", None), (b"", None),
])  # fmt: skip
def test_only_our_authors_are_signed(two: list[str], author: bytes, domain: bytes | None) -> None:
    """One of the domains or below it; not where there is more than one author, or none."""
    made = signer([*two, "-d", "example.org", "-d", "example.net"])
    signatures = made.sign(MESSAGE.replace(b"Anna <anna@Example.ORG>", author))
    assert [dkim.DKIM(each + MESSAGE).headers[0][1].find(b"d=%b;" % domain) > 0 for each in signatures] == (
        [] if domain is None else [True, True]
    )


@pytest.mark.parametrize("text, algorithm", [
    (pem(RSA), "rsa-sha256"), (pem(RSA, PKCS1), "rsa-sha256"), (pem(ED), "ed25519-sha256"),
    (base64.b64encode(b"k" * 32) + b"\n", "ed25519-sha256"),
])  # fmt: skip
def test_keys_are_read(text: bytes, algorithm: str) -> None:
    """As openssl and dkimpy write them; none is shown where the key is."""
    key = parse("s", "path", text)
    assert key.algorithm == algorithm and repr(key) == f"SigningKey(s, {algorithm})"


@pytest.mark.parametrize("text", [b"", b"rubbish", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
                                  b"-----BEGIN PRIVATE KEY-----\n", base64.b64encode(b"k" * 31)])  # fmt: skip
def test_other_keys_are_refused(text: bytes) -> None:
    """With the path."""
    with pytest.raises(BadKey, match="path has neither an RSA nor an Ed25519 key"):
        parse("s", "path", text)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o601])
def test_a_key_that_others_could_read_is_refused(tmp_path: Path, mode: int) -> None:
    """Or change."""
    with pytest.raises(BadKey, match="others than its owner"):
        load("s", keyfile(tmp_path, pem(ED), mode))


def test_what_is_no_key_file(tmp_path: Path) -> None:
    """Not there, a directory, and one of another user where that can be."""
    with pytest.raises(BadKey, match="No such file"):
        load("s", str(tmp_path / "none"))
    with pytest.raises(BadKey, match="is not a file"):
        load("s", str(tmp_path))
    if os.geteuid() == 0:
        path = keyfile(tmp_path, pem(ED))
        os.chown(path, 1234, -1)
        with pytest.raises(BadKey, match="belongs to user id 1234"):
            load("s", path)


@pytest.mark.parametrize("words, text", [
    ((), "no domain"), (("-d", "example.org"), "each selector"), (("-d", "a b", "-s", "s", "-k", "k"), "is no domain"),
    (("-d", "example.org", "-s", "s;", "-k", "k"), "is no domain"), (("-d", "x.test", "-s", "s"), "each selector"),
    (("-d", "x.test", "-s", "s", "-k", "k", "-c", "none"), "no canonicalization"), (("-q",), "not recognized"),
    (("-d", "x.test", "-s", "s", "-k", "k", "-h", "to"), "From has to be signed"), (("what",), "unexpected"),
    (("-d", "x.test", "-s", "s", "-k", "k", "-h", "from:received"), "no header field to sign"),
])  # fmt: skip
def test_arguments_that_are_none(words: tuple[str, ...], text: str) -> None:
    """Each says what is wrong."""
    with pytest.raises(UsageError, match=text):
        signer(words)


def test_the_algorithm_can_be_asked_for(two: list[str]) -> None:
    """It is that of the key; another one is an error."""
    with pytest.raises(UsageError, match="selector ed is for ed25519-sha256, not for rsa-sha256"):
        signer([*two, "-d", "example.org", "-a", "rsa-sha256"])


def test_the_program(tmp_path: Path, two: list[str]) -> None:
    """It signs over its pipes, lets pass what it cannot sign, and refuses to start with a key that lies open."""
    argv = [sys.executable, "-I", "-m", "smtpd_ps.programs.filter_dkim", "-d", "example.org"]
    lines = [b"config|protocol|0.7", b"config|subsystem|smtp-in", b"config|ready"]
    for session, message in (
        (b"a1", MESSAGE),
        (b"a2", b"no field\r\n\r\nbody\r\n"),
        (b"a3", b"From: a@b.c\r\n\r\nx\r\n"),
    ):
        for line in [*message.split(b"\r\n")[:-1], b"."]:
            dot = b"." if line.startswith(b".") and line != b"." else b""
            lines.append(b"filter|0.7|1.0|smtp-in|data-line|" + session + b"|t|" + dot + line)
    done = subprocess.run([*argv, *two], input=b"\n".join([*lines, b""]), capture_output=True, timeout=60, check=True)
    came: dict[bytes, list[bytes]] = {}
    for line in done.stdout.splitlines():
        if line.startswith(b"filter-dataline|"):
            _word, session, _token, text = line.split(b"|", 3)
            came.setdefault(session, []).append(text[1:] if text.startswith(b".") and text != b"." else text)
    assert verified(b"\r\n".join(came[b"a1"][:-1]) + b"\r\n") == [True, True]
    assert came[b"a2"] == [b"no field", b"", b"body", b"."]
    assert came[b"a3"] == [b"From: a@b.c", b"", b"x", b"."]
    open_key = keyfile(tmp_path, pem(ED), 0o644)
    done = subprocess.run([*argv, "-s", "s", "-k", open_key], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == f"filter-dkim: {open_key} has mode 0644: others than its owner can read it\n"
