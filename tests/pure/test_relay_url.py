"""pure/relay_url: every form of a relay URL, and what is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.pure.relay_url import (
    DEFAULT_PORTS,
    RelayUrl,
    RelayUrlError,
    is_host_name,
    parse_host_port,
    parse_relay_url,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("mx.example.com", RelayUrl("smtp", "", "mx.example.com", 25)),
        ("smtp://mx.example.com", RelayUrl("smtp", "", "mx.example.com", 25)),
        ("SMTP://mx.example.com:2525", RelayUrl("smtp", "", "mx.example.com", 2525)),
        ("smtp+tls://mx", RelayUrl("smtp+tls", "", "mx", 25)),
        ("smtp+notls://127.0.0.1:26", RelayUrl("smtp+notls", "", "127.0.0.1", 26)),
        ("smtps://mx", RelayUrl("smtps", "", "mx", 465)),
        ("smtps://bob@mx.example.com", RelayUrl("smtps", "bob", "mx.example.com", 465)),
        ("smtp+tls://bob@mx.example.com:587", RelayUrl("smtp+tls", "bob", "mx.example.com", 587)),
        ("lmtp://localhost:24", RelayUrl("lmtp", "", "localhost", 24)),
        ("smtp://[::1]", RelayUrl("smtp", "", "::1", 25)),
        ("smtp://[IPv6:::1]:26", RelayUrl("smtp", "", "::1", 26)),
        ("[192.0.2.1]:25", RelayUrl("smtp", "", "192.0.2.1", 25)),
        ("smtp://mail_1.example.com", RelayUrl("smtp", "", "mail_1.example.com", 25)),
    ],
)
def test_parts_of_a_relay_url(text: str, expected: RelayUrl) -> None:
    """smtpd.conf(5): [proto://][label@]host[:port] with the protocol's default port."""
    assert parse_relay_url(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the host name is missing"),
        ("smtp://", "the host name is missing"),
        ("ftp://mx", 'unknown protocol "ftp", expected one of smtp, smtp+tls, smtp+notls, smtps, lmtp'),
        ("://mx", 'unknown protocol "", expected one of smtp, smtp+tls, smtp+notls, smtps, lmtp'),
        ("lmtp://localhost", "lmtp:// needs a port"),
        ("smtp://bob@mx", "smtp:// does not always encrypt; a label needs smtp+tls:// or smtps://"),
        ("bob@mx", "smtp:// does not always encrypt; a label needs smtp+tls:// or smtps://"),
        ("smtp+notls://bob@mx", "smtp+notls:// does not always encrypt; a label needs smtp+tls:// or smtps://"),
        ("smtps://@mx", "the label before @ must be 1 to 255 printable characters without spaces"),
        ("smtps://a b@mx", "the label before @ must be 1 to 255 printable characters without spaces"),
        ("smtp://mx:0", '"0" is not a port number (1 to 65535)'),
        ("smtp://mx:65536", '"65536" is not a port number (1 to 65535)'),
        ("smtp://mx:", '"" is not a port number (1 to 65535)'),
        ("smtp://mx:+25", '"+25" is not a port number (1 to 65535)'),
        ("smtp://mx:25/", '"25/" is not a port number (1 to 65535)'),
        ("smtp://mx/", '"mx/" is not a host name'),
        ("smtp://-mx", '"-mx" is not a host name'),
        ("smtp://mx..example", '"mx..example" is not a host name'),
        ("smtp://mx.", '"mx." is not a host name'),
        ("smtp://[mx]", '"mx" in brackets is not an IP address'),
        ("smtp://[::1", 'expected a host name or an address in brackets, found "[::1"'),
        ("smtp://[::1]x", 'expected a host name or an address in brackets, found "[::1]x"'),
        ("smtp://m\nx", '"m\nx" is not a host name'),
        ("smtp://mx\n", '"mx\n" is not a host name'),
        ("smtp://" + "a" * 64, f'"{"a" * 64}" is not a host name'),
    ],
)
def test_what_is_no_relay_url(text: str, reason: str) -> None:
    """Anything else is refused with what was expected (QUIRKS 45 for labels without TLS)."""
    with pytest.raises(RelayUrlError) as caught:
        parse_relay_url(text)
    assert str(caught.value) == reason


def test_address_or_name() -> None:
    """is_address says whether anything is left to resolve."""
    assert parse_relay_url("[::1]").is_address
    assert parse_relay_url("192.0.2.1").is_address
    assert not parse_relay_url("mx.example.com").is_address


def test_host_port_default() -> None:
    """The default port stands where none is given."""
    assert parse_host_port("localhost", 25) == ("localhost", 25)
    assert parse_host_port("[::1]:24", 25) == ("::1", 24)


def test_host_name_length() -> None:
    """RFC 1035 2.3.4: names have at most 253 characters as text."""
    assert is_host_name(".".join(["a" * 61] * 4))
    assert not is_host_name(".".join(["a" * 63] * 4))


@given(st.text())
def test_no_input_raises_anything_else(text: str) -> None:
    """Any text gives a RelayUrl or a RelayUrlError."""
    try:
        url = parse_relay_url(text)
    except RelayUrlError:
        return
    assert 1 <= url.port <= 65535


@given(st.sampled_from(list(DEFAULT_PORTS)), st.from_regex(r"[a-z0-9]{1,9}(\.[a-z]{1,9}){0,3}", fullmatch=True),
       st.integers(1, 65535))  # fmt: skip
def test_written_and_read_again(protocol: str, host: str, port: int) -> None:
    """What is written in full is read as written."""
    assert parse_relay_url(f"{protocol}://{host}:{port}") == RelayUrl(protocol, "", host, port)
