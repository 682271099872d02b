"""The DER reader and writer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.pure import der


@given(st.integers(min_value=0, max_value=1 << 4200))
def test_integers_round_trip(number: int) -> None:
    """What write_integer wrote, read_integer reads."""
    data = der.write_integer(number)
    assert der.read_integer((der.INTEGER, der.only(data, der.INTEGER))) == number


@given(st.lists(st.tuples(st.sampled_from([der.SEQUENCE, der.SET, der.OCTET_STRING]), st.binary(max_size=70_000))))
def test_elements_round_trip(pairs: list[tuple[int, bytes]]) -> None:
    """Elements are read back in their order, with short and long lengths."""
    assert list(der.elements(b"".join(der.write(tag, content) for tag, content in pairs))) == pairs


@pytest.mark.parametrize("dotted", ["1.2.840.10045.3.1.7", "1.3.132.0.34", "2.5.29.17", "0.9.2342.19200300.100.1.25"])
def test_object_identifiers_round_trip(dotted: str) -> None:
    """Dotted form to DER and back."""
    data = der.write_oid(dotted)
    assert der.read_oid((der.OID, der.only(data, der.OID))) == dotted


def test_object_identifier_bytes() -> None:
    """X.690 8.19.5's example: 2.999.3 is 06 03 88 37 03."""
    assert der.write_oid("2.999.3") == bytes.fromhex("0603883703")
    assert der.read_oid((der.OID, bytes.fromhex("883703"))) == "2.999.3"


@given(st.binary(max_size=200))
def test_rubbish_is_an_error_or_elements(data: bytes) -> None:
    """Any bytes are elements or DerError, never another exception."""
    for read in (der.read_integer, der.read_bits, der.read_oid):
        try:
            for element in der.elements(data):
                read(element)
        except der.DerError:
            continue


@pytest.mark.parametrize(
    "data",
    [b"0", b"0\x05abc", b"0\x80", b"0\x85\0\0\0\0\1x", b"0\x82\1", b"\x1f\x81\1\0", b"0\0x"],
    ids=["no length", "cut off", "indefinite", "length of 5 bytes", "length cut off", "long tag", "trailing"],
)
def test_malformed_elements(data: bytes) -> None:
    """What is not one definite-length element is refused."""
    with pytest.raises(der.DerError):
        der.only(data, der.SEQUENCE)


def test_negative_numbers_are_refused() -> None:
    """A modulus with the sign bit set is not a number we take."""
    with pytest.raises(der.DerError):
        der.read_integer((der.INTEGER, b"\x80"))
