"""Format specifiers: what they mean, and what a stranger's address cannot do with them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.pure.format_specifier import FormatError, address_values, check_path, expand, parse_format

VALUES = address_values("", "John.Doe+Tag@Example.com", "dest@d.test") | {
    "user.username": "john", "user.directory": "/home/john"}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("/var/mail", "/var/mail"),
        ("%{user.directory}/x", "/home/john/x"),
        ("%{user.username}", "john"),
        ("%{rcpt}", "John.Doe+Tag@Example.com"),
        ("%{rcpt.user}|%{rcpt.domain}", "John.Doe+Tag|Example.com"),
        ("%{dest.user}", "dest"),
        ("[%{sender}%{sender.user}]", "[]"),
        ("%{mbox.from}", "MAILER-DAEMON"),
        ("%{user.username[0]}", "j"),
        ("%{user.username[-1]}", "n"),
        ("%{user.username[0:1]}", "jo"),
        ("%{user.username[1:]}", "ohn"),
        ("%{user.username[-2:-1]}", "h"),
        ("%{user.username[0:99]}", "john"),
        ("%{user.username[7]}", ""),
        ("%{user.username[-99:1]}", "jo"),
        ("%{user.username[2:1]}", ""),
        ("%{rcpt.user:lowercase}", "john.doe+tag"),
        ("%{rcpt.user:uppercase}", "JOHN.DOE+TAG"),
        ("%{rcpt:strip}", "John.Doe@Example.com"),
        ("%{rcpt.user:strip|lowercase}", "john.doe"),
        ("%{rcpt.user[0:3]:lowercase}", "john"),
        ("100% {x}", "100% {x}"),
    ],
)
def test_expansion(text, result):
    """smtpd.conf(5) FORMAT SPECIFIERS; QUIRKS 30 for the bounds."""
    assert expand(parse_format(text), VALUES) == result


@pytest.mark.parametrize(
    "text",
    ["%{nonsense}", "%{}", "%{rcpt", "a%{rcpt}b%{", "%{rcpt[x]}", "%{rcpt:odd}", "%{rcpt:}", "%{rcpt:lowercase|}",
     "%{rcpt[1}"],
)  # fmt: skip
def test_bad_specifiers(text):
    """Each is an error that names it."""
    with pytest.raises(FormatError):
        parse_format(text)


@pytest.mark.parametrize(
    ("user", "result"), [("a/b", "a:b"), ("$(x)`y`", ":(x):y:"), ("a b\n\0", "a:b::"), ("|*?~!{}", ":::::::")]
)
def test_values_are_sanitised(user, result):
    """What a file system or a shell could take for syntax is a colon; `raw` leaves it."""
    values = address_values("", f"{user}@x", "")
    assert expand(parse_format("%{rcpt.user}"), values) == result
    assert expand(parse_format("%{rcpt.user:raw}"), values) == user


@pytest.mark.parametrize("path", ["relative", "/a/../b", "/..", "/a/\0", ""])
def test_paths_that_lead_elsewhere(path):
    """A path must be absolute and go nowhere but down."""
    with pytest.raises(FormatError):
        check_path(path)


@given(st.text(max_size=100), st.text(max_size=100))
def test_no_address_leaves_its_folder(user, domain):
    """Whatever the address is, the path stays below the fixed part, or is refused."""
    format_ = parse_format("/mail/%{dest.domain}/%{dest.user}/box")
    path = expand(format_, address_values("", "", f"{user}@{domain}"))
    try:
        check_path(path)
    except FormatError:
        assert ".." in path.split("/")
        return
    assert path.startswith("/mail/") and path.count("/") == 4


def test_length_is_bounded():
    """A path that grows without bound is refused."""
    with pytest.raises(FormatError):
        expand(parse_format("%{rcpt}" * 100), address_values("", "x" * 200, ""))
