"""Values of tables: what is taken, and what is said of the rest."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.pure import table_values as values
from smtpd_ps.pure.table_values import UserInfo


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("5000:5000:/var/vmail/john", UserInfo(5000, 5000, "/var/vmail/john")),
        ("0:0:/root", UserInfo(0, 0, "/root")),
        ("4294967294:1:/a:b c", UserInfo(4294967294, 1, "/a:b c")),
    ],
)
def test_userinfo(text: str, made: UserInfo) -> None:
    """uid:gid:home; the home is all that follows."""
    assert values.parse_userinfo(text) == made


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", 'expected uid:gid:home, found ""'),
        ("1:2", 'expected uid:gid:home, found "1:2"'),
        ("a:2:/h", 'a uid is a number up to 4294967294, found "a"'),
        ("-1:2:/h", 'a uid is a number up to 4294967294, found "-1"'),
        ("1:4294967295:/h", 'a gid is a number up to 4294967294, found "4294967295"'),
        ("1:٣:/h", 'a gid is a number up to 4294967294, found "٣"'),
        ("1:2:h", 'the home directory must start with "/", found "h"'),
        ("1:2:", 'the home directory must start with "/", found ""'),
        ("1:2:/" + "h" * 1024, "the home directory is no path"),
    ],
)
def test_bad_userinfo(text: str, error: str) -> None:
    """Neither a uid that means none, nor a home that is no absolute path."""
    with pytest.raises(ValueError) as caught:
        values.parse_userinfo(text)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("192.0.2.1", "192.0.2.1"), ("2001:DB8::1", "2001:db8::1"), ("[2001:db8:0::1]", "2001:db8::1"),
        ("[IPv6:::1]", "::1"),
    ],
)  # fmt: skip
def test_addresses(text: str, made: str) -> None:
    """In their usual form, so that they can be looked up."""
    assert values.parse_address(text) == made


@pytest.mark.parametrize("text", ["", "192.0.2", "192.0.2.0/24", "[::1", "fe80::1%lo", "mx", "IPv6:::1", "01.2.3.4"])
def test_no_addresses(text: str) -> None:
    """Neither names nor networks."""
    with pytest.raises(ValueError, match="expected an IP address"):
        values.parse_address(text)


def test_mailaddrs() -> None:
    """Users, domains, addresses and `@`, in lower case, with blanks around the commas."""
    assert values.parse_mailaddrs("Bob@Example.org , @example.net,root, @") == (
        "bob@example.org", "@example.net", "root", "@",
    )  # fmt: skip
    for text in ("", "a,,b", "a b", "a@b@c", "a,"):
        with pytest.raises(ValueError, match="expected user@domain"):
            values.parse_mailaddrs(text)
    with pytest.raises(ValueError, match="at most 1000 addresses, found 1001"):
        values.parse_mailaddrs(",".join(["a"] * 1001))


def test_host_names_and_credentials() -> None:
    """What can be said in HELO; a secret is not in the error."""
    assert values.parse_host_name("mx_1.example.org") == "mx_1.example.org"
    assert values.parse_host_name("[192.0.2.1]") == "[192.0.2.1]"
    with pytest.raises(ValueError, match='expected a host name, found "a b"'):
        values.parse_host_name("a b")
    values.check_credentials("u:p")
    with pytest.raises(ValueError, match=r"^expected user:password, or a password of at least three characters$"):
        values.check_credentials(":hidden")


@given(st.text(max_size=40))
def test_no_text_crashes(text: str) -> None:
    """A parser gives a value or a ValueError."""
    for parse in (
        values.parse_userinfo, values.parse_address, values.parse_mailaddrs, values.parse_host_name,
        values.check_credentials,
    ):  # fmt: skip
        try:
            parse(text)
        except ValueError as error:
            assert str(error)
