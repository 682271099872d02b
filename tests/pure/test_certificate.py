"""Certificates: public key, names and dates as the cryptography package reads them."""

import calendar
import datetime

import pytest
from cryptography import x509 as reference
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519
from hypothesis import given, settings
from hypothesis import strategies as st
from keys.certificates import certificate, ec_key, rsa_key

from smtpd_ps.pure import certificate as x509
from smtpd_ps.pure import der

GOOD = certificate(ec_key(), "mx.example.com")


def test_rsa_certificate() -> None:
    """Modulus and exponent are the key's."""
    numbers = rsa_key().public_key().public_numbers()
    parsed = x509.leaf(certificate(rsa_key(), "mx.example.com"))
    assert parsed.public_key == x509.RsaPublicKey(numbers.n, numbers.e)
    assert parsed.public_key.block_bytes == 256


@pytest.mark.parametrize("curve", [ec.SECP256R1, ec.SECP384R1, ec.SECP521R1])
def test_ec_certificate(curve: type[ec.EllipticCurve]) -> None:
    """The point is the key's, uncompressed."""
    numbers = ec_key(curve).public_key().public_numbers()
    size = (curve().key_size + 7) // 8
    parsed = x509.leaf(certificate(ec_key(curve), "mx.example.com"))
    assert isinstance(parsed.public_key, x509.EcPublicKey)
    assert parsed.public_key.point == b"\4" + numbers.x.to_bytes(size) + numbers.y.to_bytes(size)


def test_dates_and_names() -> None:
    """Validity in Unix time; DNS names in lower case, the common name only without subjectAltName."""
    pem = certificate(ec_key(), "MX.Example.com", "*.example.org", common_name="Other")
    parsed = x509.leaf(pem)
    theirs = reference.load_pem_x509_certificate(pem)
    assert parsed.names == ("mx.example.com", "*.example.org")
    assert parsed.not_before_secs == theirs.not_valid_before_utc.timestamp()
    assert parsed.not_after_secs == theirs.not_valid_after_utc.timestamp()
    assert x509.leaf(certificate(ec_key(), common_name="Plain.Example")).names == ("plain.example",)
    assert x509.leaf(certificate(ec_key(), common_name="")).names == ()


def test_dates_after_2049() -> None:
    """RFC 5280: from 2050 on dates are GeneralizedTime."""
    pem = certificate(ec_key(), "mx.example.com", days=365 * 40)
    theirs = reference.load_pem_x509_certificate(pem).not_valid_after_utc
    assert theirs > datetime.datetime(2050, 1, 1, tzinfo=datetime.UTC)
    assert x509.leaf(pem).not_after_secs == theirs.timestamp()


@given(st.datetimes(min_value=datetime.datetime(1, 1, 1), max_value=datetime.datetime(9999, 12, 31)))
def test_every_date(when: datetime.datetime) -> None:
    """The calendar is right for every day there is."""
    text = f"{when.year:04d}{when:%m%d%H%M%S}Z".encode()
    assert x509._time((der.GENERALIZED_TIME, text)) == calendar.timegm(when.timetuple())


@pytest.mark.parametrize(
    ("server_name", "expected"),
    [
        ("mx.example.com", True), ("MX.example.com.", True), ("a.example.org", True), ("example.org", False),
        ("a.b.example.org", False), ("mx.example.net", False), ("", False), ("org", False),
    ],
)  # fmt: skip
def test_matches(server_name: str, expected: bool) -> None:
    """A name matches exactly, or a wildcard for exactly one label."""
    assert x509.leaf(certificate(ec_key(), "mx.example.com", "*.example.org")).matches(server_name) is expected


def test_chain_order_and_text_between() -> None:
    """The leaf is first; other PEM blocks and text are passed over; CRLF is taken."""
    first, second = certificate(rsa_key(), "a.example"), certificate(ec_key(), "b.example")
    pem = b"Subject: a\n" + first + b"-----BEGIN X-----\nAAAA\n-----END X-----\n" + second.replace(b"\n", b"\r\n")
    assert [x509.parse(item).names for item in x509.chain(pem)] == [("a.example",), ("b.example",)]
    assert x509.leaf(pem).names == ("a.example",)


@pytest.mark.parametrize(
    ("pem", "text"),
    [
        (b"", "no PEM certificate"),
        (b"-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n", "broken base64"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "not an X.509 certificate"),
        (b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", "not an X.509 certificate"),
        (b"x" * (x509.MAX_PEM_BYTES + 1), "too large"),
    ],
)
def test_bad_files(pem: bytes, text: str) -> None:
    """What is no certificate is said so."""
    with pytest.raises(x509.CertificateError, match=text):
        x509.leaf(pem)


def test_other_keys_are_refused() -> None:
    """Ed25519, DSA and other curves are refused by name, not misread."""
    for key in (ed25519.Ed25519PrivateKey.generate(), dsa.generate_private_key(2048), ec_key(ec.SECP256K1)):
        now = datetime.datetime.now(datetime.UTC)
        name = reference.Name([])
        builder = (
            reference.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
            .serial_number(1).not_valid_before(now).not_valid_after(now + datetime.timedelta(1))
        )  # fmt: skip
        made = builder.sign(ec_key(), hashes.SHA256())
        with pytest.raises(x509.CertificateError, match=r"neither RSA nor ECDSA|curve other than"):
            x509.parse(made.public_bytes(serialization.Encoding.DER))


@settings(max_examples=300)
@given(
    changes=st.lists(st.tuples(st.integers(0, 9999), st.integers(0, 255)), max_size=4),
    cut=st.none() | st.integers(0, 9999),
)
def test_damaged_certificates_never_crash(changes: list[tuple[int, int]], cut: int | None) -> None:
    """Any change of any byte gives a certificate or CertificateError."""
    bad = bytearray(x509.chain(GOOD)[0])
    for at, byte in changes:
        bad[at % len(bad)] = byte
    try:
        x509.parse(bytes(bad if cut is None else bad[: cut % len(bad)]))
    except x509.CertificateError:
        return
