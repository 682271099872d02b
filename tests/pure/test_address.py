"""pure/address: what is an address, a domain, a HELO argument."""

import ipaddress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smtpd_ps.pure.address import (
    AddressError,
    domain_valid,
    helo_valid,
    ipv4_valid,
    ipv6_valid,
    literal_address,
    local_valid,
    mailbox_valid,
    parse_path,
    split,
)

HOST = "mx.example.com"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a@example.com", "a@example.com"),
        ("A.b+tag@Example.COM", "A.b+tag@Example.COM"),
        ("user", f"user@{HOST}"),
        ("user@", f"user@{HOST}"),
        ("postmaster", f"postmaster@{HOST}"),
        ("@a.example,@b.example:c@d.example", "c@d.example"),
        ("a@[192.0.2.1]", "a@[192.0.2.1]"),
        ("a@[IPv6:2001:db8::1]", "a@[IPv6:2001:db8::1]"),
        ("a@_dmarc.example.com", "a@_dmarc.example.com"),
        ("!#$%&'*/?^`{|}~+-=_@x", "!#$%&'*/?^`{|}~+-=_@x"),
        ("l" * 255 + "@x", "l" * 255 + "@x"),
        ("user%other.example@example.com", "user%other.example@example.com"),
        ("host!user@example.com", "host!user@example.com"),
    ],
)
def test_paths_taken(path: str, expected: str) -> None:
    """Each of these is taken, with the domain filled in and source routes cut (QUIRKS 6)."""
    assert parse_path(path, HOST) == expected


@pytest.mark.parametrize("path", ["", "@"])
def test_null_sender(path: str) -> None:
    """`<>` and `<@>` are the null sender, for MAIL alone."""
    assert parse_path(path, HOST, null_allowed=True) == ""
    with pytest.raises(AddressError):
        parse_path(path, HOST)


@pytest.mark.parametrize(
    "path",
    [
        "@example.com",
        "@a.example:c",
        "a:b@example.com",
        "%{sender:raw}@example.com",
        '"a b"@example.com',
        '"quoted"@example.com',
        ".a@x",
        "a.@x",
        "a..b@x",
        "a b@x",
        "a@b@c",
        "a@.x",
        "a@x.",
        "a@x..y",
        "a@-x",
        "a@x-",
        "a@x y",
        "a\0@x",
        "a@x\0",
        "a\r@x",
        "a@x\n",
        "a\t@x",
        "a\x7f@x",
        "é@x",
        "a@é.example",
        "a;b@x",
        "a@x;reboot",
        "a,b@x",
        "a(c)@x",
        "a\\b@x",
        "a<b@x",
        "a@[192.0.2.256]",
        "a@[]",
        "a@[192.0.2.1",
        "a@[192.0.2.1]x",
        "a@[IPv6:zz]",
        "l" * 256 + "@x",
        "a@" + "d" * 64,
        "a@" + ".".join(["d" * 60] * 5),
        ";echo;@x",
        "a@x:y",
    ],
)
def test_paths_refused(path: str) -> None:
    """Quoted parts, controls, 8-bit, bad dots, bad literals and overlong parts raise AddressError."""
    with pytest.raises(AddressError):
        parse_path(path, HOST, null_allowed=True)


def test_bad_sender_with_valid_shape_of_cve_2020_7247() -> None:
    """An invalid local part is refused though its domain is empty and would be filled in."""
    with pytest.raises(AddressError):
        parse_path(";for i in 0 1;do read r;done;exit 0;", HOST, null_allowed=True)


def test_split_cuts_at_the_last_at() -> None:
    """`split` never raises; the domain is what follows the last "@"."""
    assert split("a@b") == ("a", "b")
    assert split("a") == ("a", "")
    assert split("a@b@c") == ("a@b", "c")
    assert split("@c") == ("", "c")
    assert split("") == ("", "")


def test_helo_takes_names_and_literals_only() -> None:
    """A HELO argument is a domain or an address literal."""
    assert helo_valid("localhost")
    assert helo_valid("[127.0.0.1]")
    assert helo_valid("[IPv6:::1]")
    assert helo_valid("WIN_HOST")
    for bad in ("", "a b", "a_b.", "(x)", "[x]", "x\0", "[127.0.0.1] x", "x" * 256, "127.0.0.1]"):
        assert not helo_valid(bad), bad


def test_literal_address() -> None:
    """The literal's address comes out without brackets and tag, in any case of the tag."""
    assert literal_address("[192.0.2.1]") == "192.0.2.1"
    assert literal_address("[ipv6:::1]") == "::1"
    assert literal_address("[::1]") == "::1"
    assert literal_address("192.0.2.1") == ""


def test_mailbox_needs_both_parts() -> None:
    """mailbox_valid is for complete addresses only."""
    assert mailbox_valid("a@b")
    assert not mailbox_valid("a")
    assert not mailbox_valid("a@")
    assert not mailbox_valid("@b")
    assert not mailbox_valid("")


@settings(deadline=None)
@given(st.ip_addresses(v=4) | st.ip_addresses(v=6))
def test_every_ip_address_is_taken(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Every form the standard library prints is taken in a literal."""
    text = str(address)
    assert ipv4_valid(text) if address.version == 4 else ipv6_valid(text)
    assert domain_valid(f"[{text}]" if address.version == 4 else f"[IPv6:{text}]")


@settings(deadline=None)
@given(st.text(alphabet="0123456789abcdefF:.%g", max_size=46))
def test_ip_parsers_agree_with_the_standard_library(text: str) -> None:
    """No text is an address here that is none for ipaddress, nor the other way round."""
    try:
        ipaddress.IPv4Address(text)
        four = True
    except ValueError:
        four = False
    try:
        six = "%" not in text and bool(ipaddress.IPv6Address(text))
    except ValueError:
        six = False
    assert ipv4_valid(text) == four
    assert ipv6_valid(text) == six


@settings(deadline=None)
@given(st.lists(st.text("0123456789af", max_size=5), max_size=9), st.integers(0, 9))
def test_ipv6_groups_agree_with_the_standard_library(groups: list[str], at: int) -> None:
    """Forms near to real ones agree too."""
    text = ":".join(groups[:at]) + "::" + ":".join(groups[at:]) if at < 9 else ":".join(groups)
    try:
        ipaddress.IPv6Address(text)
        expected = True
    except ValueError:
        expected = False
    assert ipv6_valid(text) == expected


@settings(deadline=None)
@given(st.text())
def test_any_text_is_taken_or_refused(path: str) -> None:
    """Nothing else than AddressError is raised, and what is taken is a mailbox of printable ASCII."""
    try:
        address = parse_path(path, HOST, null_allowed=True)
    except AddressError:
        return
    assert address == "" or mailbox_valid(address)
    assert address.isascii()
    assert address == "" or address.isprintable()
    assert " " not in address


@settings(deadline=None)
@given(st.text(max_size=600))
def test_validity_is_bounded(text: str) -> None:
    """What is valid fits the fields of an envelope."""
    if local_valid(text):
        assert len(text) <= 255
    if domain_valid(text):
        assert len(text) <= 255


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("jürgen@example.org", "jürgen@example.org"),
        ("a@Bücher.Example", "a@xn--bcher-kva.Example".lower()),
        ("用户@例え.jp", "用户@xn--r8jz45g.jp"),
        ("उ@उदाहरण.परीक्षा", "उ@xn--p1b6ci4b4b3a.xn--11b5bs3a9aj6g"),
        ("a@x.ü", "a@x.xn--tda"),
        ("@a.example:ü@b.example", "ü@b.example"),
        ("ü", "ü@mx.example.com"),
    ],
)
def test_paths_outside_ascii(path: str, address: str) -> None:
    """With SMTPUTF8 a local part is kept, a domain becomes its A-labels (RFC 6531, RFC 5890)."""
    assert parse_path(path, "mx.example.com", utf8=True) == address
    assert mailbox_valid(address)
    with pytest.raises(AddressError):
        parse_path(path, "mx.example.com")


@pytest.mark.parametrize(
    "path",
    ["ü b@x.example", "ü\x00@x", "ü\u202e@x", "ü\x85@x", "\ud800@x", ".ü@x", "ü..x@x", "ü.@x", '"ü"@x', "ü(x)@x",
     "ü@b\uff0ecom", "a@b\u3002com", "a@ü_" + "x" * 70, "a@" + "ü" * 64, "a@-ü", "a@ü-", "a@ü..x", "a@.ü",
     "a@ü@b\u2024c", "a@☃.example",
     "ü" * 128 + "@x", "a@½.example"],
)  # fmt: skip
def test_what_is_no_path_outside_ascii(path: str) -> None:
    """Nothing that cannot be seen, looks like syntax, or is too long."""
    with pytest.raises(AddressError):
        parse_path(path, "mx.example.com", utf8=True)


@given(st.text(max_size=40), st.text(max_size=40))
def test_whatever_is_taken_is_one_clean_address(local: str, domain: str) -> None:
    """An accepted path has a domain in ASCII, no blank, no control character, and is accepted as a mailbox."""
    try:
        address = parse_path(f"{local}@{domain}", "mx.example.com", utf8=True)
    except AddressError:
        return
    assert address.isprintable()
    assert " " not in address
    assert split(address)[1].isascii()
    assert mailbox_valid(address)
    assert parse_path(address, "mx.example.com", utf8=True) == address
