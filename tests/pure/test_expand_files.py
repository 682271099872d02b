"""The text of .forward and of included files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtpd_ps.pure.expand_files import MAX_FORWARD_BYTES, MAX_INCLUDE_BYTES, parse_forward, parse_include
from smtpd_ps.pure.expand_targets import TargetError


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        (b"", []),
        (b"\n  \n# a comment\n", []),
        (b"bob", ["bob"]),
        (b"bob # and so on\nalice\r\n", ["bob", "alice"]),
        (b"bob, alice,\nbob", ["bob", "alice"]),
        (b"bob, \\\n  alice\ncarol", ["bob", "alice", "carol"]),
        (b"bob \\", ["bob"]),
        (b"|prog \\#1", ["prog #1"]),
        (b'"|prog #1"', None),
        (b'"|/bin/prog -a, b"', ["/bin/prog -a, b"]),
        (b"\\bob\n/a/b\na@b.org", ["bob", "/a/b", "a@b.org"]),
    ],
)
def test_forward(data: bytes, texts: list[str] | None) -> None:
    """One line or several, comments from # on, lines that go on; a comment may cut a quote open."""
    if texts is None:
        with pytest.raises(TargetError, match="line 1"):
            parse_forward(data)
        return
    assert [target.text for target in parse_forward(data).targets] == texts


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"bob\nno such thing\n", "line 2"),
        (b'bob\n"|open\n', "line 2"),
        (b"\xff\n", "UTF-8"),
        (b"bob\0", "line 1"),
        (b"/a\x07b", "control character"),
        (b"|", "without words"),
        (b"#" * MAX_FORWARD_BYTES, "4096"),
        (b"".join(b"u%d\n" % number for number in range(101)), "more than 100"),
        (b"/" + b"x" * 2500, "too long"),
    ],
)
def test_bad_forward(data: bytes, why: str) -> None:
    """The whole file is bad, and the reason has a line number where there is one."""
    with pytest.raises(TargetError, match=why):
        parse_forward(data)


def test_limits_of_a_forward() -> None:
    """4095 bytes and a hundred targets are fine."""
    hundred = b"".join(b"u%d\n" % number for number in range(100))
    assert len(parse_forward(hundred + b"#" * (MAX_FORWARD_BYTES - 1 - len(hundred))).targets) == 100


def test_includes_within_files() -> None:
    """Left out, and said with the number of the line (QUIRKS 32)."""
    found = parse_forward(b"bob\n:include:/etc/passwd, alice\n")
    assert [target.text for target in found.targets] == ["bob", "alice"]
    assert found.notes == ("line 2: :include: is not allowed here: /etc/passwd",)
    assert parse_include(b"include:/x\n").notes[0].startswith("line 1")


def test_included_file() -> None:
    """A bad line is left out and noted, the rest counts."""
    found = parse_include(b"# members\nbob\nno such thing\nalice@b.org\n")
    assert [target.text for target in found.targets] == ["bob", "alice@b.org"]
    assert found.notes[0].startswith("line 3: ")
    with pytest.raises(TargetError, match="more than"):
        parse_include(b"#" * (MAX_INCLUDE_BYTES + 1))
    with pytest.raises(TargetError, match="more than"):
        parse_include(b"".join(b"u%d\n" % number for number in range(10_001)))


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    """Any bytes parse or raise TargetError; no target includes a file."""
    for parse in (parse_forward, parse_include):
        try:
            found = parse(data)
        except TargetError:
            continue
        assert all(target.kind != "include" for target in found.targets)
